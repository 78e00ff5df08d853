"""Temporary memory of the gradient of one layer, by cell, engine and remat.

python -m experiments.benchmarks.memory_table
"""

import jax
import jax.numpy as jnp

from lstm_jax import (
    Cell,
    bottleneck_conv_lstm,
    conv_gru,
    conv_lstm,
    gru,
    lstm,
    rnn,
    st_lstm,
    stack,
    unroll,
)

ENGINES = "scan", "vjp"
REMATS = None, "step", "sqrt"
VECTORS = 784, 128, 1  # T, B, F
IMAGES = 20, 8, 16, 16, 8  # T, B, H, W, C


def cells(width: int) -> dict[str, tuple[Cell, tuple[int, ...]]]:
    """`(cell, (T, B, ...) of its inputs)` by name, for D = `width`."""
    size = (3, 3)
    images = 16
    return {
        "lstm": (lstm(width), VECTORS),
        "lstm, peepholes": (lstm(width, peepholes=True), VECTORS),
        "lstm, layer norm": (lstm(width, layer_norm=True), (*VECTORS[:2], 2)),
        "lstm, projection to half": (lstm(width, proj_size=width // 2), VECTORS),
        "gru": (gru(width), VECTORS),
        "rnn": (rnn(width), VECTORS),
        "two lstm as one stack": (stack(lstm(width), lstm(width)), VECTORS),
        "conv_lstm": (conv_lstm(images, size), IMAGES),
        "conv_gru": (conv_gru(images, size), IMAGES),
        "bottleneck_conv_lstm": (bottleneck_conv_lstm(images, size), IMAGES),
        "st_lstm of two layers": (st_lstm(images, size, layers=2), IMAGES),
    }


def temporaries(
    cell: Cell, shape: tuple[int, ...], engine: str, remat: str | None
) -> int:
    """Bytes of temporaries of the gradient of the sum of squared outputs."""
    xs = jax.ShapeDtypeStruct(shape, jnp.float32)
    features = shape[len(shape) - cell.feature_ndim :]
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), features))

    def loss(params, xs):
        return (unroll(cell, params, xs, engine=engine, remat=remat).ys ** 2).sum()

    compiled = jax.jit(jax.grad(loss)).lower(params, xs).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
    columns = [(engine, remat) for engine in ENGINES for remat in REMATS]
    heads = [engine if r is None else f"{engine}, {r}" for engine, r in columns]
    print("| MB | " + " | ".join(heads) + " |")
    print("|" + "---|" * (len(heads) + 1))
    for name, (cell, shape) in cells(width=128).items():
        found = [temporaries(cell, shape, *column) / 1e6 for column in columns]
        print(f"| {name} | " + " | ".join(f"{mb:,.1f}" for mb in found) + " |")


if __name__ == "__main__":
    main()
