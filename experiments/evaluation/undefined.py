"""Messages about metrics that are undefined on a test split."""

from typing import Any

_NAMED = 5  # classes or labels that a message names


def undefined_auc(test: dict[str, Any]) -> str | None:
    """Explains why the ROC AUC of some classes or labels is missing.

    Args:
      test: metrics of a test split, as a task's `report` returns them.

    Returns:
      One sentence; None if no ROC AUC is missing.
    """
    rows = test.get("per_class") or test.get("per_label") or ()
    rows = [row for row in rows if "roc_auc" in row]
    lacking = [row["name"] for row in rows if row["roc_auc"] is None]
    if not lacking:
        return None
    exclusive = "confusion_matrix" in test  # one class of several
    there = [row["name"] for row in rows if exclusive and row["support"]]
    if len(there) == 1:
        return (
            f"ROC AUC is undefined: all {test['examples']:,} test examples are of one "
            f"class, {there[0]!r}; it needs examples of at least two classes."
        )
    named = ", ".join(map(repr, lacking[:_NAMED]))
    named += f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
    why = (
        "the test split has no examples of them"
        if exclusive
        else "all known values in the test split are equal"
    )
    mean = "" if len(lacking) == len(rows) else "; the macro average leaves them out"
    return f"ROC AUC is undefined for {named}: {why}{mean}."
