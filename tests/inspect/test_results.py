"""What a report's numbers say: made reports of which the truth is known."""

import copy

import numpy as np
import pytest

from lstm_jax.inspect import read_results
from lstm_jax.tasks import classification, multilabel

ACCURACY = {"name": "accuracy", "label": "accuracy", "mode": "max", "rate": True}
CER = {"name": "cer", "label": "character error rate", "mode": "min", "rate": True}
MAE = {"name": "mae", "label": "mean absolute error", "mode": "min", "rate": False}


def scored(targets, chosen, classes="abcdefghij"):
    """The test metrics of a classifier that chose these classes."""
    p = np.full((len(targets), len(classes)), 0.01)
    p[np.arange(len(targets)), chosen] = 1
    return classification(list(classes)).report(
        p / p.sum(-1, keepdims=True), np.asarray(targets)
    )


def baseline(mean, low, high, trivial=False, metric=ACCURACY, **scores):
    difference = dict(metric=metric["name"], label=metric["label"], mode=metric["mode"])
    difference |= dict(mean=mean, interval=[low, high])
    return scores | {"trivial": trivial, "difference": difference}


def report(
    test=None, *, train=0.96, value=0.95, metric=ACCURACY, baselines=None, **own
):
    """A healthy one, where nothing else is given."""
    if test is None:
        targets = np.arange(200) % 10
        test = scored(targets, np.where(np.arange(200) % 19 == 7, 0, targets))
    trivial = {"majority": baseline(0.85, 0.8, 0.9, True)}
    splits = {
        "train": {"examples": 200, metric["name"]: train},
        "test": {"examples": 200, metric["name"]: value},
        "validation": {
            "examples": 100,
            "fewest": {"name": "b", "examples": 9},
            "chooses": True,
        },
    }
    made = {"test": test, "metric": metric, "splits": splits}
    return made | {"baselines": trivial | (baselines or {})} | own


def names(report):
    return [diagnostic.name for diagnostic in read_results(report)]


def found(report):
    (diagnostic,) = read_results(report)
    return diagnostic


def test_a_healthy_report_says_nothing():
    assert names(report()) == []
    assert names({}) == [] and names({"test": {"examples": 0}}) == []


@pytest.mark.parametrize("share", [0.95, 125 / 150])
def test_the_majority_is_always_predicted(share):
    targets = np.where(np.arange(300) < 300 * share, 0, 1)
    made = report(
        scored(targets, np.zeros(300, int), "ab"),
        baselines={"majority": baseline(0.0, 0.0, 0.0, True)},
    )
    diagnostic = found(made)
    assert diagnostic.name == "one_class_predicted"
    assert "a is predicted for 100.0 % of the test examples" in diagnostic.words
    assert f"but only {100 * share:.1f} % are" in diagnostic.words
    assert "--task.class-weights=balanced" in diagnostic.suggestion


def test_an_accuracy_that_is_not_above_the_majoritys_share():
    """0.975 where the majority is 0.95: of 200 examples no difference for sure."""
    made = report(baselines={"majority": baseline(0.025, -0.005, 0.055, True)})
    diagnostic = found(made)
    assert diagnostic.name == "no_better_than_trivial"
    assert "baseline majority" in diagnostic.words
    assert "+0.025 (95 % interval -0.005 to +0.055)" in diagnostic.words


def test_a_class_that_is_never_found():
    targets = np.arange(200) % 10
    diagnostic = found(report(scored(targets, np.where(targets == 4, 0, targets))))
    assert diagnostic.name == "class_hardly_found" and diagnostic.number == 0
    assert diagnostic.words.startswith("e is hardly found: recall 0.0 % of 20 ")
    assert "--task.class-weights=balanced" in diagnostic.suggestion


def test_a_rare_class_that_is_half_found():
    """95:5, accuracy 0.975."""
    targets = np.repeat([0, 1], [190, 10])
    chosen = np.where(np.arange(200) < 195, 0, 1)
    made = scored(targets, chosen, "ab")
    assert made["accuracy"] == 0.975
    diagnostic = found(report(made))
    assert diagnostic.words.startswith("b is hardly found: recall 50.0 % of 10 ")


def test_a_rare_class_under_a_better_baseline():
    """Recall 0.55 of the rare class, and a support-vector machine that is better."""
    targets = np.repeat([0, 1], [180, 20])
    chosen = np.where(np.arange(200) < 189, 0, 1)
    made = scored(targets, chosen, "ab")
    assert made["per_class"][1]["recall"] == 0.55
    others = {"svc": baseline(-0.03, -0.05, -0.01)}
    found = {each.name: each for each in read_results(report(made, baselines=others))}
    assert found.keys() == {"class_hardly_found", "no_better_than_baseline"}
    assert "b is hardly found: recall 55.0 %" in found["class_hardly_found"].words


def test_a_label_that_is_never_found():
    rng = np.random.default_rng(0)
    truth = np.float32(rng.random((100, 3)) < 0.4)
    p = np.where(truth > 0, 0.9, 0.1)
    p[:, 1] = 0.2
    diagnostic = found(report(multilabel(["x", "y", "z"]).report(p, truth)))
    assert diagnostic.words.startswith("y is hardly found: recall 0.0 %")


def test_a_class_that_is_missed_by_chance_is_left_alone():
    """One of two examples, or all classes alike."""
    targets = np.r_[np.arange(180) % 9, 9, 9]
    assert names(report(scored(targets, np.r_[np.arange(180) % 9, 9, 0]))) == []
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 10, 500)
    chosen = np.where(rng.random(500) < 0.5, targets, rng.integers(0, 10, 500))
    assert names(report(scored(targets, chosen))) == []


def test_classes_that_the_test_split_does_not_have():
    targets = np.arange(200) % 8
    diagnostic = found(report(scored(targets, targets)))
    assert diagnostic.name == "class_untested"
    assert diagnostic.words.startswith("2 of 10 classes cannot be evaluated")
    assert "(i, j)" in diagnostic.words and "ROC AUC is undefined" in diagnostic.words
    one = scored(np.zeros(50, int), np.zeros(50, int), "ab")
    assert one["macro"]["roc_auc"] is None
    assert names(report(one)) == ["class_untested"]
    truth = np.float32([[0, 1, 1], [1, 1, np.nan], [0, 1, 0]])
    p = np.nan_to_num(truth, nan=0.5) * 0.8 + 0.1
    diagnostic = found(report(multilabel(["x", "y", "z"]).report(p, truth)))
    assert "1 of 3 classes" in diagnostic.words and "(y)" in diagnostic.words


@pytest.mark.parametrize(
    "difference, said",
    [
        ((-0.029, -0.05, -0.01), True),  # 80.9 % against the SVM's 83.8 %
        ((-0.002, -0.02, 0.02), True),
        ((0.0, -0.01, 0.01), True),
        ((0.01, -0.01, 0.03), False),
    ],
)
def test_a_baseline_that_is_as_good(difference, said):
    others = {"nearest_neighbour": baseline(0.1, 0.05, 0.15)}
    made = report(baselines=others | {"svc": baseline(*difference)})
    assert names(made) == ["no_better_than_baseline"] * said
    if said:
        assert "not better than the baseline svc: the difference in accuracy is" in (
            found(made).words
        )


def test_nothing_is_better_than_perfect():
    targets = np.arange(200) % 10
    made = report(
        scored(targets, targets), baselines={"svc": baseline(0.0, 0.0, 0.0)}, value=1.0
    )
    assert names(made) == []


def test_a_network_that_is_always_wrong_is_not_perfect():
    equal = {"svc": baseline(0.0, 0.0, 0.0)}
    targets = np.arange(200) % 10
    wrong = scored(targets, (targets + 1) % 10)
    assert wrong["accuracy"] == 0
    assert names(report(wrong, baselines=equal)) == ["no_better_than_baseline"]


def test_of_errors_the_lower_one_is_better():
    test = {"mae": 2.0, "examples": 200}
    own = dict(metric=MAE, train=1.9, value=2.0)

    def made(mean, low, high, trivial):
        trivial = baseline(mean, low, high, trivial, MAE, mae=10.0)
        return report(test, **own) | {"baselines": {"other": trivial}}

    assert names(made(-8.0, -9.0, -7.0, True)) == []
    assert names(made(-0.1, -0.3, 0.1, True)) == ["no_better_than_trivial"]
    assert names(made(-0.1, -0.3, 0.1, False)) == []
    assert names(made(0.1, -0.3, 0.5, False)) == ["no_better_than_baseline"]


@pytest.mark.parametrize(
    "metric, train, test, said",
    [
        (CER, 0.11, 0.23, True),  # 400 CAPTCHAs
        (CER, 0.01, 0.03, False),
        (CER, 0.30, 0.36, False),
        (CER, 0.20, 0.10, False),
        (ACCURACY, 1.0, 0.8, True),
        (ACCURACY, 0.98, 0.95, False),
        (ACCURACY, 0.8, 0.95, False),  # with dropout or augmentation, or by chance
        (MAE, 0.1, 2.0, True),  # of 10 by the mean
        (MAE, 0.1, 0.5, False),
    ],
)
def test_a_gap_between_training_and_test(metric, train, test, said):
    made = report({"examples": 200}, metric=metric, train=train, value=test)
    better = 0.5 if metric is ACCURACY else -8.0
    trivial = baseline(better, better, better, True, metric, mae=10.0)
    made["baselines"] = {"trivial": trivial}
    assert names(made) == ["generalization_gap"] * said
    if metric is CER and said:
        words = "error rate is 11.00 % on training examples and 23.00 % on the test set"
        assert words in found(made).words


def test_a_gap_of_a_few_examples_is_noise():
    made = report({"examples": 8}, train=1.0, value=0.75)
    assert names(made) == ["generalization_gap"]
    made["splits"]["test"]["examples"] = 8
    assert names(made) == []


@pytest.mark.parametrize(
    "change, said",
    [
        (
            {"examples": 6, "fewest": {"name": "b", "examples": 1}},
            "6 examples (1 of b)",
        ),
        ({"examples": 29, "fewest": None}, "29 examples"),
        ({"fewest": {"name": "b", "examples": 4}}, "100 examples (4 of b)"),
        ({"examples": 30, "fewest": {"name": "b", "examples": 5}}, None),
        ({"examples": 6, "chooses": False}, None),
    ],
)
def test_a_validation_split_that_is_too_small(change, said):
    made = report()
    made["splits"]["validation"] |= change
    if said is None:
        assert names(made) == []
        return
    assert f"too small to choose a checkpoint: {said}" in found(made).words
    with_interval = copy.deepcopy(made)
    with_interval["splits"]["validation"] |= dict(interval=[0.5, 1.0], monitor=ACCURACY)
    words = "the 95 % interval of its accuracy is 50.00 % to 100.00 %"
    assert words in found(with_interval).words


def test_what_was_forgotten():
    forgotten = dict(source="runs/lines", before=0.0076, after=0.0133)
    forgotten |= dict(interval=[0.004, 0.008], **CER)
    diagnostic = found(report(forgotten=forgotten))
    assert diagnostic.name == "forgotten"
    assert (
        "test set of runs/lines the character error rate went from 0.76 % to 1.33 %"
        in (diagnostic.words)
    )
    # not beyond chance, or better, or not measured
    for change in (dict(interval=[-0.001, 0.008]), dict(interval=[-0.01, -0.002])):
        assert names(report(forgotten=forgotten | change)) == []
    worse = dict(source="a", before=0.9, after=0.8, interval=[-0.15, -0.05])
    assert names(report(forgotten=worse | ACCURACY)) == ["forgotten"]
    assert names(report(forgotten={"skipped": "no data"})) == []


def test_the_gravest_comes_first():
    targets = np.repeat([0, 1], [190, 10])
    made = report(
        scored(targets, np.zeros(200, int), "ab"),
        train=1.0,
        value=0.8,
        baselines={
            "majority": baseline(0.0, 0.0, 0.0, True),
            "svc": baseline(-0.04, -0.06, -0.02),
        },
    )
    made["splits"]["validation"]["examples"] = 6
    assert names(made) == [
        "one_class_predicted",
        "no_better_than_baseline",
        "generalization_gap",
        "small_validation",
    ]
    for diagnostic in read_results(made):
        assert "--" in diagnostic.suggestion and "\n" not in diagnostic.words
