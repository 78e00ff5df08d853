"""Frame-by-frame predictions from a stream, for `predict --live`."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.errors import UsageError
from experiments.terminal import printable
from lstm_jax import data


def watch(
    source: str,
    shape: tuple[int, int, int],
    state: Any,
    step: Callable,
    words: Callable[[Any, Any, Any], str],
    every: int = 25,
) -> dict[str, Any]:
    """Predicts for each frame of a clip, a camera or standard input, and times it.

    Args:
      source: file or folder of a clip; number of a camera; "-" for raw frames.
      shape: of a frame, `(H, W, C)`.
      state: before the first frame.
      step: `(state, frame) -> (state, output)`, compiled.
      words: `(frame, previous output or None, output) -> line` to print.
      every: number of frames between printed lines; 0 prints none.

    Returns:
      "frames", their number; "outputs" of the last frame; "latency_ms", a dict of
      "p50", "p99" and "max" from a frame in memory to its output, without the first
      frame, which includes compilation.

    Raises:
      UsageError: the stream is empty.
    """
    seconds, last, count = [], None, 0
    for frame in data.stream_frames(source, shape):
        since = time.perf_counter()
        state, new = jax.block_until_ready(step(state, frame))
        seconds.append(time.perf_counter() - since)
        line = words(frame, last, new)
        last = np.asarray(new)
        if every and count % every == 0:
            print(f"frame {count}  {printable(line)}  {1000 * seconds[-1]:.1f} ms")
        count += 1
        if len(seconds) > 100_000:  # bounds the memory for an endless stream
            del seconds[1:50_001]
    if not count:
        raise UsageError(f"{source}: no frames")
    steady = 1000 * np.asarray(seconds[1:] or seconds)
    p50, p99 = np.percentile(steady, [50, 99])
    latency = {"p50": float(p50), "p99": float(p99), "max": float(steady.max())}
    if every:
        times = ", ".join(f"{name} {ms:.1f}" for name, ms in latency.items())
        print(f"{count} frames; milliseconds per frame: {times}")
    return {"frames": count, "outputs": last, "latency_ms": latency}
