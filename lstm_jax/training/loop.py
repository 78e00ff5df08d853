"""The training loop."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from lstm_jax.training.callbacks import Callback
from lstm_jax.training.ema import weights
from lstm_jax.training.plateau import rate_scale
from lstm_jax.training.step import Batch, TrainState, TrainStep, matrix_names


class Diverged(RuntimeError):
    """The loss or the weights became NaN or infinite; the message suggests remedies."""


def fit(
    state: TrainState,
    step: TrainStep,
    *,
    steps: int,
    batch_at: Callable[[int], Batch],
    steps_per_execution: int = 1,
    read: Callable[[Callable, Iterable], Iterable] = map,
    evaluate: Callable[[Any], dict | None] | None = None,
    eval_every: int | None = None,
    evaluate_first: bool = False,
    log_every: int = 100,
    save_every: int | None = None,
    schedule: Callable[[int], Any] | None = None,
    should_stop: Callable[[], bool] | None = None,
    callbacks: Sequence[Callback] = (),
) -> TrainState:
    """Trains from `state.step` to `steps`; an interrupted run resumes bit-identically.

    Step n in a row, a save or an error denotes the state after n updates, the last with
    batch_at(n - 1). The host does not wait for each step: it prepares the next batches
    while the devices compute, and fetches metrics only for a row, an evaluation or a
    save.

    Args:
      state: initial state; it stays valid. With a state of several seeds from
        `init_seeds`, metrics in rows and results of `evaluate` are lists, one number
        per seed.
      step: from `make_train_step`.
      steps: total number of updates of the run.
      batch_at: step -> dict of new arrays [B, ...]; a pure function of the step. With
        several processes, it returns the rows of this one.
      steps_per_execution: K, maximum number of updates per dispatch to the devices;
        fewer before a row, an evaluation or a save, or if they would take more than
        half a second.
      read: like `map`, the default; may prefetch in threads.
      evaluate: params -> {name: number}, on the validation split; None if it was
        interrupted. It gets the averaged weights if the optimizer keeps an average.
      eval_every: steps between evaluations; the last step is always evaluated (unless
        `should_stop` ends the run).
      evaluate_first: evaluates the initial state, if it was saved without evaluation.
      log_every: steps per row of training metrics.
      save_every: steps between saves, in addition to those after each evaluation and
        at the end; weights that are not finite are never saved.
      schedule: step -> learning rate, for the rows.
      should_stop: called after each dispatch; if true, the run ends without an
        evaluation.
      callbacks: called in order for each row, evaluation and save, and for progress:
        at most once per dispatch, after steps that are complete. Training rows hold
        means over their steps; "learning_rate" of the last step if there is a
        schedule; "update_ratio/layer_0/w_h" and so on, the norm of a step's update
        divided by the norm of the matrix; and "images_per_second" (excluding
        compilation, evaluation and saving).

    Returns:
      The final state.

    Raises:
      Diverged: a loss or the weights are not finite.
    """
    for name, every in dict(
        eval_every=eval_every,
        log_every=log_every,
        save_every=save_every,
        steps_per_execution=steps_per_execution,
    ).items():
        if every is not None and every < 1:
            raise ValueError(f"{name}: got {every}, want 1 or more")

    saves = any(callback.saves for callback in callbacks)

    def log(row):
        for callback in callbacks:
            callback.on_log(row)

    def completed(number):
        for callback in callbacks:
            callback.on_progress(number)

    def over():
        return any([callback.ends() for callback in callbacks])

    def finish(number, state, due, must_save):
        """Evaluates and saves; returns the next state, and whether to end."""
        results, ended = None, False
        _check_weights(state.params, number)
        if due:
            results = evaluate(weights(state))
            ended = results is None
        if results is not None:
            results = {name: _plain(value) for name, value in results.items()}
            log({"step": number, "split": "validation", **results})
            for callback in callbacks:
                state = callback.on_evaluation(state, results)
            ended = over()
        for callback in callbacks:
            if callback.saves and (must_save or due):
                callback.on_save(number, state, results)
        return state, ended

    start = int(np.max(state.step))  # equal for all seeds
    if over():
        return state
    if evaluate_first and evaluate is not None:
        state, ended = finish(start, state, True, False)
        if ended:
            return state
    if start >= steps:
        return state

    everies = (log_every, evaluate and eval_every, saves and save_every)
    stacked = stacker(batch_at, steps_per_execution)
    matrices = matrix_names(state.params, np.ndim(state.step))
    plan, arriving = deque([range(start, start + 1)]), iter(())
    state = step.put_state(state)
    host = stacked(plan[0])
    size = jax.tree.leaves(host)[0].shape[1] * jax.process_count()
    batches = step.put_batches(host)
    state, _ = jax.block_until_ready(step.run(state, batches, 0))  # compiles
    completed(start)
    slowed = rate_scale(step.get_state(state))
    pending = deque()  # metrics still on the devices, with their steps
    window = []  # metrics fetched since the last row
    images, seconds, since = 0, 0.0, time.perf_counter()  # since the last row
    while plan:
        part = plan.popleft()
        state, metrics = step.run(state, batches, len(part))
        if part[0] == start and start + 1 < steps:
            jax.block_until_ready(metrics)
            completed(start + 1)
            most = _in_a_row(steps_per_execution, time.perf_counter() - since)
            plan.extend(_dispatches(start + 1, steps, most, everies))
            arriving = iter(read(stacked, list(plan)))
        pending.append((part, metrics))
        images += len(part) * size
        if plan:  # transfer the next batches while the devices compute
            batches = step.put_batches(next(arriving))
        if len(pending) > 2:  # limit how far the host runs ahead
            earlier, metrics = pending[-3]
            jax.block_until_ready(metrics)
            if earlier[0] > start:  # the first step was told
                completed(earlier[-1] + 1)

        number = part[-1] + 1
        stopped = should_stop is not None and should_stop()
        last = number == steps or stopped
        log_now = last or number % log_every == 0
        eval_now = (
            evaluate is not None
            and not stopped
            and (number == steps or _is_due(number, eval_every))
        )
        save_now = saves and (last or eval_now or _is_due(number, save_every))
        if log_now or eval_now or save_now:
            window += _fetch(pending)
        if log_now:
            seconds += time.perf_counter() - since
            row = {"step": number, "split": "train"}
            row |= _row_of(_means(window), matrices)
            if schedule is not None:
                row["learning_rate"] = slowed * float(schedule(number - 1))
            row["images_per_second"] = images / seconds
            log(row)
            window, images, seconds, since = [], 0, 0.0, time.perf_counter()
        if eval_now or save_now:
            seconds += time.perf_counter() - since
            whole = step.get_state(state)
            after, ended = finish(number, whole, eval_now, save_now)
            if after is not whole:
                state, slowed = step.put_state(after), rate_scale(after)
            stopped |= ended
            since = time.perf_counter()
        if stopped:
            break
    return step.get_state(state)


def stacker(batch_at: Callable[[int], Batch], size: int) -> Callable[[range], Batch]:
    """`steps -> batches [size, B, ...]`, padded by repeating the last one."""

    def stacked(steps):
        batches = [batch_at(at) for at in steps]
        if size == 1:
            return {name: x[None] for name, x in batches[0].items()}
        batches += batches[-1:] * (size - len(batches))
        return {name: np.stack([b[name] for b in batches]) for name in batches[0]}

    return stacked


def _is_due(number: int, every: int | None) -> bool:
    return every is not None and number % every == 0


def _in_a_row(most: int, seconds: float) -> int:
    """Number of steps of `seconds` each per dispatch; the same in all processes."""
    count = max(1, min(most, int(0.5 / seconds)))
    if jax.process_count() > 1:
        count = int(multihost_utils.broadcast_one_to_all(np.int32(count)))
    return count


def _dispatches(start: int, steps: int, most: int, everies) -> Iterator[range]:
    """The steps of each dispatch: up to `most`, ending where something is due."""
    while start < steps:
        due = [start + every - start % every for every in everies if every]
        end = min(start + most, steps, *due)
        yield range(start, end)
        start = end


def _fetch(pending: deque) -> list[dict]:
    """Fetches the metrics of each step from the devices, and checks the loss."""
    parts = [part for part, _ in pending]
    fetched = jax.device_get([metrics for _, metrics in pending])
    pending.clear()
    each = [
        jax.tree.map(lambda x, i=i: x[i], metrics)
        for part, metrics in zip(parts, fetched, strict=True)
        for i in range(len(part))
    ]
    if each:
        _check_losses(each, parts[-1][-1] + 1)
    return each


def _means(window: list[dict]) -> dict[str, np.ndarray]:
    """The mean of each metric over a window: sum of sums / sum of counts."""
    means = {}
    for name in window[0]:
        total, count = np.sum([m[name] for m in window], axis=0, dtype=np.float64)
        means[name] = total / np.where(count, count, np.nan)
    return means


def _row_of(means: dict[str, Any], matrices: list[str]) -> dict[str, float]:
    """Means of metrics as the numbers of a row, with names of the matrices."""
    ratios = np.moveaxis(means["update_ratio"], -1, 0)
    ratios = dict(zip(matrices, ratios, strict=True))
    row = {name: x for name, x in means.items() if name != "update_ratio"}
    row |= {f"update_ratio/{name}": x for name, x in ratios.items()}
    return {name: _plain(x) for name, x in row.items()}


def _plain(value: Any) -> float | list[float]:
    """A number, or a list of the numbers of several seeds."""
    return np.asarray(value, np.float64).tolist()


_ADVICE = (
    "Try a lower --optimizer.learning-rate, --optimizer.clip=1 or "
    "--precision=float32. The last good checkpoint is kept."
)


def _check_losses(fetched: list[dict], number: int) -> None:
    """Raises Diverged unless all losses, the last of step `number`, are finite."""
    before = None
    for at, metrics in enumerate(fetched, start=number - len(fetched) + 1):
        total, count = metrics["loss"]
        losses = np.atleast_1d(np.where(count, total, 0) / np.where(count, count, 1))
        seed = np.isfinite(losses).argmin()  # the first seed that is not finite
        loss = losses[seed]
        if not math.isfinite(loss):
            whose = f" of the seed at index {seed}" if np.ndim(total) else ""
            was = "" if before is None else f" (it was {before:.4g} a step earlier)"
            raise Diverged(
                f"training diverged: the loss{whose} is {loss} at step {at}{was}. "
                f"{_ADVICE}"
            )
        before = loss


@jax.jit
def _all_finite(tree) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]))


def _check_weights(params, number: int) -> None:
    if not _all_finite(params):
        raise Diverged(
            f"training diverged: the weights are not finite after step {number}, "
            f"but its loss still is. {_ADVICE}"
        )
