"""A metric that a test split cannot give is missing with a reason."""

import io

import numpy as np
import pytest

from experiments.evaluation.undefined import undefined_auc
from experiments.run.display import Display, summary_table
from experiments.tasks import TASKS
from lstm_jax import tasks


def classified(targets, classes=("cat", "dog", "eel")):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(len(classes)), len(targets)).astype(np.float32)
    return tasks.classification(classes).report(p, np.asarray(targets))


def test_one_class_in_the_test_split_is_said():
    report = classified([1] * 20)
    assert report["macro"]["roc_auc"] is None
    words = undefined_auc(report)
    assert words.startswith(
        "ROC AUC is undefined: all 20 test examples are of one class, 'dog'"
    )
    out = io.StringIO()
    with Display(out) as display:
        display.note(summary_table(report, TASKS["classification"].metrics))
    assert "ROC AUC is undefined" in out.getvalue()


def test_a_class_without_test_examples_is_named():
    words = undefined_auc(classified([0, 1] * 10))
    assert words == (
        "ROC AUC is undefined for 'eel': the test split has no examples of them; the "
        "macro average leaves them out."
    )
    many = [f"c{k}" for k in range(12)]
    words = undefined_auc(classified([0, 1] * 10, many))
    assert "'c6' and 5 more:" in words


@pytest.mark.parametrize("values, words", [([0, 0], "'a', 'b'"), ([0, 1], "'a'")])
def test_a_label_of_one_value(values, words):
    targets = np.stack([np.zeros(10), np.tile(values, 5)], 1).astype(np.float32)
    p = np.random.default_rng(0).random((10, 2)).astype(np.float32)
    found = undefined_auc(tasks.multilabel(["a", "b"]).report(p, targets))
    assert f"undefined for {words}: all known values in the test split" in found
    assert ("macro average" in found) == (values == [0, 1])


def test_where_all_is_defined_nothing_is_said():
    assert undefined_auc(classified([0, 1, 2] * 5)) is None
    assert undefined_auc({"examples": 3, "mae": 0.1}) is None
