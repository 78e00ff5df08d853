"""The training loop."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.training.step import TrainState, TrainStep


class Diverged(RuntimeError):
    """The loss or the weights stopped being finite; the message says what to try."""


def fit(
    state: TrainState,
    step: TrainStep,
    *,
    steps: int,
    batch_at: Callable[[int], dict],
    evaluate: Callable[[Any], dict] | None = None,
    eval_every: int | None = None,
    log_every: int = 100,
    save: Callable[[int, TrainState, dict | None], None] | None = None,
    save_every: int | None = None,
    on_log: Callable[[dict], None] = lambda row: None,
    schedule: Callable[[int], Any] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainState:
    """Trains from `state.step` to `steps`; a run cut in two gives the same bits.

    Step n in a row, a save or an error is the state after n updates; it was made with
    batch_at(n - 1).

    Args:
      state: where to begin; it stays valid.
      step: from `make_train_step`.
      steps: number of updates of the whole run.
      batch_at: step -> dict of arrays [B, ...], made anew each time; a pure function
        of the step.
      evaluate: params -> {name: number}, on the validation split.
      eval_every: steps between evaluations; with `evaluate` the last step is always
        evaluated (not when `should_stop` ends the run).
      log_every: steps that one row of training metrics covers.
      save: (step, state, metrics of this state or None); called every `save_every`
        steps, after each evaluation and at the end, never with weights that are not
        finite.
      save_every: steps between saves.
      on_log: takes each row, {"step", "split": "train" | "validation", name: number}.
        Training rows are means over their steps, and hold "learning_rate" of the last
        step if there is a schedule, and "images_per_second" (without compilation,
        evaluation and saving) once a second step has been timed.
      schedule: step -> learning rate, for the rows.
      should_stop: asked after each step.

    Returns:
      The last state.

    Raises:
      Diverged: a loss or the weights are not finite.
    """
    for name, every in dict(
        eval_every=eval_every, log_every=log_every, save_every=save_every
    ).items():
        if every is not None and every < 1:
            raise ValueError(f"{name}: got {every}, want 1 or more")
    start = int(state.step)
    if start >= steps:
        return state
    state = step.put_state(state)
    pending = []  # metrics still on the devices, one dict for each step
    window = []  # those fetched since the last row
    images, seconds, since = 0, 0.0, None  # timed since the last row
    host = batch_at(start)
    batch = step.put_batch(host)
    for number in range(start + 1, steps + 1):
        state, metrics = step.run(state, batch)
        pending.append(metrics)
        if since is None:  # the first step: waits for the compiler, counts no images
            jax.block_until_ready(metrics)
            since = time.perf_counter()
        else:
            images += len(jax.tree.leaves(host)[0])
        if number < steps:  # while the devices work
            host = batch_at(number)
            batch = step.put_batch(host)
        if len(pending) > 2:  # the host runs no further ahead
            jax.block_until_ready(pending[-3])

        stopped = should_stop is not None and should_stop()
        last = number == steps or stopped
        log_now = last or number % log_every == 0
        eval_now = evaluate is not None and (
            number == steps or _is_due(number, eval_every)
        )
        save_now = save is not None and (
            last or eval_now or _is_due(number, save_every)
        )
        if log_now or eval_now or save_now:
            fetched = jax.device_get(pending)
            pending = []
            _check_losses(fetched, number)
            window += fetched
        if log_now:
            seconds += time.perf_counter() - since
            row = {"step": number, "split": "train", **_means(window)}
            if schedule is not None:
                row["learning_rate"] = float(schedule(number - 1))
            if images:
                row["images_per_second"] = images / seconds
            on_log(row)
            window, images, seconds, since = [], 0, 0.0, time.perf_counter()
        if eval_now or save_now:
            seconds += time.perf_counter() - since
            plain, results = step.get_state(state), None
            _check_weights(plain.params, number)
            if eval_now:
                results = {k: float(v) for k, v in evaluate(plain.params).items()}
                on_log({"step": number, "split": "validation", **results})
            if save_now:
                save(number, plain, results)
            since = time.perf_counter()
        if stopped:
            break
    return step.get_state(state)


def _is_due(number: int, every: int | None) -> bool:
    return every is not None and number % every == 0


def _means(window: list[dict]) -> dict[str, float]:
    """The mean of each metric over a window: sum of sums / sum of counts."""
    means = {}
    for name in window[0]:
        total, count = np.sum([m[name] for m in window], axis=0, dtype=np.float64)
        means[name] = float(total / count) if count else float("nan")
    return means


_ADVICE = (
    "Try a lower --optimizer.learning-rate, --optimizer.clip=1 or "
    "--precision=float32. The last good checkpoint is kept."
)


def _check_losses(fetched: list[dict], number: int) -> None:
    """Refuses losses, the last of step `number`, if one is not finite."""
    before = None
    for at, metrics in enumerate(fetched, start=number - len(fetched) + 1):
        total, count = metrics["loss"]
        loss = float(total) / float(count) if count else 0.0
        if not math.isfinite(loss):
            was = "" if before is None else f" (it was {before:.4g} a step earlier)"
            raise Diverged(
                f"training diverged: the loss is {loss} at step {at}{was}. {_ADVICE}"
            )
        before = loss


@jax.jit
def _all_finite(tree) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]))


def _check_weights(params, number: int) -> None:
    if not _all_finite(params):
        raise Diverged(
            f"training diverged: the weights are not finite after step {number}, "
            f"though its loss still is. {_ADVICE}"
        )
