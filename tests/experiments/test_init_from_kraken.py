"""A recogniser of kraken's: predict reads with it, and train goes on from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import train
from experiments.config import override, preset
from experiments.errors import UsageError
from experiments.experiment import Experiment, load_data
from experiments.predict import predict
from experiments.run.init_from import known_labels, weights_from
from lstm_jax import tasks
from lstm_jax.metrics.ctc import greedy
from lstm_jax.models import VGSLNet, load_kraken
from lstm_jax.models.vgsl import parse
from lstm_jax.training import flatten_params
from tests.experiments.test_train_lines import SMALL, blank_params, fill
from tests.models.kraken_files import write

SPEC = "[1,16,0,1 Cr{C_0}5,3,16,4,2 S{S_1}1(1x0)1,3 Lbx{L_2}24 O{O_3}1c4]"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("kraken") / "oxL.safetensors"
    blank = jnp.zeros((1, 16, 40, 1))
    params = jax.jit(VGSLNet(parse(SPEC)).init)(jax.random.key(3), blank)["params"]
    params = jax.tree.map(lambda x: 2 * np.asarray(x), params)  # sure of what it reads
    return write(path, SPEC, params, "xoL")


def test_predict_inverts_a_line_and_puts_paper_around_it(file, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 60), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "line.png")
    (answer,) = predict(file, tmp_path / "line.png")
    found = load_kraken(file)
    paper = np.pad(1 - pixels / 255, ((0, 0), (16, 16)))[None, ..., None]
    apply = jax.jit(VGSLNet(found.spec).apply)
    logits = apply({"params": found.params}, jnp.float32(paper))
    labels = np.asarray(greedy(logits).labels[0])
    assert answer["text"] == tasks.text_of(labels, "xoL") and len(answer["text"]) > 3
    places = np.asarray([one["x"] for one in answer["characters"]])
    assert places.min() >= 0 and places.max() <= 60
    assert (places[1:, 0] >= places[:-1, 1]).all()


@pytest.fixture(scope="module")
def options(file, tmp_path_factory):
    folder = fill(tmp_path_factory.mktemp("lines") / "lines", 24, "oxL-", 0)
    return SMALL | dict(steps=4, eval_every=4, init_from=str(file), data=str(folder))


OURS = {
    "model__spec": SPEC.replace("O{O_3}", "O"),
    "model__pad": 16,
    "data__normalize": "inverted",
}


def test_training_wants_its_network_and_takes_its_weights(file, options, tmp_path):
    with pytest.raises(UsageError, match="use its network") as caught:
        train("text-lines", run_dir=tmp_path / "no", **options)
    told = str(caught.value).split("use its network, ")[1]
    assert f"--model.spec='{load_kraken(file).spec}'" in told
    assert told.endswith(" --model.pad=16 --data.normalize=inverted")
    config = override(preset("text-lines"), options | OURS)
    loaded = load_data(config, known_labels(config, tmp_path / "none"))
    about = Experiment(config, dataset=loaded).spec
    filled, lines = weights_from(str(file), about, blank_params(config, about))
    assert "loaded " in lines[0] and "for 3 classes" in " ".join(lines)
    theirs = flatten_params(load_kraken(file).params)
    same = [
        np.array_equal(leaf, theirs[path])
        for path, leaf in flatten_params(filled).items()
        if leaf.shape == theirs[path].shape
    ]
    assert all(same) and len(same) >= len(theirs) - 2


@pytest.mark.slow
def test_training_goes_on_from_it(options, tmp_path, capsys):
    run = train("text-lines", run_dir=tmp_path / "run", **options | OURS)
    assert run.report["test"]["examples"]
    shown = capsys.readouterr().out
    assert "loaded " in shown and "for 3 classes" in shown
    assert (run.directory / "worst_lines.png").exists()


def test_a_damaged_file_is_told_of_in_one_line(file, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UsageError, match=r"broken\.safetensors") as caught:
        predict(broken, tmp_path)
    assert "\n" not in str(caught.value)
