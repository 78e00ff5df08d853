"""Layers, parameters, FLOPs and memory of a network.

`flops` counts operations in the jaxpr, where the length of a scan is known; the
compiler's own count includes the body of a loop only once.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from lstm_jax.bidirectional import bidirectional
from lstm_jax.unroll import unroll


class Flops(NamedTuple):
    """Operations of matrix products; `unknown`: primitives that were not counted."""

    total: int
    unknown: tuple[str, ...] = ()


class Layer(NamedTuple):
    """A part of a network; shapes and FLOPs are per example."""

    name: str
    output: tuple[int, ...] | None
    parameters: int
    flops: int | None


def flops(function: Callable, *args: Any) -> Flops:
    """Floating-point operations of the matrix products and convolutions.

    A multiply-add counts as two; elementwise operations are not counted, zero padding
    of convolutions is. The body of a scan counts once per step, that of a while loop
    once; of the branches of a cond the most expensive counts.

    >>> import jax.numpy as jnp
    >>> flops(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 5)))
    Flops(total=60, unknown=())

    Args:
      function: traced, not run.
      *args: arrays, or `jax.ShapeDtypeStruct`s.

    Returns:
      `Flops`; `unknown` is empty if everything was counted.
    """
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    unknown: dict[str, None] = {}
    return Flops(_count(jaxpr, unknown), tuple(unknown))


def _count(jaxpr: Jaxpr, unknown: dict[str, None]) -> int:
    total = 0
    for eqn in _used(jaxpr):
        name = eqn.primitive.name
        if name == "dot_general":
            total += _dot(eqn)
        elif name == "conv_general_dilated":
            total += _conv(eqn)
        elif name == "scan":
            total += eqn.params["length"] * _count(eqn.params["jaxpr"].jaxpr, unknown)
        elif name == "while":  # the number of iterations depends on the data
            inside = _count(eqn.params["body_jaxpr"].jaxpr, unknown)
            total += inside
            unknown |= {name: None} if inside else {}
        elif name == "cond":
            branches = eqn.params["branches"]
            total += max(_count(branch.jaxpr, unknown) for branch in branches)
        elif name in ("pallas_call", "ffi_call", "ragged_dot_general"):
            unknown[name] = None
        else:
            total += sum(_count(inner, unknown) for inner in _inside(eqn))
    return total


def _used(jaxpr: Jaxpr) -> list:
    """Equations whose results are used; a compiler removes the others."""
    found, read = [], _variables(jaxpr.outvars)
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or not read.isdisjoint(eqn.outvars):
            found.append(eqn)
            read |= _variables(eqn.invars)
    return found


def _variables(atoms) -> set:
    return {atom for atom in atoms if not isinstance(atom, Literal)}


def _dot(eqn) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    depth = math.prod(left[axis] for axis in contracted)
    return 2 * math.prod(eqn.outvars[0].aval.shape) * depth


def _conv(eqn) -> int:
    kernel = eqn.invars[1].aval.shape
    outputs = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    depth = math.prod(kernel) // outputs  # per group: the kernel has its inputs only
    return 2 * math.prod(eqn.outvars[0].aval.shape) * depth


def _inside(eqn) -> list[Jaxpr]:
    """Jaxprs that an equation calls once: of jit, checkpoint, custom derivatives."""
    found = []
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, Jaxpr):
                found.append(item)
    return found


def layers(network: Any, params: Any, shape: Sequence[int]) -> list[Layer]:
    """The parts of a network, in the order of the computation.

    Args:
      network: a `SequenceClassifier`, an `EncoderForecaster` or a `FrameForecaster`; of
        other networks the top-level groups of params are listed, without shapes.
      params: its params, or their shapes.
      shape: of one example, `[H, W, C]`, `[T, H, W, C]` or `[T, F]`.

    Returns:
      One `Layer` each; shapes of sequences begin with T.
    """
    shape = tuple(shape)
    if hasattr(network, "order"):
        return _reader(network, params, shape)
    if hasattr(network, "horizon"):
        return _encoder_forecaster(network, params, shape)
    if hasattr(network, "inputs") and hasattr(network, "patch"):
        steps = shape[0] - 1
        out = _patched(network, (steps, *shape[1:]))
        run = flops(
            lambda p, x: network.apply({"params": p}, x, mutable=["losses"])[0],
            params,
            _array((1, *shape)),
        )
        return [Layer("cell", out, parameters(params), run.total)]
    return [
        Layer(name, None, parameters(group), None) for name, group in params.items()
    ]


def _reader(network, params, shape) -> list[Layer]:
    xs = jax.eval_shape(network.order.to_sequence, _array((1, *shape)))
    rows = [Layer("order", xs.shape[1:], 0, 0)]
    if network.encoder is not None:
        module, frames = network.encoder, _array(xs.shape[1:])  # T frames at once
        inner = {"params": params["encoder"]}
        encoded = jax.eval_shape(module.apply, inner, frames)
        run = flops(module.apply, inner, frames)
        count = parameters(params["encoder"])
        rows.append(Layer("encoder", encoded.shape, count, run.total))
        xs = _array((1, *encoded.shape))
    xs = _array((xs.shape[1], 1, *xs.shape[2:]))  # [T, B, *F]
    options = dict(engine=network.engine, dtype=network.dtype)
    for number, cell in enumerate(network.cells):
        name = f"layer_{number}"
        own = params[name]
        if network.bidirectional:
            own = own, params[f"{name}_backward"]

        def run(own, xs, cell=cell):
            if network.bidirectional:
                return bidirectional((cell, cell), own, xs, **options).ys
            return unroll(cell, own, xs, **options).ys

        rows.append(_layer(name, run, own, xs))
        xs = jax.eval_shape(run, own, xs)
    steps = xs.shape[:1] if network.per_step else ()
    rows.append(_head(params, (*steps, network.outputs)))
    return rows


def _encoder_forecaster(network, params, shape) -> list[Layer]:
    seen = shape[0] - network.horizon
    xs = _array(_patched(network, (seen, *shape[1:]), batch=1))
    options = dict(engine=network.engine, remat=network.remat, dtype=network.dtype)
    rows, carries = [], []
    for number, cell in enumerate(network.cells):

        def read(own, xs, cell=cell):
            return unroll(cell, own, xs, **options)

        name = f"encoder_{number}"
        rows.append(_layer(name, lambda *a, f=read: f(*a).ys, params[name], xs))
        xs, carry = jax.eval_shape(read, params[name], xs)
        carries.append(carry)
    ys = None
    for number, cell in reversed(list(enumerate(network.cells))):
        length = network.horizon if ys is None else None

        def write(own, ys, carry, cell=cell, length=length):
            return unroll(cell, own, ys, carry, length=length, **options).ys

        name = f"forecaster_{number}"
        given = params[name], ys, carries[number]
        rows.append(_layer(name, write, *given))
        ys = jax.eval_shape(write, *given)
    rows.append(_head(params, _patched(network, (network.horizon, *shape[1:]))))
    return rows


def _layer(name, run, own, *inputs) -> Layer:
    ys = jax.eval_shape(run, own, *inputs)
    output = ys.shape[:1] + ys.shape[2:]  # [T, *F]
    return Layer(name, output, parameters(own), flops(run, own, *inputs).total)


def _head(params, output) -> Layer:
    products = math.prod(output[:-1]) * math.prod(params["head"]["kernel"].shape)
    return Layer("head", output, parameters(params["head"]), 2 * products)


def _patched(network, shape, batch: int | None = None) -> tuple[int, ...]:
    """Shape of the patches of frames, `[T, (B,) H/p, W/p, C p p]`."""
    time, height, width, channels = shape
    p = network.patch
    middle = () if batch is None else (batch,)
    return (time, *middle, height // p, width // p, channels * p * p)


def _array(shape) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(shape), jnp.float32)


def parameters(params: Any) -> int:
    """Number of parameters in a pytree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def tree_bytes(tree: Any) -> int:
    """Size in bytes of a pytree of arrays or shapes; keys count as their data."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def temporary_bytes(compiled: Any) -> int | None:
    """Memory of a compiled program in addition to arguments and results, bytes.

    Args:
      compiled: `jax.jit(function).lower(*args).compile()`.

    Returns:
      Bytes; None if the backend does not report it.
    """
    size = getattr(compiled.memory_analysis(), "temp_size_in_bytes", None)
    return None if size is None else int(size)
