"""Clips whose frames go through a pretrained ResNet: weights, pixels, resuming."""

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import train
from experiments.config import check, override, preset
from experiments.errors import UsageError
from experiments.experiment import Experiment, load_data
from experiments.models.classifier import order_of
from experiments.predict import predict
from experiments.spec import DataSpec
from experiments.train import main
from lstm_jax.models import load_resnet, resnet

safetensors = pytest.importorskip("safetensors.numpy")
T, SIDE = 2, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Grey clips of two classes, in splits."""
    path, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    for split, count in (("train", 4), ("validation", 1), ("test", 2)):
        for name, ground in (("dark", 0), ("light", 128)):
            for number in range(count):
                clip = rng.integers(ground, ground + 99, (T, SIDE, SIDE), np.uint8)
                file = path / split / name / f"{number}.gif"
                file.parent.mkdir(parents=True, exist_ok=True)
                first, *rest = map(Image.fromarray, clip)
                first.save(file, save_all=True, append_images=rest)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file under PyTorch's names, of random numbers."""
    rng, state = np.random.default_rng(0), {}
    frame = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), np.float32)
    wanted = jax.eval_shape(resnet.ResNet(18).init, jax.random.key(0), frame)
    for ours, leaves in wanted["params"].items():
        name = ours.replace("_", ".")
        if "kernel" in leaves:
            height, width, inputs, outputs = leaves["kernel"].shape
            shape = (outputs, inputs, height, width)
            spread = np.float32((height * width * inputs) ** -0.5)
            state[f"{name}.weight"] = rng.standard_normal(shape, np.float32) * spread
        else:
            for part in ("weight", "bias", "running_mean", "running_var"):
                shape = leaves["scale"].shape
                state[f"{name}.{part}"] = rng.uniform(0.5, 1, shape).astype("f4")
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    safetensors.save_file(state, path)
    return path


@pytest.fixture(scope="module")
def options(folder, weights, tmp_path_factory):
    return dict(
        data=folder,
        data__frames=T,
        data__size=None,
        model__encoder="resnet18",
        model__encoder__weights=str(weights),
        model__cell="lstm",
        model__features=4,
        optimizer__freeze="encoder",
        batch_size=4,
        steps=2,
        eval_every=1,
        run_dir=str(tmp_path_factory.mktemp("runs") / "films"),
    )


@pytest.fixture(scope="module")
def film_run(options):
    return train("moving-motion", **options)


@pytest.mark.slow
def test_the_encoder_has_the_weights_of_the_file(film_run, weights):
    jax.tree.map(
        np.testing.assert_array_equal,
        film_run.params["encoder"],
        load_resnet(weights, 18),
    )


@pytest.mark.slow
def test_pixels_are_normalised_as_imagenets(film_run, folder):
    """The frozen network's answer, from raw pixels by hand."""
    about = Experiment(film_run.config, dataset=load_data(film_run.config)).spec
    assert about.image_shape == [T, SIDE, SIDE, 1]
    clips = np.random.default_rng(1).integers(0, 256, (2, T, SIDE, SIDE, 1), np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = ((clips / 255 - mean) / std).astype(np.float32)
    resnet = Experiment(film_run.config, about).network.module
    want = resnet.apply({"params": film_run.params}, pixels)
    got = Experiment(film_run.config, about).outputs(film_run.params, clips)
    # Two orders of the same operations, and 18 layers above them.
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_neither_resuming_nor_predicting_reads_the_file_again(
    film_run, options, weights, folder, tmp_path
):
    (before,) = predict(film_run.directory, folder / "test" / "dark" / "0.gif")
    moved = weights.rename(tmp_path / weights.name)
    try:
        again = train("moving-motion", **options)
        (after,) = predict(film_run.directory, folder / "test" / "dark" / "0.gif")
        fresh = options | dict(run_dir=str(tmp_path / "other"))
        with pytest.raises(ValueError, match=f"{weights}: no such file"):
            train("moving-motion", **fresh)
        assert not (tmp_path / "other").exists()
    finally:
        moved.rename(weights)
    assert again.report["test"] == film_run.report["test"]
    assert before == after


def test_a_damaged_file_is_told_in_one_line(options, tmp_path, capsys):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(b"\x00" * 100)
    line = [f"--data={options['data']}", f"--model.encoder.weights={path}"]
    line += ["--model.encoder=resnet18", "--model.cell=lstm", "--data.size=None"]
    line += [f"--data.frames={T}", "--batch-size=4", f"--run-dir={tmp_path / 'run'}"]
    assert main(["moving-motion", *line]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}: not a readable .safetensors file")
    assert len(said.splitlines()) == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name, change, said",
    [
        (
            "moving-motion",
            dict(model__encoder__weights="x"),
            "an option of model.encoder=resnet18 or resnet34 or resnet50, not of none",
        ),
        (
            "moving-motion",
            dict(model__encoder__weights="x", model__encoder="cnn"),
            "model.encoder=resnet18 or resnet34 or resnet50, not of cnn",
        ),
        (
            "moving-digits",
            dict(model__encoder="resnet18"),
            "an option of model=classifier or sequencer, not of encoder_forecaster",
        ),
        (
            "moving-motion",
            dict(model__encoder="resnet18", model__cell="conv_lstm"),
            "outputs a vector for each frame, .* use --model.cell=lstm",
        ),
    ],
)
def test_an_encoder_that_does_not_go(name, change, said):
    with pytest.raises(UsageError, match=said):
        config = check(override(preset(name), change))
        order_of(config.model, (T, SIDE, SIDE, 1))


@pytest.fixture(scope="module")
def stills(tmp_path_factory):
    """Grey images of two classes, in splits."""
    path, rng = tmp_path_factory.mktemp("stills"), np.random.default_rng(0)
    for split, count in (("train", 4), ("validation", 1), ("test", 2)):
        for name, ground in (("dark", 0), ("light", 128)):
            for number in range(count):
                image = rng.integers(ground, ground + 99, (SIDE, SIDE), np.uint8)
                file = path / split / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(file)
    return path


@pytest.mark.slow
def test_still_images_go_through_a_frozen_resnet(stills, weights, tmp_path):
    options = dict(
        data=stills,
        data__size=None,
        model__encoder="resnet18",
        model__encoder__weights=str(weights),
        model__features=4,
        optimizer__freeze="encoder",
        batch_size=4,
        steps=2,
        eval_every=1,
        run_dir=str(tmp_path / "run"),
    )
    run = train("photos", **options)
    # An average of equal numbers may differ from them in the last bits.
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7),
        run.params["encoder"],
        load_resnet(weights, 18),
    )
    experiment = Experiment(run.config, dataset=load_data(run.config))
    images = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 1), np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = ((images / 255 - mean) / std).astype(np.float32)
    want = experiment.network.module.apply({"params": run.params}, pixels)
    got = experiment.outputs(run.params, images)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_resnet_without_pooling_is_a_map_whose_mean_is_the_vector():
    images = np.random.default_rng(0).standard_normal((1, 40, 33, 3), np.float32)
    vector, maps = resnet.ResNet(18), resnet.ResNet(18, pool=False)
    shapes = jax.eval_shape(vector.init_with_output, jax.random.key(0), images)
    assert shapes[0].shape == (1, 512)
    shape = jax.eval_shape(maps.init_with_output, jax.random.key(0), images)[0].shape
    assert shape == (1, 2, 2, 512)


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(model__encoder="cnn"), "outputs a vector"),
        (dict(model__cell="conv_lstm"), "is for clips"),
        (dict(data="features.csv"), "needs images"),
    ],
)
def test_a_sequencer_says_what_it_needs(change, said):
    config = override(preset("photos"), change)
    shape = [9, 5] if "data" in change else [16, 16, 1]
    facts = DataSpec("x", ["a", "b"], shape, 2, [0.0], [1.0])
    with pytest.raises(UsageError, match=said):
        assert Experiment(config, facts).network
