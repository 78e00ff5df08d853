"""Gradients of the core alone: time and memory by engine, beside Flax's."""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax import conv_lstm, gru, lstm, stack, unroll

SHAPES = {  # B T F D
    "rows": (128, 28, 28, 128),
    "pixels": (128, 784, 1, 128),
    "medium": (64, 128, 512, 512),
    "wide": (32, 128, 1024, 1024),
}
IMAGES = (8, 19, 16, 48)  # B T, height and width, channels


def core(options) -> None:
    """Prints a table for each shape."""
    for name in options.shapes:
        batch, steps, inputs, width = SHAPES[name]
        print(f"{name}: B={batch} T={steps} F={inputs} D={width}, float32")
        xs = jax.random.normal(jax.random.key(0), (steps, batch, inputs))
        ours = {"lstm": lstm(width), "gru": gru(width)}
        ours["lstm, layer norm"] = lstm(width, layer_norm=True)
        if options.cell:
            ours[options.cell] = _load(options.cell)(width)
        candidates = {"lstm, vjp, remat=sqrt": _ours((ours["lstm"],), xs, remat="sqrt")}
        for label, cell in ours.items():
            for engine in ("scan", "vjp"):
                candidates[f"{label}, {engine}"] = _ours((cell,), xs, engine=engine)
        for cell in (nn.LSTMCell, nn.OptimizedLSTMCell):
            candidates[f"flax {cell.__name__}"] = _flax((cell(width),), xs)
        _table(candidates, options.rounds, "flax LSTMCell")
    if options.images:
        batch, steps, side, channels = IMAGES
        print(
            f"two 3x3 ConvLSTM: B={batch} T={steps} {side}x{side}x{channels}, float32"
        )
        shape = (steps, batch, side, side, channels)
        xs = jax.random.normal(jax.random.key(0), shape)
        layers = (conv_lstm(channels, (3, 3)),) * 2
        candidates = {f"conv_lstm, {e}": _ours(layers, xs, e) for e in ("scan", "vjp")}
        candidates["conv_lstm, vjp, remat=sqrt"] = _ours(layers, xs, remat="sqrt")
        both = (stack(*layers),)
        candidates["stack, scan, remat=step"] = _ours(both, xs, "scan", remat="step")
        cells = [nn.ConvLSTMCell(channels, (3, 3)) for _ in layers]
        candidates["flax ConvLSTMCell"] = _flax(cells, xs)
        _table(candidates, options.rounds, "flax ConvLSTMCell")


def _load(place: str) -> Callable:
    path, _, function = place.partition(":")
    if not function or not Path(path).is_file():
        raise ValueError(
            f"--cell={place}: wanted FILE.py:FUNCTION of a file that is there"
        )
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, function)


def _ours(cells, xs, engine: str = "vjp", **options):
    keys = jax.random.split(jax.random.key(1), len(cells))
    params = [c.init(k, xs.shape[2:]) for c, k in zip(cells, keys, strict=True)]

    def apply(params, ys):
        for cell, p in zip(cells, params, strict=True):
            ys = unroll(cell, p, ys, engine=engine, **options).ys
        return ys

    return apply, params, xs


def _flax(cells, xs):
    model = nn.Sequential([nn.RNN(cell, time_major=True) for cell in cells])
    return model.apply, model.init(jax.random.key(1), xs), xs


def _table(candidates: dict, rounds: int, peer: str) -> None:
    runs, megabytes = {}, {}
    for name, (apply, params, xs) in candidates.items():

        def gradient(params, xs, apply=apply):
            return jax.grad(lambda p: jnp.square(apply(p, xs)).sum())(params)

        compiled = jax.jit(gradient).lower(params, xs).compile()
        runs[name] = lambda compiled=compiled, at=(params, xs): compiled(*at)
        megabytes[name] = compiled.memory_analysis().temp_size_in_bytes / 1e6
        jax.block_until_ready(runs[name]())
    times: dict[str, list[float]] = {name: [] for name in runs}
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for name in rng.permutation(list(runs)):
            start = time.perf_counter()
            jax.block_until_ready(runs[name]())
            times[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(t)) for name, t in times.items()}
    print(f"  {'':<34}{'ms':>9}  x as fast  MB temporary  of Flax's")
    for name, median in medians.items():
        speed, share = medians[peer] / median, megabytes[name] / megabytes[peer]
        print(
            f"  {name:<34}{1000 * median:>9.1f}{speed:>11.2f}{megabytes[name]:>14.1f}"
            f"{share:>11.2f}",
            flush=True,
        )
