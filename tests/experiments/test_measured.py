"""What is measured of a trained network besides its test: without a network."""

import json

import numpy as np
import pytest

from experiments.config import check, override, preset
from experiments.evaluation.measured import measure
from experiments.experiment import Experiment
from experiments.run.display import summary_table
from experiments.tasks import TASKS
from lstm_jax import data
from lstm_jax.inspect import read_results


def dataset(make, sizes=(200, 60, 100), classes=("a", "b")):
    rng = np.random.default_rng(0)
    names = ("train", "validation", "test")
    splits = {n: make(rng, count) for n, count in zip(names, sizes, strict=True)}
    return data.Dataset("made", splits, classes, ())


def classes(rng, count):
    targets = np.arange(count) % 2
    return data.Split(np.zeros((count, 8, 8, 1), np.uint8), targets.astype(np.int32))


def labels(rng, count):
    targets = np.float32(rng.random((count, 2)) < 0.5)
    return data.Split(rng.normal(size=(count, 3, 4)).astype(np.float32), targets)


class Evaluated:
    """An evaluation that is told what to predict, and counts what it is asked."""

    def __init__(self, predict, **means):
        self.predict, self.means, self.sizes = predict, means, []

    def __call__(self, params, split):
        self.sizes.append(len(split.inputs))
        return self.means, self.predict(split)


def certain(split):
    return np.eye(2, dtype=np.float32)[split.targets] * 0.98 + 0.01


def experiment(made, name="digits", **options):
    config = override(preset(name), dict(test_checkpoint="best") | options)
    return Experiment(check(config), dataset=made)


def test_the_test_and_as_many_training_examples_are_measured():
    evaluate = Evaluated(certain, accuracy=0.75, loss=float("inf"))
    predictions, facts = measure(experiment(dataset(classes)), evaluate, None)
    assert evaluate.sizes == [100, 100]  # of validation nothing is asked
    assert list(predictions) == ["test"] and len(predictions["test"]) == 100
    assert facts["splits"]["train"] == {"examples": 100, "accuracy": 0.75}
    assert facts["splits"]["test"] == {"examples": 100, "accuracy": 0.75}
    assert facts["splits"]["validation"] == {
        "examples": 60,
        "fewest": {"name": "a", "examples": 30},
        "chooses": True,
    }
    assert facts["metric"] == {
        "name": "accuracy",
        "label": "accuracy",
        "mode": "max",
        "rate": True,
    }
    assert facts["tuned"] == {}
    json.dumps(facts, allow_nan=False)


@pytest.mark.parametrize(
    "options, chooses",
    [
        ({}, True),
        ({"test_checkpoint": "last"}, False),
        ({"test_checkpoint": "last", "early_stopping_patience": 3}, True),
        ({"test_checkpoint": "last", "optimizer.schedule": "plateau"}, True),
    ],
)
def test_a_small_validation_split_gets_an_interval_where_it_chooses(options, chooses):
    def half(split):
        p = certain(split)
        p[::4] = p[::4, ::-1]  # every fourth is wrong
        return p

    evaluate = Evaluated(half, accuracy=0.75)
    made = experiment(dataset(classes, (200, 8, 100)), **options)
    facts = measure(made, evaluate, None)[1]
    found = facts["splits"]["validation"]
    assert found["chooses"] == chooses and (8 in evaluate.sizes) == chooses
    assert [each.name for each in read_results(facts)] == ["small_validation"] * chooses
    if chooses:
        low, high = found["interval"]
        assert 0.25 <= low < 0.75 < high <= 1
        assert found["monitor"] == facts["metric"]


def test_a_run_that_is_told_to_stop_measures_nothing():
    made = experiment(dataset(classes, (200, 8, 100)))
    predictions, facts = measure(made, lambda *_: (None, None), None)
    assert predictions == {"test": None}
    assert facts["splits"]["test"] == {"examples": 100}


def test_thresholds_are_of_validation_and_used_on_the_test():
    from experiments.run.finish import make_report
    from lstm_jax.training import TrainState

    def cautious(split):  # never above 0.4, but in the right order
        return np.where(split.targets > 0, 0.4, [0.3, 0.1]).astype(np.float32)

    made = experiment(dataset(labels), "features")
    evaluate = Evaluated(cautious, accuracy=0.5, loss=0.6)
    predictions, facts = measure(made, evaluate, None)
    assert evaluate.sizes == [100, 100, 60]
    np.testing.assert_allclose(facts["tuned"]["thresholds"], [0.35, 0.25])
    state = TrainState(np.int32(5), {"w": np.zeros(3)}, (), None)
    report = make_report(made, state, predictions, 5, [], facts)
    assert report["test"]["macro"]["f1"] == 0  # at 0.5
    assert report["test"]["macro"]["tuned_f1"] == 1
    rows = report["test"]["per_label"]
    assert [row["tuned_f1"] for row in rows] == [1, 1]
    assert [row["threshold"] for row in rows] == facts["tuned"]["thresholds"]
    table = summary_table(report["test"], TASKS["multilabel"].metrics)
    shown = [str(cell) for cell in table.columns[0].cells]
    assert "F1, macro, thresholds of validation" in shown
    json.dumps(report["diagnosis"], allow_nan=False)


CAPTCHAS = 400  # of five characters


def captchas(rng, count):
    targets = rng.integers(1, 11, (count, 5)).astype(np.int32)
    pixels = np.zeros((count, 32, 40, 1), np.uint8)
    return data.Split(pixels, targets, np.full(count, 40, np.int32))


@pytest.mark.parametrize("test_rate, said", [(0.23, True), (0.12, False)])
def test_captchas_that_are_learned_by_heart(test_rate, said):
    """A character error rate of 11 % on training lines, and of 23 % on test lines."""
    from experiments.run.finish import make_report
    from lstm_jax.training import TrainState

    rng, letters = np.random.default_rng(0), tuple("abcdefghij")
    sizes = CAPTCHAS, 50, 100
    made = dataset(captchas, sizes, letters)._replace(target_type="text")
    run = experiment(made, "text-lines")
    tested = made.splits["test"].targets

    def evaluate(params, split):
        rate = test_rate if split.targets is tested else 0.11
        wrong = rng.permutation(split.targets.size) < round(rate * split.targets.size)
        labels = split.targets % 10 + 1  # another character
        labels = np.where(wrong.reshape(labels.shape), labels, split.targets)
        predictions = np.zeros((*labels.shape, 4), np.float32)
        predictions[..., 0], predictions[..., 1] = labels, 0.9
        cer = run.task.report(predictions, split.targets)["cer"]
        return {"cer": cer}, predictions

    predictions, facts = measure(run, evaluate, None)
    assert facts["splits"]["train"]["cer"] == pytest.approx(0.11)
    state = TrainState(np.int32(5), {"w": np.zeros(3)}, (), None)
    report = make_report(run, state, predictions, 5, [], facts)
    assert report["test"]["cer"] == pytest.approx(test_rate)
    found = [
        each for each in report["diagnosis"] if each["name"] == "generalization_gap"
    ]
    assert len(found) == said
    if said:
        words = "is 11.00 % on training examples and 23.00 % on the test set"
        assert words in found[0]["words"] and "--augment" in found[0]["suggestion"]
