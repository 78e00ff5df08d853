"""A run that watches: one compiled step a frame, for as long as frames come."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import UsageError


def watch(run: Path, source: str, *, every: int = 25) -> dict[str, Any]:
    """Answers every frame of a file, a camera or standard input, and says how fast.

    Args:
      run: folder of a trained run that reads clips in the order of their frames.
      source: a clip's file or folder; a camera's number; "-" for raw frames.
      every: frames between two printed lines; 0 prints none.

    Returns:
      "frames"; "outputs", of the last frame; "latency_ms", a dict of "p50", "p99" and
      "max", from a frame that is in memory to its answer, the first frame, which waits
      for compilation, left out.

    Raises:
      ValueError: the run reads no clips, or has to see the whole of one.
    """
    import jax

    from experiments.run.load_run import load_run
    from lstm_jax import data
    from lstm_jax.models import stream

    experiment, params = load_run(run)
    kind, spec, task = experiment.kind, experiment.spec, experiment.task
    shape = tuple(spec.image_shape[1:])
    if len(shape) != 3:
        raise UsageError(f"{run} was not trained on clips; --live wants frames")
    parts = stream(experiment.network.module, params, shape)

    def step(state, frame):
        state, output = parts.step(state, spec.normalize(frame))
        return state, kind.stream_answer(task, output)

    step = jax.jit(step, donate_argnums=0)
    state, seconds, answer, count = parts.start(), [], None, 0
    for frame in data.stream_frames(source, shape):
        since = time.perf_counter()
        state, new = jax.block_until_ready(step(state, frame))
        seconds.append(time.perf_counter() - since)
        line = kind.stream_line(spec, frame, answer, new)
        answer = np.asarray(new)
        if every and count % every == 0:
            print(f"frame {count}  {line}  {1000 * seconds[-1]:.1f} ms")
        count += 1
        if len(seconds) > 100_000:  # of a camera that runs for days
            del seconds[1:50_001]
    if not count:
        raise UsageError(f"{source}: no frame came")
    steady = 1000 * np.asarray(seconds[1:] or seconds)
    latency = {
        "p50": float(np.percentile(steady, 50)),
        "p99": float(np.percentile(steady, 99)),
        "max": float(steady.max()),
    }
    if every:
        words = ", ".join(f"{name} {ms:.1f}" for name, ms in latency.items())
        print(f"{count} frames; milliseconds a frame: {words}")
    return {"frames": count, "outputs": answer, "latency_ms": latency}
