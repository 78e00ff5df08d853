"""Diagnosis of a run's logged metrics."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Diagnostic(NamedTuple):
    """A detected problem.

    Attributes:
      name: kind of problem, such as "vanishing_gradients".
      number: its severity, in a unit that `words` states.
      words: description in one line.
      suggestion: flags of `python -m experiments.train` to try, most promising first.
    """

    name: str
    number: float
    words: str
    suggestion: str


# Curves with fewer points are too short to evaluate.
LEAST_ROWS = 6
# Validation losses vary by a few per cent between evaluations.
OVERFITTING = 1.1
# 2 % in a quarter of a run: at that rate the loss would need 9 more runs to halve.
FLAT = 0.02
# Still 10 % in the last quarter: the run ended before the loss converged.
FALLING = 0.1
# A loss below half of its first value has improved; that it then stays constant is how
# good runs end.
LEARNED = 0.5
# 1.5 times the initial loss: worse than no training.
DIVERGED = 1.5
# A logged loss is a mean over many steps; batch noise changes it by a few per cent of
# the first loss.
SWING = 0.1
# Ten times the neighbouring rows, and the initial norm.
SPIKE = 10.0


def read_history(rows: Sequence[dict[str, Any]]) -> list[Diagnostic]:
    """Diagnoses problems from a run's metrics.

    Args:
      rows: {"step", "split": "train" | "validation", "loss", ...}; training rows may
        contain "gradient_norm". None counts as NaN.

    Returns:
      Problems, most severe first. Only curves of at least `LEAST_ROWS` points are
      evaluated, but a NaN loss is always reported.
    """
    steps, losses = _column(rows, "train", "loss")
    if not len(losses):
        return []
    diverged = _diverged(steps, losses)
    if diverged:
        return [diverged]
    found = [_spikes(*_column(rows, "train", "gradient_norm"))]
    if len(losses) >= LEAST_ROWS:
        found.append(
            _oscillating(losses) or _standing(steps, losses) or _falling(losses)
        )
    found.append(_overfitting(steps, losses, *_column(rows, "validation", "loss")))
    return [diagnostic for diagnostic in found if diagnostic]


def logged_updates(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The largest relative update of each matrix in a run.

    Args:
      rows: of the run's metrics; training rows have "update_ratio/layer_0/w_h" and so
        on.

    Returns:
      `{"layer_0/w_h": ratio}`, the maximum over the rows, because growing weights and
      falling learning rates make late ratios small.
    """
    start = "update_ratio/"
    names = dict.fromkeys(k for row in rows for k in row if k.startswith(start))
    found = {}
    for name in names:
        values = _column(rows, "train", name)[1]
        if np.isfinite(values).any():
            found[name.removeprefix(start)] = float(np.nanmax(values))
    return found


def _column(rows, split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values, sorted by step."""
    pairs = [
        (row["step"], np.nan if row[name] is None else float(row[name]))
        for row in rows
        if row.get("split") == split and name in row
    ]
    pairs.sort(key=lambda pair: pair[0])
    return np.array([s for s, _ in pairs], float), np.array([v for _, v in pairs])


def _diverged(steps, losses) -> Diagnostic | None:
    suggestion = "a tenth of --optimizer.learning-rate, --optimizer.clip=1"
    broken = ~np.isfinite(losses)
    if broken.any():
        step = int(steps[broken][0])
        words = f"the training loss is NaN or infinite at step {step:,}"
        return Diagnostic("divergence", np.inf, words, suggestion)
    if len(losses) < LEAST_ROWS:
        return None
    end = float(np.median(losses[-3:]))
    if losses[0] <= 0 or end <= DIVERGED * losses[0]:
        return None
    words = f"the training loss rose from {losses[0]:.3g} to {end:.3g}"
    return Diagnostic("divergence", end / losses[0], words, suggestion)


def _spikes(steps, norms) -> Diagnostic | None:
    known = np.isfinite(norms)
    suggestion = "--optimizer.clip=1, a smaller --optimizer.learning-rate"
    if not known.all():
        step = int(steps[~known][0])
        words = f"the gradient norm is NaN or infinite at step {step:,}"
        return Diagnostic("gradient_spikes", np.inf, words, suggestion)
    if len(norms) < LEAST_ROWS:
        return None
    start = np.median(norms[:3])
    around = np.array([_around(norms, k) for k in range(len(norms))])
    usual = np.maximum(np.maximum(around, start), np.finfo(np.float32).tiny)
    most = int((norms / usual).argmax())
    number = float(norms[most] / usual[most])
    if number <= SPIKE:
        return None
    words = (
        f"the gradient norm jumps to {norms[most]:.2g} at step {int(steps[most]):,}, "
        f"{number:.0f} times its usual value"
    )
    return Diagnostic("gradient_spikes", number, words, suggestion)


def _around(values, k: int) -> float:
    """Median of up to five neighbours on each side."""
    return float(np.median(np.r_[values[max(k - 5, 0) : k], values[k + 1 : k + 6]]))


def _quarters(losses) -> tuple[float, float]:
    """Medians of the third and the last quarter."""
    half = losses[len(losses) // 2 :]
    middle = len(half) // 2
    return float(np.median(half[:middle])), float(np.median(half[middle:]))


def _oscillating(losses) -> Diagnostic | None:
    if losses[0] <= 0:
        return None
    half = losses[len(losses) // 2 :]
    swing = float(np.median(np.abs(np.diff(half))) / losses[0])
    if swing <= SWING:
        return None
    words = f"the training loss oscillates by {100 * swing:.0f} % of its first value"
    suggestion = "a third of --optimizer.learning-rate, or a larger --batch-size"
    return Diagnostic("oscillation", swing, words, suggestion)


def _standing(steps, losses) -> Diagnostic | None:
    third, last = _quarters(losses)
    if third <= 0 or abs(third - last) > FLAT * third or last <= LEARNED * losses[0]:
        return None
    words = (
        f"the training loss has been constant at {last:.3g} since step "
        f"{int(steps[len(steps) // 2]):,}; it started at {losses[0]:.3g}"
    )
    suggestion = (
        "three times --optimizer.learning-rate, then --optimizer.schedule=one_cycle "
        "or more --model.features"
    )
    return Diagnostic("plateau", last / losses[0], words, suggestion)


def _falling(losses) -> Diagnostic | None:
    third, last = _quarters(losses)
    if last >= (1 - FALLING) * third or last <= LEARNED * losses[0]:
        return None
    words = (
        "the training loss was still falling at the end, by "
        f"{100 * (1 - last / third):.0f} % in "
        "the last quarter: the run is too short, or the learning rate too low"
    )
    suggestion = "more --steps, or three times --optimizer.learning-rate"
    return Diagnostic("unfinished", 1 - last / third, words, suggestion)


def _overfitting(steps, losses, val_steps, val_losses) -> Diagnostic | None:
    known = np.isfinite(val_losses)
    val_steps, val_losses = val_steps[known], val_losses[known]
    if len(val_losses) < LEAST_ROWS:
        return None
    calm = np.array(
        [np.median(val_losses[max(k - 1, 0) : k + 2]) for k in range(len(val_losses))]
    )
    best = int(calm.argmin())
    end = float(np.median(val_losses[-3:]))
    then, now = np.interp([val_steps[best], val_steps[-1]], steps, losses)
    if calm[best] <= 0 or end <= OVERFITTING * calm[best] or now >= then:
        return None
    number = end / float(calm[best])
    words = (
        f"the validation loss rose from {calm[best]:.3g} at step "
        f"{int(val_steps[best]):,} to {end:.3g}, while the training loss fell from "
        f"{then:.3g} to {now:.3g}"
    )
    suggestion = (
        "--early-stopping-patience=5, --model.dropout=0.3, --augment.translate=1 for "
        "images, --optimizer=adamw --optimizer.weight-decay=1e-2"
    )
    return Diagnostic("overfitting", number, words, suggestion)
