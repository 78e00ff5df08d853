"""Every preset can be built, without its data."""

import dataclasses
import io
import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from selection import slow_but
from small_runs import SMALL_FLAGS

from experiments.config import check, override, preset
from experiments.errors import UsageError
from experiments.experiment import Experiment
from experiments.flags import parse
from experiments.models.classifier import order_of
from experiments.presets import PRESETS
from experiments.spec import DataSpec
from experiments.tasks import TASKS

# Data set: image shape, outputs.
SHAPES = {
    "digits": ((8, 8, 1), 10),
    "digits_angle": ((16, 16, 1), 1),
    "mnist": ((28, 28, 1), 10),
    "fashion_mnist": ((28, 28, 1), 10),
    "cifar10": ((32, 32, 3), 10),
    "colorectal_histology": ((64, 64, 3), 8),
    "malaria": ((64, 64, 3), 2),
    "tf_flowers": ((64, 64, 3), 5),
    "oxford_flowers102": ((64, 64, 3), 102),
    "moving_digits": ((20, 64, 64, 1), 0),
    "moving_digits/fashion_mnist": ((20, 64, 64, 1), 0),
    "moving_digit/content": ((20, 32, 32, 1), 10),
    "moving_digit/motion": ((20, 32, 32, 1), 8),
    "digits_masks": ((64, 64, 1), 11),
    "digits_boxes": ((64, 64, 1), 10),
    "moving_digits_boxes": ((12, 64, 64, 1), 10),
    "features.csv": ((9, 5), 3),
    "text_lines": ((32, 90, 1), 4),
}


def about(config):
    shape, outputs = SHAPES[config.data.source]
    classes = [str(k) for k in range(outputs)] if outputs > 1 else []
    channels = shape[-1]
    return DataSpec(
        config.data.source,
        classes,
        list(shape),
        outputs + TASKS[config.task.name].bucketed,
        [0.0] * channels,
        [1.0] * channels,
    )


# Those that find things have targets of their own: tests/tasks, tests/models.
READERS = [n for n in PRESETS if not n.startswith(("segment-", "detect-"))]


@pytest.mark.parametrize("name", [n for n in PRESETS if n not in READERS])
def test_a_preset_that_finds_things_answers(name):
    config = check(preset(name))
    facts = about(config)

    def answers(inputs):
        params = Experiment(config, facts).init(jax.random.key(0))
        keys = jax.random.split(jax.random.key(1), len(inputs))
        return Experiment(config, facts).outputs(params, inputs, keys)

    inputs = jax.ShapeDtypeStruct((4, *facts.image_shape), jnp.uint8)
    out = jax.eval_shape(answers, inputs)
    width = facts.outputs if config.task.name == "segmentation" else 5 + facts.outputs
    assert out.shape[:1] + out.shape[-1:] == (4, width) and out.dtype == jnp.float32


@pytest.mark.parametrize(
    "name",
    slow_but(
        READERS, "digits", "digits-angle", "moving-digits", "text-lines", "features"
    ),
)
def test_a_preset_builds(name):
    config = check(preset(name))
    facts = about(config)
    targets = ((4,), jnp.int32) if facts.classes else ((4, 1), jnp.float32)
    if config.task.name == "multilabel":
        targets = (4, 9, 3), jnp.float32
        facts = dataclasses.replace(facts, per_step=True)
    if TASKS[config.task.name].bucketed:
        targets = (4, 7), jnp.int32
    batch = dict(
        inputs=jax.ShapeDtypeStruct((4, *facts.image_shape), jnp.uint8),
        targets=jax.ShapeDtypeStruct(*targets),
        mask=jax.ShapeDtypeStruct((4,), jnp.float32),
        progress=jax.ShapeDtypeStruct((4,), jnp.float32),
    )

    if TASKS[config.task.name].bucketed:
        batch["lengths"] = jax.ShapeDtypeStruct((4,), jnp.int32)

    def run(batch):
        key = jax.random.key(0)
        params = Experiment(config, facts).init(key)
        loss = Experiment(config, facts).loss
        found = Experiment(config, facts).evaluate(params, batch)
        return loss(params, batch, jax.random.split(key, 4)), found

    ((total, count), _), (metrics, predictions) = jax.eval_shape(run, batch)
    shape = (10, *facts.image_shape[1:]) if not facts.outputs else (facts.outputs,)
    shape = targets[0][1:] if config.task.name == "multilabel" else shape
    if TASKS[config.task.name].bucketed:  # a step for three columns
        shape = 30, 4
    assert predictions.shape == (4, *shape) and predictions.dtype == jnp.float32
    assert total.shape == count.shape == ()
    assert {"loss", Experiment(config, facts).task.monitor} <= metrics.keys()


@pytest.mark.slow
def test_a_preset_reads_the_archive_that_it_asks_for(tmp_path, command):
    name = "Kather_texture_2016_image_tiles_5000"
    flags = SMALL_FLAGS + ["--steps=2", f"--run-dir={tmp_path / 'run'}"]
    flags += [f"--data.manual-dir={tmp_path}", "--model.no-bidirectional"]
    flags += ["--augment.flip=0", "--augment.rotate=0", "--augment.translate=0"]
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
        kinds = "TUMOR STROMA COMPLEX LYMPHO DEBRIS MUCOSA ADIPOSE EMPTY".split()
        for k, kind in enumerate(kinds):
            for n in range(5):
                file = io.BytesIO()
                noise = rng.integers(0, 256, (150, 150, 3), np.uint8)
                Image.fromarray(noise).save(file, "TIFF")
                archive.writestr(f"{name}/{k + 1:02}_{kind}/{n}.tif", file.getvalue())
    code, out, err = command("train", "histology", *flags)
    assert code == 0, err
    assert "24 training, 8 validation and 8 test images of 64x64x3" in out
    saved = json.loads((tmp_path / "run" / "report.json").read_text())
    assert saved["test"]["classes"] == [kind.lower() for kind in kinds]


@pytest.mark.parametrize("order", "rows columns both pixels permuted patches".split())
def test_an_order_reads_all_of_a_picture(order):
    config = override(preset("digits"), {"model.order": order})
    image = jnp.arange(64.0).reshape(1, 8, 8, 1)
    xs = order_of(config.model, (8, 8, 1)).to_sequence(image)
    assert set(xs.ravel().tolist()) == set(range(64))


def test_patches_that_do_not_fit_are_refused():
    config = override(preset("digits"), {"model.order": "patches", "model.patch": 3})
    with pytest.raises(UsageError, match="8x8, not multiples of --model.patch=3"):
        order_of(config.model, (8, 8, 1))


@pytest.mark.parametrize("init", ["glorot", "he", "lecun", "torch"])
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_initialisers_and_the_forget_bias(cell, init):
    config = override(
        preset("mnist-rows"),
        {"model": {"cell": cell, "init": init, "features": 8}},
    )
    key = jax.random.key(0)
    params = config.model.cells(28 * 28)[0].init(key, (28,))
    whole = jax.eval_shape(lambda: Experiment(config, about(config)).init(key))
    gates = 4 if cell == "lstm" else 1
    assert whole["layer_0"]["w_x"].shape == params["w_x"].shape
    assert params["w_x"].shape == (28, gates * 8)
    assert params["w_h"].shape == (8, gates * 8)
    # 28 inputs; glorot also counts the 8 outputs of a gate; torch is uniform.
    std = {"glorot": (2 / 36) ** 0.5, "he": (2 / 28) ** 0.5, "lecun": 28**-0.5}
    wanted = std.get(init, 8**-0.5 / 3**0.5)
    assert float(params["w_x"].std()) == pytest.approx(wanted, rel=0.15)


def test_flags_change_one_value_of_a_preset():
    name, config = parse(["mnist-rows", "--data=digits", "--model.features", "5"])
    assert name == "mnist-rows"
    assert config == override(
        preset("mnist-rows"), {"data": "digits", "model.features": 5}
    )
    assert parse([]) == ("digits", preset("digits"))
    assert parse(["--data", "x"])[1].data.source == "x"
    assert parse(["--steps=3"])[1].augment.translate == 1  # still that of the preset
