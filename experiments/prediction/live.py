"""Frames answered as they come, for as long as they come."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.errors import UsageError
from lstm_jax import data


def watch(
    source: str,
    shape: tuple[int, int, int],
    state: Any,
    step: Callable,
    words: Callable[[Any, Any, Any], str],
    every: int = 25,
) -> dict[str, Any]:
    """Answers every frame of a file, a camera or standard input, and says how fast.

    Args:
      source: a clip's file or folder; a camera's number; "-" for raw frames.
      shape: of a frame, `(H, W, C)`.
      state: before the first frame.
      step: `(state, frame) -> (state, output)`, compiled.
      words: of a frame, the output before, None at first, and its own: a line.
      every: frames between two printed lines; 0 prints none.

    Returns:
      "frames"; "outputs", of the last frame; "latency_ms", a dict of "p50", "p99" and
      "max", from a frame that is in memory to its answer, the first frame, which waits
      for compilation, left out.

    Raises:
      UsageError: no frame came.
    """
    seconds, answer, count = [], None, 0
    for frame in data.stream_frames(source, shape):
        since = time.perf_counter()
        state, new = jax.block_until_ready(step(state, frame))
        seconds.append(time.perf_counter() - since)
        line = words(frame, answer, new)
        answer = np.asarray(new)
        if every and count % every == 0:
            print(f"frame {count}  {line}  {1000 * seconds[-1]:.1f} ms")
        count += 1
        if len(seconds) > 100_000:  # of a camera that runs for days
            del seconds[1:50_001]
    if not count:
        raise UsageError(f"{source}: no frame came")
    steady = 1000 * np.asarray(seconds[1:] or seconds)
    p50, p99 = np.percentile(steady, [50, 99])
    latency = {"p50": float(p50), "p99": float(p99), "max": float(steady.max())}
    if every:
        times = ", ".join(f"{name} {ms:.1f}" for name, ms in latency.items())
        print(f"{count} frames; milliseconds a frame: {times}")
    return {"frames": count, "outputs": answer, "latency_ms": latency}
