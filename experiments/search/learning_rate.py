"""The learning-rate range test: `python -m experiments.sweep PRESET --lr-find`.

The learning rate rises exponentially from step to step of one short run; the training
loss shows at which rates it decreases and at which it diverges. Reference: Smith 2017,
Cyclical learning rates for training neural networks, section 3.3. Departs: the ramp is
linear there.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

from experiments.choices import to_dict
from experiments.config import Config, check, override, preset
from experiments.errors import UsageError
from experiments.run.folder import place_of

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 200
# Decay of the exponential moving average of the loss: ten steps, a third of a decade.
_DECAY = 0.9
# The loss has diverged if its average is this many times the lowest average.
_DIVERGED = 4.0
# The smallest relative decrease of the loss that is more than noise.
_DECREASE = 0.05


class Suggestion(NamedTuple):
    """The result of a range test; all three are None if the loss does not decrease.

    Attributes:
      rate: the suggested learning rate, a tenth of `lowest`.
      lowest: the learning rate at which the smoothed loss is lowest.
      steepest: the learning rate at which it decreases fastest, for comparison.
    """

    rate: float | None
    lowest: float | None
    steepest: float | None


class RangeTest(NamedTuple):
    """A range test: `rates`, `losses` and `smoothed` for each step until divergence."""

    directory: Path
    suggestion: Suggestion
    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    figure: Any


def lr_find(name: str = "digits", **options: Any) -> RangeTest:
    """Runs a range test with a preset; arguments as in `train`."""
    return find(name, check(override(preset(name), options)))


def find(name: str, config: Config) -> RangeTest:
    """Runs a range test, prints and draws its result; saves no weights.

    Raises:
      UsageError: a distributed run, or a file in place of the folder.
      training.Diverged: the loss diverges within ten steps.
    """
    from experiments.run import record
    from lstm_jax import training

    if config.distributed:
        raise UsageError("--lr-find does not support --distributed; leave it out")
    directory = place_of(name, config, "runs/lr_find")
    losses = _losses(config, directory)
    if len(losses) < 10:
        raise training.Diverged(
            f"the loss diverged within {len(losses)} steps at learning rates below "
            f"{_rate(len(losses)):.1g}, so the learning rate is not the cause"
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
    """Centred moving averages over up to ten steps on both sides."""
    windows = (losses[max(0, at - 10) : at + 11] for at in range(len(losses)))
    return [sum(window) / len(window) for window in windows]


def suggest(rates: list[float], smoothed: list[float]) -> Suggestion:
    """Suggests a learning rate from the smoothed loss.

    It is a tenth of the rate with the lowest loss, beyond which the loss diverges. The
    rate of the steepest decrease is less reliable: it depends on differences of noisy
    losses and on the speed of the ramp.
    """
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
    if smoothed[lowest] > (1 - _DECREASE) * smoothed[0]:
        return Suggestion(None, None, None)
    slopes = [b - a for a, b in zip(smoothed[:lowest], smoothed[1:], strict=False)]
    steepest = min(range(len(slopes)), key=slopes.__getitem__)
    return Suggestion(
        float(f"{rates[lowest] / 10:.1e}"), rates[lowest], rates[steepest]
    )


def diverged(losses: list[float]) -> bool:
    """Whether the last loss is not finite, or the average loss has diverged."""
    if not math.isfinite(losses[-1]):
        return True
    mean = weight = 0.0
    least = math.inf
    for loss in losses:
        mean = _DECAY * mean + (1 - _DECAY) * loss
        weight = _DECAY * weight + 1 - _DECAY
        least = min(least, mean / weight)
    return mean / weight > _DIVERGED * least


def _rate(step):
    return LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))


def _losses(config: Config, directory: Path) -> list[float]:
    """The finite losses before each update, until divergence."""
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
        if diverged(losses):
            break
    return losses if math.isfinite(losses[-1]) else losses[:-1]


def _words(found: Suggestion, losses: list[float]) -> str:
    if found.rate is None:
        return (
            f"the loss, {losses[0]:.3g}, decreases at no learning rate from {LOWEST:g} "
            f"to {HIGHEST:g}, so the learning rate is not the cause"
        )
    return (
        f"suggested: --lr={found.rate:g}, a tenth of {found.lowest:.2g}, where the "
        "smoothed loss is lowest and beyond which it diverges; it decreases fastest at "
        f"{found.steepest:.2g}\n"
        f"to search: --lr={found.rate:g}..{found.lowest:.2g}"
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
            label=f"lowest loss: {found.lowest:.2g}",
        )
        ax.axvline(
            found.rate,
            color=ORANGE,
            linewidth=2,
            linestyle=(0, (5, 1)),
            label=f"suggested: {found.rate:g}",
        )
    ax.set_title("Learning-rate range test", loc="left", color=INK)
    ax.set_xlabel("learning rate, increasing with each step")
    ax.set_ylabel("training loss")
    ax.legend(frameon=False)
    return fig
