"""Diagnostics from the metrics in a run's report."""

import math
from collections.abc import Iterator
from typing import Any

from lstm_jax.inspect.history import Diagnostic

# Below these numbers of examples, in all or of one class, the choice of a checkpoint
# depends on one or two examples.
LEAST_EXAMPLES, LEAST_OF_A_CLASS = 30, 5
# A class is hardly found if its recall is below HARDLY_FOUND while the median recall of
# the others is HIGH or more, with a p-value below CHANCE (Bonferroni-corrected).
HARDLY_FOUND, HIGH, CHANCE = 0.6, 0.8, 0.01
# One class is predicted for this share of all examples, and this much more often than
# it occurs.
ALWAYS, MORE_OFTEN = 0.98, 0.01
# Generalization gap of a metric between 0 and 1, or relative to a trivial baseline's
# error; an error must also be TIMES as high on the test set as on training examples.
LARGE_GAP, LARGE_GAP_OF_ERRORS, TIMES = 0.1, 0.05, 1.5

MORE_DATA = (
    "more training examples, augmentation (--augment.…), --optimizer.weight-decay=1e-2"
)
WEIGHTS = "--task.class-weights=balanced"


def read_results(report: dict[str, Any]) -> list[Diagnostic]:
    """Finds problems in the results of a run.

    Args:
      report: the run's report. These entries are used, if present: "test", with
        "per_class" or "per_label" and "confusion_matrix"; "metric", {"name", "label",
        "mode", "rate"}, with "rate" true for metrics between 0 and 1; "splits",
        {"train" | "validation" | "test": {"examples", metric: …}}, where "validation"
        also has "chooses", "fewest" {"name", "examples"}, "monitor" (as "metric") and
        its "interval"; "baselines"; "forgotten".

    Returns:
      Diagnostics, the most serious ones first.
    """
    test, found = report.get("test", {}), []
    always = _always(test)
    found += always or _as_good(report, trivial=True)
    found += _as_good(report, trivial=False)
    found += [] if always else _hardly_found(test)
    found += _untested(test)
    found += _gap(report)
    found += _forgotten(report.get("forgotten"))
    found += _too_small(report.get("splits", {}).get("validation", {}))
    return found


def _always(test: dict[str, Any]) -> list[Diagnostic]:
    """Finds a class that is predicted for nearly all examples."""
    matrix, classes = test.get("confusion_matrix"), test.get("classes")
    if not matrix or not classes or "accuracy" not in test:
        return []
    total = sum(map(sum, matrix))
    told = [sum(column) for column in zip(*matrix, strict=True)]
    most = max(range(len(told)), key=told.__getitem__)
    said, true = told[most] / total, sum(matrix[most]) / total
    if said < ALWAYS or said < true + MORE_OFTEN:
        return []
    words = (
        f"{classes[most]} is predicted for {100 * said:.1f} % of the test examples, "
        f"but only {100 * true:.1f} % are: an accuracy of "
        f"{100 * test['accuracy']:.1f} % says little"
    )
    suggestion = f"{WEIGHTS}, or --task.sampler=balanced; more --steps"
    return [Diagnostic("one_class_predicted", said, words, suggestion)]


def _as_good(report: dict[str, Any], *, trivial: bool) -> list[Diagnostic]:
    """Finds the best baseline that the network does not beat.

    For a trivial baseline, the 95 % interval of the difference must exclude zero; for
    one that uses the inputs, any improvement suffices.
    """
    worst, test = None, report.get("test", {})
    for name, baseline in report.get("baselines", {}).items():
        if baseline.get("trivial") != trivial or "difference" not in baseline:
            continue
        difference = baseline["difference"]
        sign = -1 if difference["mode"] == "min" else 1
        better = sign * difference["mean"]
        least = min(sign * end for end in difference["interval"])
        perfect = _value(test, difference["metric"]) == (0.0 if sign < 0 else 1.0)
        beaten = least > 0 if trivial else better > 0 or (better == 0 and perfect)
        if not beaten and (worst is None or better < worst[0]):
            worst = better, name.replace("_", " "), difference
    if worst is None:
        return []
    better, name, difference = worst
    low, high = difference["interval"]
    words = (
        f"the network is not better than the baseline {name}: the difference in "
        f"{difference['label']} is {difference['mean']:+.3g} (95 % interval "
        f"{low:+.3g} to {high:+.3g})"
    )
    suggestion = "another --optimizer.learning-rate, more --steps"
    if trivial:
        return [Diagnostic("no_better_than_trivial", -better, words, suggestion)]
    suggestion += f", more --model.features; {MORE_DATA}"
    return [Diagnostic("no_better_than_baseline", -better, words, suggestion)]


def _hardly_found(test: dict[str, Any]) -> list[Diagnostic]:
    """Finds the class or label with the lowest recall, if most others' are high."""
    rows = test.get("per_class") or test.get("per_label") or []
    rows = [row for row in rows if row.get("support") and row.get("recall") is not None]
    found = []
    for row in rows:
        others = sorted(other["recall"] for other in rows if other is not row)
        usual = others[len(others) // 2] if others else 0.0
        if usual < HIGH or row["recall"] >= HARDLY_FOUND:
            continue
        hits = round(row["recall"] * row["support"])
        if _at_most(hits, row["support"], usual) < CHANCE / len(rows):
            found.append((row["recall"], row, usual))
    if not found:
        return []
    recall, row, usual = min(found, key=lambda each: each[0])
    more = f", and {len(found) - 1} more like it" if len(found) > 1 else ""
    words = (
        f"{row['name']} is hardly found: recall {100 * recall:.1f} % of "
        f"{row['support']:,} test examples, where the others' median is "
        f"{100 * usual:.1f} %{more}"
    )
    suggestion = f"{WEIGHTS}, --task.loss=focal; more examples of it"
    return [Diagnostic("class_hardly_found", recall, words, suggestion)]


def _untested(test: dict[str, Any]) -> list[Diagnostic]:
    """Finds classes or labels for which no or all test examples are positive."""
    rows = test.get("per_class") or test.get("per_label") or []
    names = [
        row["name"]
        for row in rows
        if row.get("support") in (0, row.get("known", test.get("examples")))
    ]
    if not names:
        return []
    more = ", …" if len(names) > 3 else ""
    words = (
        f"{len(names)} of {len(rows)} classes cannot be evaluated, because none or all "
        f"of the test examples belong to them ({', '.join(names[:3])}{more}): their "
        "ROC AUC is undefined, and means are over the other classes"
    )
    suggestion = "another --data.split-seed, or more test examples"
    return [Diagnostic("class_untested", len(names), words, suggestion)]


def _at_most(hits: int, count: int, share: float) -> float:
    """P(X <= hits), X ~ Binomial(count, share); `share` is clipped to 0.01..0.99."""
    share = min(max(share, 0.01), 0.99)
    log = math.lgamma

    def probability(k: int) -> float:
        ways = log(count + 1) - log(k + 1) - log(count - k + 1)
        return math.exp(ways + k * math.log(share) + (count - k) * math.log1p(-share))

    return sum(map(probability, range(hits + 1)))


def _gap(report: dict[str, Any]) -> list[Diagnostic]:
    """Finds a test metric that is much worse than that of training examples."""
    metric, splits = report.get("metric"), report.get("splits", {})
    if not metric or not {"train", "test"} <= splits.keys():
        return []
    train, test = (splits[name].get(metric["name"]) for name in ("train", "test"))
    if train is None or test is None:
        return []
    lower, scale = metric["mode"] == "min", 1.0
    if not metric["rate"]:
        trivial = [
            value
            for baseline in _trivial(report)
            if (value := _value(baseline, metric["name"]))
        ]
        if not trivial:
            return []
        scale = min(trivial)
    gap = (test - train if lower else train - test) / scale
    noise = 2 * math.sqrt(max(test * (1 - test), 0) / splits["test"]["examples"])
    large = LARGE_GAP_OF_ERRORS if lower and metric["rate"] else LARGE_GAP
    if gap < large or (lower and test < TIMES * train):
        return []
    if metric["rate"] and not lower and gap < noise:
        return []
    words = (
        f"the {metric['label']} is {_number(train, metric)} on training examples and "
        f"{_number(test, metric)} on the test set: the network generalizes poorly"
    )
    return [Diagnostic("generalization_gap", gap, words, MORE_DATA)]


def _trivial(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from report.get("test", {}).get("references", {}).values()
    for baseline in report.get("baselines", {}).values():
        if baseline.get("trivial"):
            yield baseline


def _forgotten(forgotten: dict[str, Any] | None) -> list[Diagnostic]:
    """Finds forgetting: a worse metric on the test set of the `--init-from` run."""
    if not forgotten or "after" not in forgotten:
        return []
    sign = 1 if forgotten["mode"] == "min" else -1
    if min(sign * end for end in forgotten["interval"]) <= 0:
        return []
    words = (
        f"on the test set of {forgotten['source']} the {forgotten['label']} went from "
        f"{_number(forgotten['before'], forgotten)} to "
        f"{_number(forgotten['after'], forgotten)}: fine-tuning has forgotten part of "
        "it"
    )
    suggestion = (
        "a tenth of --optimizer.learning-rate, fewer --steps, "
        "--optimizer.lr-multipliers=head=10, or train on both data sets"
    )
    number = abs(forgotten["after"] - forgotten["before"])
    return [Diagnostic("forgotten", number, words, suggestion)]


def _too_small(validation: dict[str, Any]) -> list[Diagnostic]:
    """Finds a validation split that is too small to choose a checkpoint."""
    if not validation.get("chooses") or not is_small(validation):
        return []
    count, fewest = validation["examples"], validation.get("fewest")
    of_class = f" ({fewest['examples']} of {fewest['name']})" if fewest else ""
    words = (
        f"the validation split is too small to choose a checkpoint: {count:,} "
        f"example{'' if count == 1 else 's'}{of_class}"
    )
    if interval := validation.get("interval"):
        monitor = validation["monitor"]
        low, high = (_number(end, monitor) for end in interval)
        words += f"; the 95 % interval of its {monitor['label']} is {low} to {high}"
    suggestion = "a larger --data.validation, or --test-checkpoint=last, or --folds=5"
    return [Diagnostic("small_validation", count, words, suggestion)]


def is_small(validation: dict[str, Any]) -> bool:
    """Whether a validation split is too small to choose a checkpoint.

    Args:
      validation: as in the "splits" of `read_results`.
    """
    fewest = validation.get("fewest")
    few = fewest is not None and fewest["examples"] < LEAST_OF_A_CLASS
    return few or validation["examples"] < LEAST_EXAMPLES


def _number(value: float, monitor: dict[str, Any]) -> str:
    return f"{100 * value:.2f} %" if monitor["rate"] else f"{value:.4g}"


def _value(scores: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        scores = scores.get(part) if isinstance(scores, dict) else None
    return scores
