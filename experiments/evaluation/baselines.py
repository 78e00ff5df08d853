"""Baselines without a neural network, evaluated on the same test split.

Each takes seconds: a baseline is fitted to at most `LEARNT` examples, and evaluated on
at most `TESTED`.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.choices import flat
from experiments.evaluation.features import vectors
from lstm_jax import metrics
from lstm_jax.data import Dataset, Split

LEARNT = 3_000  # fitting a support-vector machine to n examples takes O(n²) or more
TESTED = 2_000


class Made(NamedTuple):
    """Predictions of a baseline.

    Attributes:
      predictions: in the format of the task's predictions, [n, ...].
      rows: indices of the test examples that they are for, int [n].
      learnt: the number of examples that the baseline was fitted to.
    """

    predictions: np.ndarray
    rows: np.ndarray
    learnt: int


class Baseline(NamedTuple):
    """A way to make predictions without a network.

    Attributes:
      make: takes a data set and returns `Made`; None if it cannot be fitted to it.
      trivial: whether its predictions ignore the inputs.
    """

    make: Callable[[Dataset], Made | None]
    trivial: bool


class Fitted(NamedTuple):
    """A baseline, fitted to the data of a run.

    Attributes:
      made: its predictions.
      trivial: as of `Baseline`.
      seconds: that it took.
    """

    made: Made
    trivial: bool
    seconds: float


def fit(experiment: Any) -> dict[str, Fitted]:
    """Fits the baselines of a run's task, by name.

    They depend only on the data, so all seeds of a run share them. Baselines that use
    the inputs are only fitted with `--baselines`.
    """
    found = {}
    for name, baseline in experiment.kind.baselines(experiment.config).items():
        if not (baseline.trivial or experiment.config.baselines):
            continue
        start = time.perf_counter()
        made = baseline.make(experiment.dataset)
        if made is not None:
            seconds = round(time.perf_counter() - start, 3)
            found[name] = Fitted(made, baseline.trivial, seconds)
    return found


def compare(
    experiment: Any, fitted: Mapping[str, Fitted], predictions: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Evaluates baselines, and compares a run with them.

    Args:
      experiment: the run.
      fitted: from `fit`.
      predictions: the run's predictions for the test examples.

    Returns:
      A dict for each baseline, by name: metrics as in the test report; "trivial";
      "learnt" and "examples", the numbers of examples that it was fitted to and
      evaluated on; "seconds"; and "difference", the "mean" and 95 % "interval" of the
      run's "metric" minus that of the baseline, on the same examples.
    """
    kind = experiment.kind
    labels = {name: (label, mode) for name, label, mode in kind.metrics}
    test, found = experiment.dataset.splits["test"], {}
    for name, (made, trivial, seconds) in fitted.items():
        part = _part(test, made.rows)
        theirs = kind.align_targets(part, made.predictions)
        ours = kind.align_targets(part, predictions[made.rows])
        if not len(theirs[1]):
            continue
        names = kind.baseline_metrics
        report = flat(experiment.task.report(*theirs)) if names else {}
        scores: dict[str, Any] = {}
        for metric in names:
            group, _, last = metric.rpartition(".")
            place = scores.setdefault(group, {}) if group else scores
            place[last] = report.get(metric)
        difference = metrics.paired_difference(
            kind.example_scores(*ours), kind.example_scores(*theirs)
        )
        found[name] = scores | {
            "trivial": trivial,
            "learnt": made.learnt,
            "examples": len(theirs[1]),
            "seconds": seconds,
            "difference": {
                "metric": kind.score,
                "label": labels[kind.score][0],
                "mode": labels[kind.score][1],
                "mean": difference[0],
                "interval": list(difference[1:]),
            },
        }
    return found


def majority(dataset: Dataset) -> Made | None:
    """Always predicts the most frequent class of the training examples."""
    targets = dataset.splits["train"].targets
    counts = np.bincount(targets[targets >= 0], minlength=len(dataset.classes))
    if not counts.sum():
        return None
    return _always(dataset, np.float32(counts / counts.sum()))


def mean_target(dataset: Dataset) -> Made:
    """Always predicts the mean of the training targets; for labels, their frequency."""
    targets = dataset.splits["train"].targets
    flat_targets = targets.reshape(-1, targets.shape[-1]).astype(np.float64)
    known = ~np.isnan(flat_targets)
    total = np.where(known, flat_targets, 0).sum(0)
    mean = np.float32(total / np.maximum(known.sum(0), 1))
    shape = dataset.splits["test"].targets.shape[1:]
    return _always(dataset, np.broadcast_to(mean, shape))


def most_frequent_pixel(dataset: Dataset) -> Made:
    """Predicts the most frequent class of the training pixels for every pixel."""
    masks = dataset.splits["train"].targets
    counts = np.bincount(masks[:LEARNT].ravel(), minlength=256)
    most = counts[: len(dataset.classes)].argmax()
    shape = dataset.splits["test"].targets.shape[1:]
    return _always(dataset, np.full(shape, most, np.uint8))


def nearest_neighbour(dataset: Dataset) -> Made | None:
    """Predicts the target of the most similar training or validation example."""
    from sklearn.neighbors import NearestNeighbors

    learnt, rows = _learnt(dataset), _tested(dataset)
    model = NearestNeighbors(n_neighbors=1).fit(vectors(learnt.inputs))
    seen = vectors(dataset.splits["test"].inputs[rows])
    nearest = model.kneighbors(seen, return_distance=False)[:, 0]
    return Made(_as_predictions(dataset, learnt.targets[nearest]), rows, len(learnt[0]))


def support_vector_machine(dataset: Dataset) -> Made | None:
    """Predictions of a support-vector machine with a Gaussian kernel."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler
    from sklearn.svm import SVC

    learnt, rows = _learnt(dataset), _tested(dataset)
    if len(np.unique(learnt.targets)) < 2:
        return None
    model = make_pipeline(MinMaxScaler(), SVC(C=10.0))
    model.fit(vectors(learnt.inputs), learnt.targets)
    chosen = model.predict(vectors(dataset.splits["test"].inputs[rows]))
    return Made(_as_predictions(dataset, chosen), rows, len(learnt[0]))


def last_frame(horizon: int) -> Callable[[Dataset], Made]:
    """Predicts `horizon` copies of the last input frame."""

    def make(dataset: Dataset) -> Made:
        rows = _tested(dataset, 200)
        clips = dataset.splits["test"].inputs[rows]
        frames = clips[:, -horizon - 1 : -horizon].astype(np.float32) / 255
        shape = (len(clips), horizon, *clips.shape[2:])
        return Made(np.broadcast_to(frames, shape), rows, 0)

    return make


def _always(dataset: Dataset, prediction: np.ndarray) -> Made:
    count = len(dataset.splits["test"].inputs)
    predictions = np.broadcast_to(prediction, (count, *prediction.shape))
    return Made(predictions, np.arange(count), len(dataset.splits["train"].inputs))


def _as_predictions(dataset: Dataset, targets: np.ndarray) -> np.ndarray:
    """Targets as predictions with probability 1; 0.5 for unknown labels."""
    if targets.ndim == 1:
        return np.eye(len(dataset.classes), dtype=np.float32)[targets]
    return np.where(np.isnan(targets), np.float32(0.5), targets)


def _learnt(dataset: Dataset) -> Split:
    """Examples that a baseline is fitted to, from the training and validation splits.

    A baseline needs no validation split, so that it has a little more data to learn
    from than the network.
    """
    splits = [dataset.splits[name] for name in ("train", "validation")]
    count = sum(len(split.inputs) for split in splits)
    rows = np.sort(np.random.default_rng(0).permutation(count)[:LEARNT])
    first = len(splits[0].inputs)
    own = rows[rows < first], rows[rows >= first] - first
    parts = [_part(split, some) for split, some in zip(splits, own, strict=True)]
    known = [
        part
        if part.targets.ndim > 1
        else _part(part, np.flatnonzero(part.targets >= 0))
        for part in parts
    ]
    inputs = np.concatenate([part.inputs for part in known])
    return Split(inputs, np.concatenate([part.targets for part in known]))


def _tested(dataset: Dataset, most: int = TESTED) -> np.ndarray:
    count = len(dataset.splits["test"].inputs)
    return np.sort(np.random.default_rng(1).permutation(count)[:most])


def _part(split: Split, rows: np.ndarray) -> Split:
    return Split(*(None if array is None else array[rows] for array in split))
