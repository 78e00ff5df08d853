"""Rewrites matrix products in a function's jaxpr to the form that is fastest on CPU.

XLA's CPU backend packs the second matrix of a product again in every call. If that is
a large weight matrix multiplied by few rows, packing costs more than the product; with
the weights first, only the rows are packed. Products contracted over rows, as in weight
gradients, are packed from columns, which is slow as well.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

# Where it was measured to be faster, `docs/performance.md`.
ROWS = range(8, 128)
WEIGHTS = 2**18
GRADIENTS = 2**21


def for_cpu(fun: Callable) -> Callable:
    """`fun`, its matrix products in the faster form of two that are equal.

        x @ w       as  (wᵀ @ xᵀ)ᵀ      for 8 to 127 rows and 2¹⁸ weights or more
        xᵀ @ d      as  xᵀ made first, then multiplied, for 2²¹ sums or more

    Args:
      fun: any function of pytrees of arrays.

    Returns:
      A function of the same arguments, with the same results but for rounding.
    """

    def run(*args):
        closed, shape = jax.make_jaxpr(fun, return_shape=True)(*args)
        if not _gains(closed.jaxpr):
            return fun(*args)
        out = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return run


def _form(eqn) -> Callable | None:
    """The faster form of a product; None for other equations and other shapes."""
    if eqn.primitive.name != "dot_general":
        return None
    (contracted, batch) = eqn.params["dimension_numbers"]
    a, b = (v.aval for v in eqn.invars)
    if batch != ((), ()) or a.ndim != 2 or b.ndim != 2:
        return None
    if contracted == ((0,), (0,)):
        gains = a.shape[1] * b.shape[1] >= GRADIENTS and a.shape[0] > a.shape[1]
        return _columns_first if gains else None
    if contracted[0] == (1,) and a.shape[0] in ROWS and b.size >= WEIGHTS:
        return _weights_first
    return None


def _weights_first(x, w, *, dimension_numbers, **how):
    ((_, (axis,)), _) = dimension_numbers
    w = w if axis == 1 else _copied(w.T)
    return _copied(_product(w, _copied(x.T), **how)).T


def _columns_first(a, b, *, dimension_numbers, **how):
    if a.shape[1] <= b.shape[1]:
        return _product(_copied(a.T), b, **how)
    return _copied(_product(_copied(b.T), a, **how)).T


def _product(a, b, **how):
    return lax.dot_general(a, b, (((1,), (0,)), ((), ())), **how)


def _copied(x):
    """Keeps XLA from folding a transpose into a product: the data is copied."""
    return lax.optimization_barrier(x)


def _gains(jaxpr) -> bool:
    inner = (_inlined(eqn) for eqn in jaxpr.eqns)
    return any(_form(eqn) for eqn in jaxpr.eqns) or any(
        closed is not None and _gains(closed.jaxpr) for closed in inner
    )


def _inlined(eqn):
    """The jaxpr of a function under jit, such as `jnp.matmul`."""
    return eqn.params["jaxpr"] if eqn.primitive.name in ("jit", "pjit") else None


def _used(eqn) -> list:
    return [v for v in eqn.outvars if type(v).__name__ != "DropVar"]


def _evaluate(jaxpr, consts: list, args: list) -> list[Any]:
    values = dict(zip(jaxpr.constvars + jaxpr.invars, [*consts, *args], strict=True))

    def read(v):
        return v.val if hasattr(v, "val") else values[v]  # a literal has its value

    for eqn in jaxpr.eqns:
        inputs = [read(v) for v in eqn.invars]
        form, closed = _form(eqn), _inlined(eqn)
        if form is not None:
            how = dict(
                precision=eqn.params["precision"],
                preferred_element_type=eqn.params["preferred_element_type"],
            )
            numbers = eqn.params["dimension_numbers"]
            out = [form(*inputs, dimension_numbers=numbers, **how)]
        elif closed is not None:
            out = _evaluate(closed.jaxpr, closed.consts, inputs)
        else:
            read_by = list({v: None for v in eqn.invars if not hasattr(v, "val")})
            alone = jaxpr.replace(
                constvars=[], invars=read_by, outvars=_used(eqn), eqns=[eqn]
            )
            out = jaxpr_as_fun(ClosedJaxpr(alone, ()))(*map(read, read_by))
        values.update(zip(_used(eqn), out, strict=True))
    return [read(v) for v in jaxpr.outvars]
