"""Functions that are traced only when a program that contains them is lowered."""

from collections.abc import Callable

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def defer(fun: Callable, out_types: list, *args: jax.Array) -> list[jax.Array]:
    """`fun(*args)`, traced only when it is lowered.

    Differentiated, it is traced at once.

    Args:
      fun: `(*arrays) -> list of arrays`, that closes over no tracer.
      out_types: what `jax.typeof` says of its results.
      *args: its arguments.
    """
    return _deferred_p.bind(
        *args, fun=_in_this_context(fun), out_types=tuple(out_types)
    )


def _in_this_context(fun: Callable) -> Callable:
    """`fun`, traced under what is configured here and now."""
    config = jax.config
    precision, promotion = (
        config.jax_default_matmul_precision,
        config.jax_numpy_dtype_promotion,
    )
    mesh = jax.sharding.get_abstract_mesh()

    def run(*args):
        with (
            jax.default_matmul_precision(precision),
            jax.numpy_dtype_promotion(promotion),
            jax.sharding.use_abstract_mesh(mesh),
        ):
            return fun(*args)

    return run


def _lower(context, *args, fun, out_types):
    return mlir.lower_fun(fun, multiple_results=True)(context, *args)


def _batch(args, axes, *, fun, out_types):
    in_axes = tuple(axes)  # None for what is not mapped, as in `jax.vmap`
    mapped = zip(args, axes, strict=True)
    size = next(x.shape[at] for x, at in mapped if at is not None)
    batched = jax.vmap(fun, in_axes, axis_size=size)
    out_axes = (0,) * len(out_types)
    if not jax.sharding.get_abstract_mesh().empty:  # the types say more than shapes
        return batched(*args), out_axes
    types = [
        ShapedArray((size, *t.shape), t.dtype, weak_type=t.weak_type) for t in out_types
    ]
    return defer(batched, types, *args), out_axes


def _jvp(primals, tangents, *, fun, out_types):
    tangents = [ad.instantiate_zeros(t) for t in tangents]
    return jax.jvp(fun, tuple(primals), tuple(tangents))


_deferred_p = Primitive("deferred")
_deferred_p.multiple_results = True
_deferred_p.def_impl(lambda *args, fun, out_types: fun(*args))
_deferred_p.def_abstract_eval(lambda *_, fun, out_types: list(out_types))
batching.primitive_batchers[_deferred_p] = _batch
ad.primitive_jvps[_deferred_p] = _jvp
mlir.register_lowering(_deferred_p, _lower)
