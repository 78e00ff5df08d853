"""The same layer in other libraries, one small function each.

A function takes the width, the inputs `xs [T, B, F]` and a seed; weights, inputs and
outputs have the dtype of `xs`. For JAX libraries it returns `(apply, params, xs)`:
`apply(params, xs)` are the outputs of all steps, and `xs` is batch-major if the library
requires it. It raises `ImportError` if the library is not installed, and
`NotImplementedError` if it does not support the dtype or device.
"""

import os
import sys
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.timing import Timed, compiled

TORCH, FLAX, CONV = "torch nn.LSTM", "flax LSTMCell", "flax ConvLSTMCell"


def flax(cell: str, width: int, xs, seed: int):
    """`nn.RNN` over a cell of Flax Linen."""
    import flax.linen as nn

    layer = partial(getattr(nn, cell), width)
    return _flax([layer], xs, seed)


def flax_images(width: int, xs, seed: int):
    """Two layers of `nn.RNN` over Flax's convolutional cell, 3x3."""
    import flax.linen as nn

    return _flax([partial(nn.ConvLSTMCell, width, (3, 3))] * 2, xs, seed)


def _flax(cells: list[Callable], xs, seed: int):
    import flax.linen as nn

    def model(dtype):
        made = [cell(dtype=dtype, param_dtype=dtype) for cell in cells]
        return nn.Sequential([nn.RNN(cell, time_major=True) for cell in made])

    # Orthogonal initialisation is not available in bfloat16 on CPU.
    start = xs[:1].astype(jnp.float32)
    params = jax.jit(model(jnp.float32).init)(jax.random.key(seed), start)
    params = jax.tree.map(lambda leaf: leaf.astype(xs.dtype), params)
    return model(xs.dtype).apply, params, xs


def haiku(width: int, xs, seed: int):
    """`hk.LSTM` by `hk.dynamic_unroll`."""
    import haiku as hk

    def net(xs):
        core = hk.LSTM(width)
        state = core.initial_state(xs.shape[1])
        state = jax.tree.map(lambda leaf: leaf.astype(xs.dtype), state)
        return hk.dynamic_unroll(core, xs, state)[0]

    model = hk.without_apply_rng(hk.transform(net))
    return model.apply, jax.jit(model.init)(jax.random.key(seed), xs[:1]), xs


def keras(width: int, xs, seed: int):
    """`keras.layers.LSTM` on its JAX backend, batch-major."""
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "jax"  # read once, at the first import
    import keras

    if keras.backend.backend() != "jax":
        raise NotImplementedError(
            f"Keras is already imported with backend {keras.backend.backend()}; set "
            "KERAS_BACKEND=jax"
        )
    keras.utils.set_random_seed(seed)
    xs = xs.swapaxes(0, 1)  # [B, T, F]
    layer = keras.layers.LSTM(
        width,
        return_sequences=True,
        recurrent_initializer="glorot_uniform",  # orthogonal ones are float32 only
        dtype=str(xs.dtype),
    )
    layer.build(xs.shape)
    others = [v.value for v in layer.non_trainable_variables]

    def apply(params, xs):
        return layer.stateless_call(params, others, xs)[0]

    return apply, [v.value for v in layer.trainable_variables], xs


def equinox(width: int, xs, seed: int):
    """`eqx.nn.LSTMCell`, over a batch by `vmap`, over time by `lax.scan`."""
    import equinox as eqx

    cell = eqx.nn.LSTMCell(
        xs.shape[-1], width, dtype=xs.dtype, key=jax.random.key(seed)
    )

    def apply(cell, xs):
        def step(carry, x_t):
            carry = jax.vmap(cell)(x_t, carry)
            return carry, carry[0]

        zeros = jnp.zeros((xs.shape[1], width), xs.dtype)
        return lax.scan(step, (zeros, zeros), xs)[1]

    return apply, cell, xs


def torch_layer(width: int, xs, seed: int):
    """`torch.nn.LSTM`, time-major, and its inputs, on the device that JAX uses."""
    import torch

    platform = jax.default_backend()
    if platform == "tpu":
        raise NotImplementedError("PyTorch is timed on CPU and GPU only")
    if platform == "gpu" and not torch.cuda.is_available():
        raise NotImplementedError("this PyTorch has no GPU")
    torch.manual_seed(seed)
    to = dict(
        device="cuda" if platform == "gpu" else "cpu",
        dtype=getattr(torch, str(xs.dtype)),
    )
    layer = torch.nn.LSTM(xs.shape[-1], width).to(**to)
    return layer, torch.from_numpy(np.array(xs, np.float32)).to(**to)


def torch_timed(width: int, xs, seed: int, kind: str) -> Timed:
    """PyTorch's layer, with its default number of threads."""
    import torch

    layer, xs = torch_layer(width, xs, seed)

    weights = list(layer.parameters())
    layer.train(kind == "gradient")

    def run():
        if kind == "gradient":
            found = torch.autograd.grad(layer(xs)[0].square().sum(), weights)
        else:
            with torch.no_grad():
                found = layer(xs)[0]
        if xs.is_cuda:
            torch.cuda.synchronize()
        return found

    with torch.no_grad():
        shape, wanted = tuple(layer(xs)[0].shape), (*xs.shape[:-1], width)
    if shape != wanted:
        raise ValueError(f"benchmark: outputs are {shape}, but wanted {wanted}")
    return Timed(run)


def torch_classifier(inputs: int, width: int, classes: int):
    """A PyTorch module: `nn.LSTM`, batch-major, and `nn.Linear` on its last output."""
    import torch

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(inputs, width, batch_first=True)
            self.head = torch.nn.Linear(width, classes)

        def forward(self, xs):
            return self.head(self.lstm(xs)[0][:, -1])

    return Classifier()


def torch_step(model, optimizer, xs, labels, clip: float) -> None:
    """A training step of a classifier with gradient-norm clipping."""
    import torch

    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(xs), labels).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()


JAX_PEERS: dict[str, Callable] = {
    FLAX: partial(flax, "LSTMCell"),
    "flax OptimizedLSTMCell": partial(flax, "OptimizedLSTMCell"),
    "haiku LSTM": haiku,
    "keras LSTM": keras,
    "equinox LSTMCell": equinox,
}
NAMES = (TORCH, *JAX_PEERS, CONV)


def peers(
    width: int, xs, seed: int, kind: str, images: bool = False
) -> dict[str, Callable[[], Timed]]:
    """Functions that create the layers of all libraries, by name.

    Args:
      width: hidden width.
      xs: inputs `[T, B, F]`, or `[T, B, H, W, C]` for images.
      seed: of the weights.
      kind: as in `compiled`.
      images: convolutional layers instead.
    """

    def ready(make):
        try:
            return compiled(*make(width, xs, seed), width, kind)
        except (TypeError, ValueError) as error:  # raised for unsupported dtypes
            raise NotImplementedError(f"{type(error).__name__}: {error}") from error

    if images:
        return {CONV: partial(ready, flax_images)}
    made = {TORCH: partial(torch_timed, width, xs, seed, kind)}
    return made | {name: partial(ready, make) for name, make in JAX_PEERS.items()}


def threads() -> int | None:
    """The number of PyTorch's threads; None if it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch.get_num_threads()
