"""A run that watches: one compiled step a frame, for as long as frames come."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config import UsageError


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
    import jax.numpy as jnp

    from experiments import network
    from experiments.restoring import restored
    from lstm_jax import data
    from lstm_jax.models import stream

    config, about, task, params = restored(run)
    shape = tuple(about.image_shape[1:])
    if len(shape) != 3:
        raise UsageError(f"{run} was not trained on clips; --live wants frames")
    parts = stream(network.model(config, about), params, shape)
    forecasts = config.task.name == "forecasting"
    offset = np.float32(0) if forecasts else np.asarray(about.pixel_offset, np.float32)
    scale = np.float32(1 / 255) if forecasts else np.asarray(about.pixel_scale, "f4")

    def step(state, frame):
        state, answer = parts.step(state, (frame.astype(jnp.float32) - offset) * scale)
        if not forecasts:
            answer = task.predict(answer[None])[0]
        return state, answer

    step = jax.jit(step, donate_argnums=0)
    state, seconds, answer, count = parts.start(), [], None, 0
    for frame in data.stream_frames(source, shape):
        since = time.perf_counter()
        state, new = jax.block_until_ready(step(state, frame))
        seconds.append(time.perf_counter() - since)
        line = _line(about, frame, answer, new, forecasts)
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


def _line(about, frame, before, now, forecasts: bool) -> str:
    if forecasts:
        if before is None:
            return "nothing predicted yet"
        error = np.square(np.clip(before, 0, 1) - frame / np.float32(255)).sum()
        return f"squared error of its prediction {error:.1f}"
    if about.classes:
        now = np.asarray(now)
        best = int(now.argmax())
        return f"{about.classes[best]} {now[best]:.1%}"
    return ", ".join(f"{value:.4g}" for value in np.asarray(now).ravel())
