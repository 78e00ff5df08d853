"""The plain LSTM by NVIDIA's cuDNN: one call for all steps, by `jax.experimental.rnn`.

cuDNN supports one set of equations, in float32, for sequences padded at the end.
Unsupported requests raise an error that names them; there is no silent fallback.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.backend import get_backend
from jax.sharding import AxisType

from lstm_jax.cell import Cell
from lstm_jax.engines.scan import where
from lstm_jax.engines.scan_inputs import ScanInputs

LONGEST = 65535  # steps in one call of cuDNN
TF32, FLOAT32 = jax.lax.Precision.HIGH, jax.lax.Precision.HIGHEST
PRECISIONS = {
    None: TF32,
    "high": TF32,
    "tensorfloat32": TF32,
    "TF32_TF32_F32": TF32,
    "highest": FLOAT32,
    "float32": FLOAT32,
    "F32_F32_F32": FLOAT32,
}


def cudnn(
    cell: Cell,
    params: Any,
    inputs: ScanInputs,
    carry: Any,
    reset_carry: Any,
    *,
    time: int,
    reverse: bool = False,
    unroll: int = 1,
    remat: bool = False,
    every_carry: bool = False,
    dtype: Any = None,
) -> tuple[Any, Any, Any]:
    """Runs a plain LSTM over a sequence; arguments and results as in `scan`.

    Products are in TF32, as other products of float32 on such a GPU, unless
    `jax.default_matmul_precision` is "highest" or "float32". The host waits for the
    lengths in every call, so a call cannot be a part of a CUDA graph.

    Raises:
      NotImplementedError: for anything that cuDNN does not support. Supported are
        `equations="lstm"`; params, inputs and state in float32; `lengths`, but neither
        `mask` nor `resets` nor `jax.vmap`; one device, an NVIDIA GPU; no carries, no
        `remat="step"`, no `unroll`. From JAX, for second derivatives.
      TypeError: from JAX, for forward-mode derivatives; use the engine "scan".
    """
    _check_backend()
    precision = _check_precision()
    _check_run(cell, params, inputs, carry, time, unroll, remat, every_carry)
    features, width = params["w_x"].shape[0], params["w_h"].shape[0]
    batch_shape = inputs.xs.shape[1:-1]
    batch = math.prod(batch_shape)
    xs = inputs.xs.reshape(time, batch, features)
    h, c = (x.reshape(1, batch, width) for x in (carry.h, carry.c))
    lengths = jnp.full(batch, time, jnp.int32)
    valid = None
    if inputs.mask is not None:
        valid = inputs.mask.reshape(time, batch)
        lengths = valid.sum(0, dtype=jnp.int32)
    if reverse:
        xs = _reversed(xs, None if valid is None else lengths)
    weights = pack(params["w_x"], params["w_h"], params["b"])
    lengths = _unmapped(lengths, *jax.lax.stop_gradient((xs, h, c, weights)))

    from jax.experimental import rnn  # experimental: a JAX without it may run the rest

    ys, h_last, c_last = rnn.lstm(
        xs.swapaxes(0, 1),
        h,
        c,
        weights,
        jnp.maximum(lengths, 1),  # its backward pass fails for a length of zero
        input_size=features,
        hidden_size=width,
        num_layers=1,
        dropout=0.0,
        bidirectional=False,
        precision=precision,  # by name: the backward pass is traced elsewhere
    )
    ys = ys.swapaxes(0, 1)  # [T, B, D]
    if reverse:
        ys = _reversed(ys, None if valid is None else lengths)
    if valid is not None:
        ys = where(valid, ys, jnp.zeros_like(ys))
        h_last, c_last = where((lengths > 0)[None], (h_last, c_last), (h, c))
    h, c = (x.reshape(*batch_shape, width) for x in (h_last, c_last))
    return ys.reshape(time, *batch_shape, width), carry._replace(c=c, h=h), None


def pack(w_x: jax.Array, w_h: jax.Array, b: jax.Array) -> jax.Array:
    """All weights as the one vector that cuDNN reads.

    Args:
      w_x: `[F, 4D]`, blocks in the order i f g o, which is cuDNN's, too.
      w_h: `[D, 4D]`.
      b: `[4D]`.

    Returns:
      `[4D (F + D + 2)]`: both matrices, transposed, then the two biases that cuDNN
      adds up, of which the second is zero.
    """
    return jnp.concatenate([w_x.T.ravel(), w_h.T.ravel(), b, jnp.zeros_like(b)])


def _reversed(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """`x [T, B, ...]`, each sequence from its own last step, padding left in place."""
    if lengths is None:
        return x[::-1]
    t = jnp.arange(x.shape[0], dtype=lengths.dtype)[:, None]
    t = jnp.where(t < lengths, lengths - 1 - t, t)  # [T, B]
    # Each step is read once: its gradient is then a scatter that need not add.
    return x.at[t, jnp.arange(x.shape[1])].get(
        unique_indices=True, mode="promise_in_bounds"
    )


def _refuse(what: str, instead: str = 'use engine="vjp"'):
    raise NotImplementedError(f"unroll: engine='cudnn' {what}; {instead}")


def _check_backend() -> None:
    backend = jax.default_backend()
    if backend == "gpu" and "cuda" in get_backend().platform_version:
        return
    came = "a GPU that is not NVIDIA's" if backend == "gpu" else repr(backend)
    _refuse(
        f"wants an NVIDIA GPU, but JAX's default backend is {came}",
        "on a machine with one, pip install 'jax[cuda13]'; "
        'or use engine="vjp", which runs everywhere',
    )


def _check_precision() -> jax.lax.Precision:
    name = jax.config.jax_default_matmul_precision
    if name not in PRECISIONS:
        _refuse(
            f"has no products in jax.default_matmul_precision={name!r}",
            'choose "tensorfloat32" or "float32", or use engine="vjp"',
        )
    return PRECISIONS[name]


def _check_run(cell, params, inputs, carry, time, unroll, remat, every_carry) -> None:
    if cell.equations != "lstm":
        _refuse(
            "runs the plain lstm(features), without options or combinators, but this "
            f"cell has equations={cell.equations!r}"
        )
    if inputs.xs is None:
        _refuse("wants inputs, but xs is None")
    if inputs.is_first is not None:
        _refuse("knows no resets")
    if inputs.mask is not None and inputs.padding is None:
        _refuse(
            "knows no mask, which may have holes",
            'pass lengths [*B] where only the end is padding, or use engine="vjp"',
        )
    if every_carry:
        _refuse("returns the last carry only, but return_carries=True wants all")
    if remat:
        _refuse('has no steps to recompute for remat="step"', "pass remat=K, or None")
    if unroll != 1:
        _refuse(f"has no loop for unroll={unroll}", "leave it out")
    named = {"params": params, "xs": inputs.xs, "carry": carry}
    for name, tree in named.items():
        for leaf in jax.tree.leaves(tree):
            if leaf.dtype != jnp.float32:
                _refuse(f"computes in float32, but {name} has {leaf.dtype}")
    for name in ("xs", "params", "carry"):
        for leaf in jax.tree.leaves(named[name]):
            mesh = jax.typeof(leaf).sharding.mesh
            if mesh.size > 1 or AxisType.Manual in mesh.axis_types:
                _refuse(
                    f"runs on one device, but {name} lives on a mesh of "
                    f"{dict(mesh.shape)}"
                )
    if inputs.xs.size == 0:
        _refuse(f"wants at least one sequence, but xs has shape {inputs.xs.shape}")
    if time > LONGEST:
        _refuse(
            f"reads at most {LONGEST} steps at once, but xs has T={time}",
            'read chunks, by remat=K or tbptt_steps=K, or use engine="vjp"',
        )


@jax.custom_batching.custom_vmap
def _unmapped(lengths: jax.Array, *others: jax.Array) -> jax.Array:
    """`lengths`, unless `jax.vmap` maps any argument: cuDNN's call has no rule."""
    return lengths


@_unmapped.def_vmap
def _(axis_size, mapped, *args):
    _refuse(
        f"knows no jax.vmap, here of {axis_size}",
        'give xs [T, *B, F] one more batch axis, or use engine="vjp"',
    )
