"""Profiles a training step: time in the compiled step, and around it."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from lstm_jax.training.callbacks import LambdaCallback
from lstm_jax.training.loop import fit, stacker
from lstm_jax.training.step import Batch, TrainState, TrainStep


def profile(
    state: TrainState,
    step: TrainStep,
    *,
    batch_at: Callable[[int], Batch],
    steps_per_execution: int = 1,
    read: Callable = map,
    dispatches: int = 10,
    rounds: int = 5,
    trace: str | None = None,
) -> dict[str, Any]:
    """Compares the training loop with the compiled step alone.

    Runs both in turn, on copies of the state: the step alone, on batches that are
    already on the devices; and `fit`, which reads, transfers and dispatches.

    Args:
      state, step, batch_at, steps_per_execution, read: as in `fit`.
      dispatches: number of dispatches per round, of `steps_per_execution` steps each.
      rounds: number of rounds of both; medians are reported.
      trace: folder for a trace of one more round of `fit`, for XProf, TensorBoard or
        Perfetto.

    Returns:
      Milliseconds per step: "step_alone_ms", "whole_loop_ms"; their "ratio"; "waiting",
      the fraction of the loop in which the devices are idle; and the host's time per
      step, mostly overlapped with the devices: "reading_ms", "moving_ms",
      "dispatching_ms".
    """
    steps = dispatches * steps_per_execution
    begin = int(state.step)
    spent = {"reading_ms": 0.0, "moving_ms": 0.0, "dispatching_ms": 0.0}

    def timed(name, run):
        def wrapper(*arguments):
            since = time.perf_counter()
            try:
                return run(*arguments)
            finally:
                spent[name] += 1e3 * (time.perf_counter() - since)

        return wrapper

    def read_timed(make, items):
        arriving = iter(read(make, items))
        take = timed("reading_ms", lambda: next(arriving, None))
        return iter(take, None)

    watched = step._replace(
        run=timed("dispatching_ms", step.run),
        put_batches=timed("moving_ms", step.put_batches),
    )
    host = stacker(batch_at, steps_per_execution)(
        range(begin, begin + steps_per_execution)
    )
    batch_size = jax.tree.leaves(host)[0].shape[1] * jax.process_count()
    batches = step.put_batches(host)

    def alone() -> float:
        now, _ = jax.block_until_ready(step.run(step.put_state(state), batches, 0))
        since = time.perf_counter()
        for _ in range(dispatches):
            now, _ = step.run(now, batches, steps_per_execution)
        jax.block_until_ready(now)
        return (time.perf_counter() - since) / steps

    def loop() -> float:
        rows = []
        fit(
            state,
            watched,
            steps=begin + steps,
            batch_at=batch_at,
            steps_per_execution=steps_per_execution,
            read=read_timed,
            log_every=begin + steps,
            callbacks=[LambdaCallback(on_log=rows.append)],
        )
        return batch_size / rows[0]["images_per_second"]

    alone(), loop()  # warm-up
    spent.update(dict.fromkeys(spent, 0.0))
    pairs = [(alone(), loop()) for _ in range(rounds)]
    host_ms = {name: total / (rounds * steps) for name, total in spent.items()}
    if trace is not None:
        with jax.profiler.trace(trace):
            loop()
    ratio = statistics.median(whole / one for one, whole in pairs)
    one, whole = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {
        "step_alone_ms": 1e3 * one,
        "whole_loop_ms": 1e3 * whole,
        "ratio": ratio,
        "waiting": max(0.0, 1 - 1 / ratio),
        **host_ms,
        "steps_per_execution": steps_per_execution,
    }
