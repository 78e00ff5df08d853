"""The interface of a task; losses and metrics return masked (sum, count)."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from lstm_jax.metrics.bootstrap import Scores
from lstm_jax.metrics.checks import check_finite


class Task(NamedTuple):
    """Loss, metrics and predictions of a network's outputs, as pure functions.

    A batch is a dict with `targets` [B, ...] and `mask` [B], 0 for padding.
    `loss`, `metrics` and `predict` run inside a compiled step; the functions after
    `mode` run once, on NumPy arrays of a whole split of N examples.
    """

    name: str  # "classification" | "regression" | "forecasting" | "multilabel" | …
    outputs: int  # K, the width of the head
    loss: Callable  # (outputs [B, K], batch) -> (sum, count), minimized in training
    metrics: Callable  # (outputs [B, K], batch) -> {name: (sum, count)}, with "loss"
    predict: Callable  # (outputs [B, K]) -> probabilities or values [B, K]
    monitor: str  # the validation metric that selects the best step
    mode: str  # "max" | "min"
    report: Callable  # (predictions [N, K], targets) -> dict that JSON can hold
    figures: Callable  # (predictions [N, K], targets) -> {name: Figure}
    example_losses: Callable  # (predictions, targets) -> [N], high for bad predictions
    # (predictions, targets) -> Scores: (weights [R, N]) -> {metric: [R]}, where each
    # example counts `weight` times; nested metrics are named like "macro.f1"
    weighted_scores: Callable[..., Scores]


def masked(values, mask):
    """Sum and count of the values whose mask is not 0.

    Args:
      values: [B], one number per example.
      mask: [B], bool or float; fractions are weights.

    Returns:
      (sum, count), float32 scalars; the caller divides once. Values with mask 0, even
      NaN, have no effect.
    """
    weights = mask.astype(jnp.float32)
    values = values.astype(jnp.float32)
    return jnp.sum(jnp.where(weights != 0, values * weights, 0.0)), jnp.sum(weights)


def checked_names(task: str, what: str, names: Iterable, least: int) -> tuple[str, ...]:
    """Names of the outputs; raises ValueError if fewer than `least`, or repeated."""
    names = tuple(map(str, names))
    if len(names) < least:
        raise ValueError(
            f"{task}: got {len(names)} {what} {list(names)}, expected {least} or more"
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{task}: {what} appear twice: {twice[:5]}")
    return names


def checked_weights(task: str, class_weights, shape: tuple[int, ...]):
    """Class weights as float32 of a shape; None where there are none."""
    if not len(class_weights):
        return None
    weights = np.asarray(class_weights, np.float32)
    if weights.shape != shape or not (weights > 0).all():
        raise ValueError(
            f"{task}: class_weights have shape {weights.shape}, wanted positive "
            f"numbers of shape {shape}"
        )
    return weights


def check_mask(task: str, mask, targets) -> None:
    """Raises ValueError unless the mask is [B] for targets [B, ...]."""
    if mask.shape != targets.shape[:1]:
        raise ValueError(
            f"{task}: mask has shape {mask.shape}, expected {targets.shape[:1]}"
        )


def check_outputs(task: str, outputs, batch, *, width: int, targets_ndim: int):
    """Raises ValueError for shapes that would broadcast into a wrong loss."""
    targets, mask = batch["targets"], batch["mask"]
    wanted = (outputs.shape[0], width)[:targets_ndim]
    if outputs.shape[1:] != (width,):
        raise ValueError(
            f"{task}: outputs have shape {outputs.shape}, expected [B, {width}]; "
            f"give the head {width} outputs"
        )
    if targets.shape != wanted or mask.shape != wanted[:1]:
        raise ValueError(
            f"{task}: targets {targets.shape} and mask {mask.shape} do not fit outputs "
            f"{outputs.shape}; expected targets {wanted} and mask {wanted[:1]}"
        )


def check_predictions(task: str, predictions, targets, *, width: int):
    """Predictions [N, K] as float64, and targets; raises ValueError if they differ."""
    predictions = np.asarray(predictions, np.float64)
    targets = np.asarray(targets)
    if predictions.shape != (len(targets), width) or not len(targets):
        raise ValueError(
            f"{task}: predictions have shape {predictions.shape} for {len(targets)} "
            f"targets; expected [N, {width}] with N >= 1, the same for both"
        )
    check_finite(task, np.isfinite(predictions).all(-1))
    return predictions, targets
