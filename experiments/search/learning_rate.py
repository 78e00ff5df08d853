"""A learning rate from one short run: `python -m experiments.sweep PRESET --lr-find`.

The learning-rate range test (Smith 2017, "Cyclical learning rates for training neural
networks", section 3.3, there with a linear ramp): the rate rises with every step, and
the training loss says from where on it teaches, and from where on it destroys.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

from experiments.choices import to_dict
from experiments.config import Config, check, override, preset
from experiments.errors import UsageError
from experiments.run.folder import place_of

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 200
# Of the exponential mean: a memory of ten steps, a third of a decade.
_MEMORY = 0.9
# The loss has left for good when its mean is so many times its lowest.
_LOST = 4.0
# The least fall of the loss, as a share, that is more than noise.
_FALL = 0.05


class Suggestion(NamedTuple):
    """What a range test says.

    `rate` is a tenth of `lowest`, the rate at which the smoothed loss is lowest, where
    the next few already destroy; `steepest` is that of its fastest fall, for
    comparison. All three are None if the loss does not fall.
    """

    rate: float | None
    lowest: float | None
    steepest: float | None


class RangeTest(NamedTuple):
    """A range test: `rates`, `losses` and `smoothed` of each step until it diverged."""

    directory: Path
    suggestion: Suggestion
    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    figure: Any


def lr_find(name: str = "digits", **options: Any) -> RangeTest:
    """Makes a range test with a preset; arguments as of `train`."""
    return find(name, check(override(preset(name), options)))


def find(name: str, config: Config) -> RangeTest:
    """Makes a range test, prints and draws what it says, keeps no weights.

    Raises:
      UsageError: a schedule of many processes, or a folder that holds something else.
      training.Diverged: the loss is not finite from the first steps on.
    """
    from experiments.run import record
    from lstm_jax import training

    if config.distributed:
        raise UsageError("a range test is one process's; leave --distributed out")
    directory = place_of(name, config, "runs/lr_find")
    losses = _losses(config, directory)
    if len(losses) < 10:
        raise training.Diverged(
            f"the loss left within {len(losses)} steps, at learning rates below "
            f"{_rate(len(losses)):.1g}: it is not the rate that is wrong"
        )
    rates = [_rate(at) for at in range(len(losses))]
    smoothed = smooth(losses)
    found = suggest(rates, smoothed)
    figure = _draw(rates, losses, smoothed, found)
    record.write_json(
        directory / "lr_find.json",
        {
            "preset": name,
            "config": to_dict(config),
            **found._asdict(),
            "rates": rates,
            "losses": losses,
            "smoothed": smoothed,
        },
    )
    record.save_figure(directory / "lr_find.png", figure)
    print(_words(found, losses))
    print(f"written to {directory}/: lr_find.json, lr_find.png")
    return RangeTest(directory, found, rates, losses, smoothed, figure)


def smooth(losses: list[float]) -> list[float]:
    """Means over ten steps either side, as far as there are any: nothing lags."""
    windows = (losses[max(0, at - 10) : at + 11] for at in range(len(losses)))
    return [sum(window) / len(window) for window in windows]


def suggest(rates: list[float], smoothed: list[float]) -> Suggestion:
    """Reads a learning rate off the smoothed loss.

    A tenth of the rate of the lowest loss, and not the rate of the steepest fall: a
    fall is a difference of noisy losses, and where it is steepest depends on how fast
    the ramp is, while the edge beyond the lowest loss is where the updates destroy.
    """
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
    if smoothed[lowest] > (1 - _FALL) * smoothed[0]:
        return Suggestion(None, None, None)
    slopes = [b - a for a, b in zip(smoothed[:lowest], smoothed[1:], strict=False)]
    steepest = min(range(len(slopes)), key=slopes.__getitem__)
    return Suggestion(
        float(f"{rates[lowest] / 10:.1e}"), rates[lowest], rates[steepest]
    )


def lost(losses: list[float]) -> bool:
    """Whether the last of the losses is not finite, or the loss has left for good."""
    if not math.isfinite(losses[-1]):
        return True
    mean = weight = 0.0
    least = math.inf
    for loss in losses:
        mean = _MEMORY * mean + (1 - _MEMORY) * loss
        weight = _MEMORY * weight + 1 - _MEMORY
        least = min(least, mean / weight)
    return mean / weight > _LOST * least


def _rate(step):
    return LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))


def _losses(config: Config, directory: Path) -> list[float]:
    """The loss before each update, finite ones, up to where it left."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from experiments import optimization
    from experiments.run import setup
    from lstm_jax import training

    experiment, mesh = setup.start(config, directory)

    def rate(count):
        return jnp.float32(_rate(jnp.asarray(count, jnp.float32)))

    tx = optimization.optimizer(config, rate)
    step = experiment.train_step(mesh, tx)
    params, key, _ = setup.first_weights(experiment, config.seed)
    state = step.put_state(training.init_state(params, tx, key, mesh))
    batch_at, losses = experiment.batches(), []
    for at in range(STEPS):
        batch = batch_at(at)
        batch["progress"] = np.zeros_like(batch["mask"])
        state, metrics = step(state, batch)
        total, count = jax.device_get(metrics["loss"])
        losses.append(float(total) / float(count))
        if lost(losses):
            break
    return losses if math.isfinite(losses[-1]) else losses[:-1]


def _words(found: Suggestion, losses: list[float]) -> str:
    if found.rate is None:
        return (
            f"the loss, {losses[0]:.3g}, falls at no learning rate from {LOWEST:g} to "
            f"{HIGHEST:g}: it is not the rate that is wrong"
        )
    return (
        f"--optimizer.learning-rate={found.rate:g}: a tenth of {found.lowest:.2g}, "
        "where the smoothed loss is lowest, and beyond which updates destroy; it falls "
        f"fastest at {found.steepest:.2g}\n"
        f"to search: --optimizer.learning-rate={found.rate:g}..{found.lowest:.2g}"
    )


def _draw(rates, losses, smoothed, found: Suggestion):
    from lstm_jax.figures.style import BLUE, INK, ORANGE, figure, tidy

    fig = figure(7.2, 4.2)
    ax = fig.add_subplot()
    tidy(ax)
    ax.set_xscale("log")
    ax.set_xlim(LOWEST, HIGHEST)
    ax.plot(rates, losses, color=BLUE, linewidth=0.8, alpha=0.35, label="each step")
    ax.plot(rates, smoothed, color=BLUE, linewidth=2.2, label="smoothed")
    if found.rate is not None:
        low, high = min(losses), smoothed[0]
        ax.set_ylim(low - 0.08 * (high - low), high + 0.5 * (high - low))
        at = rates.index(found.lowest)
        ax.plot(
            found.lowest,
            smoothed[at],
            marker="o",
            markersize=8,
            color=INK,
            linestyle="none",
            label=f"lowest, at {found.lowest:.2g}",
        )
        ax.axvline(
            found.rate,
            color=ORANGE,
            linewidth=2,
            linestyle=(0, (5, 1)),
            label=f"suggested: {found.rate:g}",
        )
    ax.set_title("Learning-rate range test", loc="left", color=INK)
    ax.set_xlabel("learning rate, rising step by step")
    ax.set_ylabel("training loss")
    ax.legend(frameon=False)
    return fig
