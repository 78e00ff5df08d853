"""Regression of K real numbers: squared or Huber error, metrics in target units."""

import jax.numpy as jnp
import numpy as np
import optax

from lstm_jax.figures.style import BLUE, INK, ORANGE, figure, legend_below, safe, tidy
from lstm_jax.metrics.bootstrap import Scores, mean_known, weighted_means
from lstm_jax.tasks.task import Task, check_outputs, check_predictions, masked

PANELS = 4  # number of outputs per figure, side by side


def regression(
    outputs: int = 1,
    *,
    loss: str = "mse",
    unit: str = "",
    offset=0.0,
    scale=1.0,
) -> Task:
    """Regression; the network predicts standardized targets z = (y - offset) / scale.

    mse: e^2.  huber: e^2 / 2 for |e| <= 1, else |e| - 1 / 2,
    with e = output - z; the loss is the mean over K, without a unit. All metrics
    ("mae", the report, the figures) are in the unit of the target.

    Args:
      outputs: K.
      loss: "mse" | "huber".
      unit: the unit of the target, for labels, such as "degrees".
      offset: usually the mean of the targets; a number or [K].
      scale: usually their standard deviation; positive, a number or [K].

    Returns:
      A Task; targets are float [B, K], predictions are target values [B, K].

    Raises:
      ValueError: an unknown loss, or a number out of range.

    Reference: Huber 1964, Robust Estimation of a Location Parameter.
    """
    if outputs < 1:
        raise ValueError(f"regression: outputs={outputs}, expected 1 or more")
    if loss not in ("mse", "huber"):
        raise ValueError(f'regression: loss="{loss}", expected "mse" or "huber"')
    width = outputs
    offset = _per_output("offset", offset, width)
    scale = _per_output("scale", scale, width)
    if (scale <= 0).any():
        raise ValueError(
            f"regression: scale={scale.tolist()}, expected positive numbers; a target "
            "that never changes has no scale: use 1"
        )

    def error(values, z):  # [B, K]
        if loss == "mse":
            return optax.squared_error(values, z)
        return optax.huber_loss(values, z)

    def check(values, batch):
        check_outputs("regression", values, batch, width=width, targets_ndim=2)
        return values.astype(jnp.float32), batch["targets"].astype(jnp.float32)

    def loss_of(values, batch):
        values, targets = check(values, batch)
        z = (targets - offset) / scale
        return masked(jnp.mean(error(values, z), -1), batch["mask"])

    def metrics(values, batch):
        values, targets = check(values, batch)
        mae = jnp.mean(jnp.abs(predict(values) - targets), -1)
        return {"loss": loss_of(values, batch), "mae": masked(mae, batch["mask"])}

    def predict(values):
        return values.astype(jnp.float32) * scale + offset

    def report(predictions, targets):
        from scipy.special import huber

        predictions, targets = _check(predictions, targets, width)
        e = (predictions - targets) / scale
        value = np.mean(e**2 if loss == "mse" else huber(1.0, e))
        return _report(predictions, targets, float(value), unit)

    def figures(predictions, targets):
        predictions, targets = _check(predictions, targets, width)
        return {
            "predictions": _predictions_figure(predictions, targets, unit),
            "residuals": _residuals_figure(predictions, targets, unit),
        }

    return Task(
        name="regression",
        outputs=width,
        loss=loss_of,
        metrics=metrics,
        predict=predict,
        monitor="mae",
        mode="min",
        report=report,
        figures=figures,
        example_losses=_example_losses,
        weighted_scores=_weighted_scores,
    )


def _per_output(name, value, width):
    """A number or [K] as float32 [K]."""
    array = np.asarray(value, np.float32)
    if array.shape not in ((), (width,)) or not np.isfinite(array).all():
        raise ValueError(
            f"regression: {name} has shape {array.shape}, expected one finite number "
            f"or [{width}] of them"
        )
    return np.broadcast_to(array, (width,))


def _check(predictions, targets, width):
    """Predictions and targets [N, K] as float64; raises ValueError if invalid."""
    predictions, targets = check_predictions(
        "regression", predictions, targets, width=width
    )
    if targets.shape != predictions.shape or not np.isfinite(targets).all():
        raise ValueError(
            f"regression: targets have shape {targets.shape}, expected finite numbers "
            f"of shape {predictions.shape}"
        )
    return predictions, targets.astype(np.float64)


def _report(predictions, targets, loss, unit):
    """Errors in the unit of the target, over all outputs and for each."""
    return {
        "task": "regression",
        "examples": len(targets),
        "unit": unit,
        "loss": loss,
        **_errors(predictions, targets),
        "per_output": [
            _errors(p, t) for p, t in zip(predictions.T, targets.T, strict=True)
        ],
    }


def _errors(predictions, targets):
    """Errors of one output [N], or of K outputs [N, K].

    R^2 is the mean over outputs with varying targets; None if there is none.
    """
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    changes = np.atleast_1d(np.ptp(targets, axis=0) > 0)
    columns = (x.reshape(len(x), -1)[:, changes] for x in (targets, predictions))
    known = map(np.ascontiguousarray, columns)  # the same order of summation
    return {
        "mae": float(mean_absolute_error(targets, predictions)),
        "rmse": float(np.sqrt(mean_squared_error(targets, predictions))),
        "r2": float(r2_score(*known)) if changes.any() else None,
        "bias": float(np.mean(predictions - targets)),
    }


def _example_losses(predictions, targets):
    """Mean absolute error of each example."""
    return np.abs(np.float64(predictions) - targets).mean(-1)


def _weighted_scores(predictions, targets) -> Scores:
    targets = np.float64(targets)
    errors = np.float64(predictions) - targets
    centred = targets - targets.mean(0)
    columns = {"mae": np.abs(errors).mean(-1), "bias": errors.mean(-1)}

    def scores(weights):
        result = weighted_means(columns, weights)
        count = weights.sum(-1, keepdims=True)
        squares = weights @ errors**2  # [R, K]
        result["rmse"] = np.sqrt((squares / count).mean(-1))
        spread = weights @ centred**2 - (weights @ centred) ** 2 / count
        changes = spread > 1e-12 * np.maximum(weights @ centred**2, 1e-300)
        r2 = np.where(changes, 1 - squares / np.where(changes, spread, 1), np.nan)
        result["r2"] = mean_known(r2.T)
        return result

    return scores


def _with_unit(text, unit):
    return f"{text} ({safe(unit, 24)})" if unit else text


def _number(value, unit):
    return f"{value:.3g} {safe(unit, 24)}".rstrip()


def _panel_title(errors, k, width, unit):
    name = f"output {k}: " if width > 1 else ""
    r2 = "" if errors["r2"] is None else f", R² {errors['r2']:.3f}"
    return f"{name}MAE {_number(errors['mae'], unit)}{r2}"


def _predictions_figure(predictions, targets, unit):
    """Predicted against true values, with the diagonal."""
    width = predictions.shape[1]
    shown = min(width, PANELS)
    fig = figure(0.8 + 4.9 * shown, 5.8)
    title = "Predicted against true"
    fig.suptitle(title if shown == width else f"{title}: the first {shown} of {width}")
    alpha = float(np.clip(60 / np.sqrt(len(targets)) / 4, 0.12, 0.8))
    for k in range(shown):
        ax = fig.add_subplot(1, shown, k + 1)
        tidy(ax)
        true, predicted = targets[:, k], predictions[:, k]
        low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
        pad = 0.04 * (high - low) or 1.0
        span = (low - pad, high + pad)
        ax.plot(span, span, color=INK, linewidth=1.2, label="predicted = true")
        ax.scatter(true, predicted, s=14, color=BLUE, alpha=alpha, linewidths=0)
        ax.set(xlim=span, ylim=span, aspect="equal")
        ax.set_xlabel(_with_unit("true", unit))
        ax.set_ylabel(_with_unit("predicted", unit))
        errors = _errors(predicted, true)
        ax.set_title(_panel_title(errors, k, width, unit), fontsize=10)
        legend_below(ax)
    return fig


def _residuals_figure(predictions, targets, unit):
    """Residuals against the true value, and their histogram."""
    width = predictions.shape[1]
    shown = min(width, PANELS)
    fig = figure(8.6, 1.0 + 3.4 * shown)
    title = "Residuals: predicted minus true"
    fig.suptitle(title if shown == width else f"{title}, the first {shown} of {width}")
    grid = fig.add_gridspec(shown, 2, width_ratios=(2.2, 1))
    alpha = float(np.clip(60 / np.sqrt(len(targets)) / 4, 0.12, 0.8))
    for k in range(shown):
        true, errors = targets[:, k], predictions[:, k] - targets[:, k]
        left = fig.add_subplot(grid[k, 0])
        right = fig.add_subplot(grid[k, 1], sharey=left)
        bias = float(errors.mean())
        reach = 1.08 * np.abs(errors).max() or 1.0
        for ax in (left, right):
            tidy(ax)
            ax.axhline(0, color=INK, linewidth=1.2)
        left.scatter(true, errors, s=14, color=BLUE, alpha=alpha, linewidths=0)
        left.axhline(
            bias,
            color=ORANGE,
            linewidth=1.6,
            linestyle=(0, (5, 2)),
            label=f"mean {_number(bias, unit)}",
        )
        left.set_ylim(-reach, reach)
        left.set_xlabel(_with_unit("true", unit))
        name = f"output {k}: residual" if width > 1 else "residual"
        left.set_ylabel(_with_unit(name, unit))
        legend_below(left)
        bins = int(np.clip(np.sqrt(len(errors)), 8, 41))
        right.hist(
            errors,
            bins=np.linspace(-reach, reach, bins + 1),
            orientation="horizontal",
            color=BLUE,
            alpha=0.75,
            edgecolor="white",
            linewidth=0.6,
        )
        right.axhline(bias, color=ORANGE, linewidth=1.6, linestyle=(0, (5, 2)))
        right.set_xlabel("examples")
        right.tick_params(labelleft=False)
        rmse = float(np.sqrt(np.mean(errors**2)))
        right.set_title(f"RMSE {_number(rmse, unit)}", fontsize=10)
    return fig
