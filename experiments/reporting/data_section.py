"""The section Data of a report: splits, copies across splits, and changes."""

from typing import Any

from experiments.reporting.evaluation import Evaluation
from experiments.reporting.page import Fold, Section, Table, Words, plural
from experiments.run.data_check import changes_of, earlier_changes
from lstm_jax.data.duplicates import ACROSS, Pair

LEAK = 0.01  # share of leaked examples in a split from which on it is a finding


def data_section(evaluation: Evaluation) -> Section:
    """Numbers of examples and copies by split, lists of copies, and data changes."""
    found = evaluation.experiment.duplicates
    blocks: list[Any] = []
    since = changes_of(evaluation.run, evaluation.experiment)
    if since:
        words = f"The data changed since the run was trained: {'; '.join(since)}."
        blocks.append(Words(words, "warning"))
    blocks += [Words(line, "warning") for line in earlier_changes(evaluation.run)]
    pairs = {"train": ("train", "train"), **{pair[0]: pair for pair in ACROSS}}
    rows = tuple(
        (
            name,
            f"{size:,}",
            *(f"{table[pairs[name]]:,}" for table in (found.identical, found.near)),
        )
        for name, size in found.sizes.items()
    )
    header = ("split", f"{found.noun}s", "copies", "near copies")
    words = (
        "Training: copies of other training examples. Validation: copies of training "
        "examples. Test: copies of training or validation examples."
    )
    blocks += [Table(header, rows), Words(words, "quiet")]
    lines, tone = found.lines(), "plain" if data_findings(evaluation) else "quiet"
    none = f"No {found.noun} is a copy of another"
    blocks += [Words(f"{line}.", tone) for line in lines or [none]]
    tables = (
        ("Copies in other splits", found.leaks, found.across),
        ("Copies with different labels", found.contradicting, found.contradictions),
    )
    for title, pairs, count in tables:
        if pairs:
            more = f", the first {len(pairs)}" if count > len(pairs) else ""
            name = f"{title}: {plural(count, 'pair')}{more}"
            blocks.append(Fold(name, (_listed(pairs),)))
    return Section("Data", tuple(blocks))


def data_findings(evaluation: Evaluation) -> list[tuple[str, str]]:
    """(problem, suggestion) pairs for the diagnosis; [] if the data has no problem.

    Problems are: 1 % or more of the test or validation split are copies of training
    examples; 1 % or more of all examples are in pairs of copies with different labels.
    """
    found = evaluation.experiment.duplicates
    if found.skipped and not any(found.identical.values()):
        return []
    rows = []
    for one, what in (("test", "test metrics"), ("validation", "validation metrics")):
        share = found.leaked(one)
        if share >= LEAK:
            rows.append(
                (
                    f"{100 * share:.0f} % of the {one} {found.noun}s are copies of "
                    "training "
                    f"{found.noun}s: the {what} are too good",
                    f"delete the copies, or give the {found.noun}s without splits: "
                    "copies then stay in one split",
                )
            )
    total = sum(found.sizes.values())
    if found.contradictions and found.contradictions >= LEAK / 2 * total:
        rows.append(
            (
                f"{plural(found.contradictions, 'pair')} of copies have different "
                "labels: at least one label of each pair is wrong",
                "correct the labels of the examples listed in the section Data",
            )
        )
    return rows


def _listed(pairs: tuple[Pair, ...]) -> Table:
    rows = tuple(
        (
            " ".join(pair.one[1:]),
            pair.one[0],
            " ".join(pair.other[1:]),
            pair.other[0],
            "yes" if pair.identical else "nearly",
        )
        for pair in pairs
    )
    return Table(("example", "split", "copy", "split", "identical"), rows, False)
