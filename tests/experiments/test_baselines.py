"""What is reached without the network, and how much better a run is."""

import numpy as np
import pytest

from experiments.config import check, override, preset
from experiments.evaluation import baselines, features
from experiments.experiment import Experiment
from lstm_jax import data


def experiment(dataset, name="digits", **options):
    base = dict(steps=20, batch_size=4, baselines=True)
    config = check(override(preset(name), base | options))
    return Experiment(config, dataset=dataset)


def fit(made, predictions):
    return baselines.compare(made, baselines.fit(made), predictions)


def split(inputs, targets):
    return data.Split(np.asarray(inputs), np.asarray(targets))


def bars(rng, targets):
    """Images of noise with a row that tells the class."""
    pixels = rng.integers(0, 60, (len(targets), 8, 8, 1)).astype(np.uint8)
    pixels[np.arange(len(targets)), 2 * np.asarray(targets)] += 150
    return split(pixels, np.int32(targets))


@pytest.fixture
def classes():
    rng = np.random.default_rng(0)
    sizes = {"train": (60, 20), "validation": (15, 5), "test": (30, 10)}
    splits = {k: bars(rng, np.repeat([0, 1], n)) for k, n in sizes.items()}
    return data.Dataset("made", splits, ("a", "b"), ())


def test_a_classification_has_three(classes):
    made, test = experiment(classes), classes.splits["test"]
    wrong = np.eye(2)[1 - test.targets]  # the network is always wrong
    found = fit(made, wrong)
    assert list(found) == ["majority", "nearest_neighbour", "svc"]
    majority = found["majority"]
    assert majority["accuracy"] == 0.75 and majority["balanced_accuracy"] == 0.5
    assert majority["macro"]["f1"] == pytest.approx(0.5 * 2 * 30 / 70)
    assert majority["trivial"] and not found["svc"]["trivial"]
    for name in ("nearest_neighbour", "svc"):
        assert found[name]["accuracy"] == found[name]["balanced_accuracy"] == 1
        assert (found[name]["learnt"], found[name]["examples"]) == (100, 40)
        assert found[name]["difference"]["mean"] == -1
        assert found[name]["difference"]["interval"] == [-1, -1]
    low, high = majority["difference"]["interval"]
    assert low < majority["difference"]["mean"] == -0.75 < high
    # without --baselines only what costs nothing
    assert list(fit(experiment(classes, baselines=False), wrong)) == ["majority"]


def test_examples_are_bounded_and_unknown_ones_left_out(classes, monkeypatch):
    monkeypatch.setattr(baselines, "LEARNT", 50)
    targets = classes.splits["test"].targets.copy()
    targets[:5] = -1
    test = classes.splits["test"]._replace(targets=targets)
    dataset = classes._replace(splits={**classes.splits, "test": test})
    found = fit(experiment(dataset), np.full((40, 2), 0.5))
    assert [each["examples"] for each in found.values()] == [35, 35, 35]
    assert [each["learnt"] for each in found.values()] == [80, 50, 50]


def test_a_regression_has_the_mean_and_the_nearest_neighbour():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (30, 4, 4, 1)).astype(np.uint8)
    values = pixels[:, 0, 0].astype(np.float32)
    part = split(pixels, values)
    splits = dict.fromkeys(("train", "validation", "test"), part)
    dataset = data.Dataset("made", splits, (), ())
    found = fit(experiment(dataset, "digits-angle"), values)
    mean = np.abs(values - values.mean()).mean()
    assert found["mean"]["mae"] == pytest.approx(mean, rel=1e-6)
    assert found["mean"]["r2"] == pytest.approx(0, abs=1e-6)
    assert found["mean"]["difference"]["mean"] == pytest.approx(-mean, rel=1e-6)
    assert found["nearest_neighbour"]["mae"] == 0  # the test is in training too
    assert found["nearest_neighbour"]["difference"]["interval"] == [0, 0]


def test_labels_have_their_shares_and_the_nearest_neighbour():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(20, 3, 5)).astype(np.float32)
    targets = np.zeros((20, 3, 2), np.float32)
    targets[:15, :, 0] = targets[:5, 1, 1] = 1
    targets[0, 0] = np.nan
    part = split(inputs, targets)
    dataset = data.Dataset(
        "made", dict.fromkeys(("train", "validation", "test"), part), ("x", "y"), ()
    )
    found = fit(experiment(dataset, "features"), np.zeros(targets.shape))
    shares = found["share of each label"]
    # of 118 known entries 44 of x and 5 of y are yes: always x, never y
    assert shares["accuracy"] == pytest.approx((44 + 54) / 118)
    assert found["nearest_neighbour"]["accuracy"] == 1


def test_a_forecast_has_the_last_frame():
    rng = np.random.default_rng(0)
    clips = rng.integers(0, 255, (6, 5, 16, 16, 1)).astype(np.uint8)
    part = split(clips, np.full(6, -1, np.int32))
    splits = dict.fromkeys(("train", "validation", "test"), part)
    made = experiment(
        data.Dataset("made", splits, (), ()), "moving-digits", task__horizon=2
    )
    perfect = clips[:, -2:].astype(np.float32) / 255
    found = fit(made, perfect)["copy last frame"]
    report = made.task.report(perfect, clips)
    copied = report["references"]["copy last frame"]["mse"]
    assert found["difference"]["mean"] == pytest.approx(-copied, rel=1e-5)


def test_pixels_have_the_most_frequent_class():
    masks = np.zeros((6, 16, 16), np.uint8)
    masks[:, :4] = 1
    masks[:, 4] = 255  # void
    part = split(np.zeros((6, 16, 16, 1), np.uint8), masks)
    dataset = data.Dataset(
        "made",
        dict.fromkeys(("train", "validation", "test"), part),
        ("background", "thing"),
        (),
        target_type="masks",
    )
    made = experiment(dataset, "segment-digits")
    found = fit(made, masks.clip(0, 1))["one class"]
    assert found["pixel_accuracy"] == pytest.approx(11 / 15)
    assert found["difference"]["mean"] == pytest.approx(4 / 15)


def test_vectors_are_bounded():
    rng = np.random.default_rng(0)

    def width(*shape, dtype=np.uint8):
        inputs = rng.integers(0, 255, (2, *shape)).astype(dtype)
        found = features.vectors(inputs)
        assert found.dtype == np.float32 and len(found) == 2
        return found.shape[1]

    assert width(8, 8, 1) == 64 and width(28, 28, 1) == 784
    assert width(90, 70, 3) == (45 // 8 - 1) * (35 // 8 - 1) * 36
    assert width(400, 300, 1) <= features.LARGEST
    assert width(10, 32, 32, 1) == 4 * 16 * 16
    assert width(2, 32, 32, 1) == 4 * 16 * 16
    assert width(200, 40, dtype=np.float32) == 16 * 40
    assert width(200, 2048, dtype=np.float32) == 2048
    # pixels as they are, where there are few
    inputs = rng.integers(0, 255, (2, 8, 8, 1)).astype(np.uint8)
    np.testing.assert_array_equal(features.vectors(inputs), inputs.reshape(2, -1))


def test_hog_equals_scikit_images():
    feature = pytest.importorskip("skimage.feature", reason="scikit-image is missing")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (3, 32, 40, 3)).astype(np.uint8)
    wanted = [
        feature.hog(image.astype(np.float64), channel_axis=-1, cells_per_block=(2, 2))
        for image in images
    ]
    # float32 against float64; a gradient on the border of two bins may change sides
    np.testing.assert_allclose(features.hog(images), wanted, atol=2e-3)


def test_hog_tells_the_direction_of_edges():
    across = np.zeros((1, 32, 32, 1), np.uint8)
    across[:, ::4] = across[:, 1::4] = 255
    down = across.swapaxes(1, 2)
    bins = [features.hog(x).reshape(-1, 9).sum(0).argmax() for x in (across, down)]
    assert bins == [4, 0]  # gradients of 90 and of 0 degrees, bins of 20
