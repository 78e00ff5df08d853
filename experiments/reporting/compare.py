"""The comparison of several runs: a table, overlaid curves, tests between pairs."""

import hashlib
import itertools
from typing import Any

import numpy as np

from experiments.choices import flat, to_dict
from experiments.numbers import number
from experiments.reporting.evaluation import Evaluation
from experiments.reporting.page import (
    Picture,
    Section,
    Table,
    Words,
    between,
    plural,
    value,
)
from lstm_jax import figures, metrics

# Options that are left out of the differences.
_PLACE = {"run_dir", "overwrite"}


def comparison(runs: list[Evaluation]):
    """`(title, lead, sections, numbers)` of several runs."""
    names = _names(runs)
    pairs = [
        _pair(names[i], runs[i], names[j], runs[j])
        for i, j in itertools.combinations(range(len(runs)), 2)
    ]
    lead = (Words(", ".join(names), "quiet"),)
    sections = [
        _table(names, runs),
        _curves(names, runs),
        _pairs(pairs),
        _differences(names, runs),
    ]
    numbers = {
        "runs": {
            name: {
                "test": run.test,
                "intervals": {k: list(v) for k, v in run.intervals.items()},
                "parameters": run.model["parameters"],
                "step": run.step,
            }
            for name, run in zip(names, runs, strict=True)
        },
        "pairs": pairs,
    }
    title = f"Comparison of {plural(len(runs), 'run')}"
    return title, lead, sections, numbers


def _names(runs) -> list[str]:
    names = [run.run.resolve().name for run in runs]
    if len(set(names)) == len(names):
        return names
    return [str(run.run) for run in runs]


def _table(names, runs) -> Section:
    labels: dict[str, str] = {}
    for run in runs:
        labels |= {name: label for name, label, _ in run.kind.metrics}
    gap = " " if len(runs) < 3 else "\n"  # a page shows a space for both

    def metric(run, key):
        found, ends = value(run.test, key), run.intervals.get(key)
        ends = f"{gap}({between(ends, key)})" if ends else ""
        return number(found, key) + ends

    rows = [
        (label, *(metric(run, key) for run in runs))
        for key, label in labels.items()
        if any(value(run.test, key) is not None for run in runs)
    ]
    facts = {
        "test examples": lambda run: number(run.test["examples"]),
        "parameters": lambda run: number(run.model["parameters"]),
        "FLOPs per example, forward": lambda run: number(run.model["flops"].total),
        "step tested": lambda run: f"{run.step:,}",
        "steps": _steps,
        "examples/s in training": _rate,
    }
    rows += [(label, *map(fact, runs)) for label, fact in facts.items()]
    words = (
        f"In brackets: 95 % percentile bootstrap over test examples, "
        f"{metrics.RESAMPLES:,} resamples, seed 0."
    )
    return Section(
        "Test metrics", (Table(("", *names), tuple(rows)), Words(words, "quiet"))
    )


def _steps(run: Evaluation) -> str:
    if run.finished:
        return f"{value(run.finished, 'train.steps'):,}"
    return f"{run.last_step:,} of {run.experiment.steps:,}, stopped"


def _rate(run: Evaluation) -> str:
    rate = value(run.finished or {}, "train.images_per_second")
    return "–" if rate is None else f"{rate:,.0f}"


def _curves(names, runs) -> Section:
    shown = dict.fromkeys([*(run.task.monitor for run in runs), "loss"])
    histories = {name: run.rows for name, run in zip(names, runs, strict=True)}
    figure = figures.overlay(histories, tuple(shown))
    return Section("Curves", (Picture(figure, "Validation against steps."),))


def fingerprint(run) -> str:
    """A hash of the test examples and their targets, in order."""
    test, found = run.dataset.splits["test"], hashlib.sha256()
    for array in (test.inputs[run.shown], run.known[1]):
        found.update(f"{array.shape}{array.dtype}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _pair(first: str, a, second: str, b) -> dict[str, Any]:
    """The difference of losses and McNemar's test, or why they are left out."""
    row: dict[str, Any] = {"first": first, "second": second}
    if a.kind is not b.kind or fingerprint(a) != fingerprint(b):
        examples = (f"{run.test['examples']:,} of {run.spec.dataset}" for run in (a, b))
        return row | {
            "left_out": f"{first} and {second} were not tested on the same examples "
            f"({' and '.join(examples)}), so they cannot be compared"
        }
    if not a.has_targets:
        return row | {"left_out": f"{first} and {second} have no known targets"}
    both = ~np.isnan(a.losses) & ~np.isnan(b.losses)
    difference = metrics.paired_difference(a.losses[both], b.losses[both])
    row |= {"difference": difference[0], "interval": list(difference[1:])}
    if a.kind.answers_right_or_wrong:
        right = [run.known[0].argmax(-1) == run.known[1] for run in (a, b)]
        row |= metrics.mcnemar(*right)._asdict()
    return row


def _pairs(pairs) -> Section:
    left_out = [Words(row["left_out"] + ".") for row in pairs if "left_out" in row]
    tested = [row for row in pairs if "left_out" not in row]
    compared = [row for row in tested if "p" in row]
    blocks: list[Any] = []
    if tested:
        header = ("pair", "difference of mean loss", "95 % interval")
        rows = [
            (_name(row), number(row["difference"]), between(row["interval"]))
            for row in tested
        ]
        words = (
            "Loss of the first run minus loss of the second on the same examples, with "
            "a bootstrap interval; if it does not contain 0, one run is better."
        )
        blocks += [Table(header, tuple(rows)), Words(words, "quiet")]
    if compared:
        test, first, second = "McNemar's test", "correct: only first", "only second"
        header = (test, first, second, "statistic", "p")
        words = (
            "p: probability of counts at least as different if both runs have the same "
            "error rate. With fewer than 25 examples that only one run classifies "
            "correctly: exact two-sided binomial test; else chi² = (|b - c| - 1)² / "
            "(b + c), one degree of freedom (McNemar 1947, Edwards 1948). There is no "
            "correction for multiple comparisons."
        )
        blocks += [Table(header, tuple(map(_mcnemar, compared))), Words(words, "quiet")]
    elif tested:
        words = "McNemar's test applies to classification only."
        blocks.append(Words(words, "quiet"))
    return Section("Pairs", (*blocks, *left_out))


def _name(pair: dict[str, Any]) -> str:
    return f"{pair['first']} – {pair['second']}"


def _mcnemar(pair: dict[str, Any]) -> tuple[str, ...]:
    chi = pair["statistic"]
    statistic = "exact" if chi is None else f"chi² = {chi:.3f}"
    counts = number(pair["first_only"]), number(pair["second_only"])
    return _name(pair), *counts, statistic, f"{pair['p']:.3g}"


def _differences(names, runs) -> Section:
    options = [flat(to_dict(run.config)) for run in runs]
    values = {
        key: [str(each.get(key, "")) for each in options]
        for key in dict.fromkeys(key for each in options for key in each)
    }
    rows = tuple(
        (key, *each)
        for key, each in values.items()
        if key not in _PLACE and len(set(each)) > 1
    )
    if not rows:
        words = "The configurations are the same."
        return Section("What differs", (Words(words),))
    return Section("What differs", (Table(("option", *names), rows, False),))
