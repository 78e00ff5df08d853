"""Problems of a network, each with a suggestion."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_jax.inspect.history import Diagnostic, read_history
from lstm_jax.inspect.measures import LayerMeasures, Measures

# Fresh networks that train well stay below 2e4 over 28 steps; of a gradient 1e5 times
# smaller than the last steps', nothing is left in a sum of float32 over all steps.
VANISHING = 1e5
# Gradients that add up, as under a mean over all steps, grow by less than T; 1e3 over a
# sequence is a product that grows, and clipping then leaves only the first steps.
EXPLODING = 1e3
# A long memory (chrono) holds i and f of an LSTM at their ends on purpose, which is two
# gates of three; past 0.8 nothing is left for a gradient to move.
SATURATED_SHARE = 0.8
# Under a tenth of a sequence decides: the rest might as well not be read.
SHORT = 0.1
# A tenth of fewer steps than these is less than one.
LEAST_STEPS = 10
# Nets of ReLUs live well with some dead units; a quarter is width paid for nothing.
DEAD_SHARE = 0.25
# About 1e-3 is usual, and a first step of Adam comes to 2e-2; from a tenth on, a few
# steps replace the weights, and below 1e-6 a run of 1e5 steps cannot.
LARGE_UPDATE, SMALL_UPDATE = 0.1, 1e-6
# Below it float32 is less exact, and soon 0.
TINY = float(np.finfo(np.float32).tiny)


class Flow(NamedTuple):
    """The norm of a layer's gradient, all parts of the carry together."""

    first: float  # the largest of the first tenth of the steps
    last: float  # of the last tenth


def diagnose(
    measures: Measures | None = None,
    *,
    rows: Sequence[dict[str, Any]] = (),
    updates: dict[str, float] | None = None,
) -> list[Diagnostic]:
    """What is wrong, the gravest first; an empty list says that nothing was found.

    A kind of diagnostic comes once, with the layer that has it worst. Whether a network
    predicts well is not asked: the thresholds are this file's constants.

    Args:
      measures: from `measure` or `measure_cell`.
      rows: of a run's metrics, as in metrics.jsonl.
      updates: from `logged_updates`.

    Returns:
      `Diagnostic(name, number, words, suggestion)`s. The suggestion names flags of
      `python -m experiments.train`.
    """
    found: list[Diagnostic | None] = []
    if measures is not None:
        layers = measures.layers
        found += [
            _gradients(layers),
            _saturated(layers),
            _dead(layers),
            _short(layers) if measures.last else None,
        ]
    if updates:
        found.append(_updates(updates))
    return [*filter(None, found), *read_history(rows)]


def flow(layer: LayerMeasures) -> Flow:
    """How much of the gradient there is at both ends of the sequence."""
    parts = np.stack(list(layer.gradients.values())).astype(np.float64)
    norms = np.sqrt(np.square(parts).sum(0))
    norms = norms[~np.isnan(norms)]
    if not len(norms):
        return Flow(0.0, 0.0)
    tenth = max(1, len(norms) // 10)
    return Flow(float(norms[:tenth].max()), float(norms[-tenth:].max()))


def _gradients(layers: Iterable[LayerMeasures]) -> Diagnostic | None:
    worst: Diagnostic | None = None
    for layer in layers:
        first, last = flow(layer)
        steps, where = len(layer.memory), _where(layer)
        if last / max(first, TINY) > VANISHING:
            number = last / max(first, TINY)
            least = "at least " if first < TINY else ""
            diagnostic = Diagnostic(
                "vanishing_gradients",
                number,
                f"gradients shrink {least}{_fold(number)} over {steps} steps {where}",
                _remember(layer),
            )
        elif not np.isfinite(first) or (last > 0 and first / last > EXPLODING):
            number = first / last if np.isfinite(first) else np.inf
            much = _fold(number) if np.isfinite(number) else "past float32"
            diagnostic = Diagnostic(
                "exploding_gradients",
                number,
                f"gradients grow {much} back over {steps} steps {where}",
                "--model.recurrent-init=orthogonal, a smaller "
                "--optimizer.learning-rate, --optimizer.clip=1",
            )
        else:
            continue
        if worst is None or diagnostic.number > worst.number:
            worst = diagnostic
    return worst


def _remember(layer: LayerMeasures) -> str:
    if "f" in layer.gates:
        return "--model.cell.forget-bias=chrono, or --model.pooling=mean"
    return "--model.cell=lstm --model.cell.forget-bias=chrono, or --model.pooling=mean"


def _saturated(layers: Iterable[LayerMeasures]) -> Diagnostic | None:
    shares = {
        layer.name: np.mean([np.nanmean(g.saturated) for g in layer.gates.values()])
        for layer in layers
        if layer.gates
    }
    name = max(shares, key=shares.get, default=None)
    if name is None or shares[name] <= SATURATED_SHARE:
        return None
    return Diagnostic(
        "saturated_gates",
        float(shares[name]),
        f"gates sit at 0 or 1 in {100 * shares[name]:.0f} % of all steps and units "
        f"({name})",
        "a smaller --optimizer.learning-rate, --optimizer.weight-decay=1e-4, "
        "--data.normalize=standard",
    )


def _dead(layers: Iterable[LayerMeasures]) -> Diagnostic | None:
    layer = max(layers, key=lambda layer: layer.still.mean())
    count, width = int(layer.still.sum()), layer.still.size
    if count <= DEAD_SHARE * width:
        return None
    suggestion = "a smaller --optimizer.learning-rate"
    if not layer.gates:
        suggestion = f"--model.cell.activation=leaky_relu, {suggestion}"
    return Diagnostic(
        "dead_units",
        count / width,
        f"{count} of {width} units never move over the batch ({layer.name})",
        suggestion,
    )


def _short(layers: Iterable[LayerMeasures]) -> Diagnostic | None:
    known = [x for x in layers if x.steps >= LEAST_STEPS and np.nansum(x.memory) > 0]
    layer = min(known, key=lambda x: x.memory_steps / x.steps, default=None)
    if layer is None or layer.memory_steps >= SHORT * layer.steps:
        return None
    return Diagnostic(
        "short_memory",
        layer.memory_steps,
        f"the last {layer.memory_steps:.3g} of {layer.steps:.4g} steps hold 90 % of "
        f"what the prediction hears of the input ({layer.name})",
        _remember(layer),
    )


def _updates(ratios: dict[str, float]) -> Diagnostic | None:
    name = max(ratios, key=ratios.get)
    if not ratios[name] <= LARGE_UPDATE:
        return Diagnostic(
            "large_updates",
            ratios[name],
            f"one step changes {name} by {ratios[name]:.2g} of its norm",
            "a smaller --optimizer.learning-rate, "
            "--optimizer.schedule.warmup-steps=200",
        )
    if ratios[name] < SMALL_UPDATE:
        return Diagnostic(
            "small_updates",
            ratios[name],
            f"no weights change by more than {ratios[name]:.1g} of their norm in a "
            f"step (most: {name})",
            "a larger --optimizer.learning-rate",
        )
    return None


def _fold(number: float) -> str:
    """ "4e10-fold"."""
    digit, power = f"{number:.0e}".split("e")
    return f"{digit}e{int(power)}-fold"


def _where(layer: LayerMeasures) -> str:
    return f"({layer.name}: {', '.join(layer.gradients)})"
