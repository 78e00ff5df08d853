"""What a function reads: found in its jaxpr, for cells that nobody has seen before."""

from collections.abc import Callable
from typing import Any

import jax


def reads(fun: Callable, *args: Any) -> list[bool]:
    """For each leaf of `args`, whether any output of `fun` depends on it."""
    jaxpr = jax.make_jaxpr(fun)(*args).jaxpr
    needed = {id(v) for v in jaxpr.outvars}
    for eqn in reversed(jaxpr.eqns):
        if any(id(v) in needed for v in eqn.outvars):
            needed |= {id(v) for v in eqn.invars}
    return [id(v) in needed for v in jaxpr.invars]


def sums(gates: Callable, u: Any, a: Any) -> list[int | None]:
    """For each leaf of `u`, the leaf of `a` it is added to, if that is its only use.

    Gates that read a pair only as `u.astype(a.dtype) + a` can be evaluated, and pulled
    back, from the sum alone.

    Args:
      gates: `(u, a) -> ...`.
      u: input half of one step.
      a: recurrent half of one step.

    Returns:
      For each leaf of `u` the index of a leaf of `a`, or None.
    """
    jaxpr = jax.make_jaxpr(gates)(u, a).jaxpr
    count = len(jax.tree.leaves(u))
    us, as_ = jaxpr.invars[:count], jaxpr.invars[count:]
    uses = {id(v): [] for v in us + as_}
    for eqn in jaxpr.eqns:
        for v in eqn.outvars:
            uses[id(v)] = []
        for v in eqn.invars:
            if id(v) in uses:  # not a literal or a constant
                uses[id(v)].append(eqn)
    for v in jaxpr.outvars:
        uses.get(id(v), []).append(None)

    def partner(v):
        shape = v.aval.shape
        for name in ("convert_element_type", "add"):
            if len(uses[id(v)]) != 1 or uses[id(v)][0] is None:
                return None
            (eqn,) = uses[id(v)]
            if eqn.primitive.name == "add":
                others = [w for w in eqn.invars if w is not v]
                for at, w in enumerate(as_):
                    if (
                        [w] == others
                        and w.aval.shape == shape
                        and len(uses[id(w)]) == 1
                    ):
                        return at
                return None
            if eqn.primitive.name != name:
                return None
            (v,) = eqn.outvars
        return None

    return [partner(v) for v in us]


def shows(gates: Callable, *args: Any) -> int | None:
    """Which leaf of the carry is also the output of `gates: args -> (carry, y)`."""
    *carry, y = jax.make_jaxpr(gates)(*args).jaxpr.outvars
    return next((at for at, leaf in enumerate(carry) if leaf is y), None)


def elementwise(fun: Callable, *args: Any) -> bool:
    """Whether `fun` has no reduction, product or loop in it."""
    others = ("reduce", "dot", "conv", "arg", "cum", "sort", "scan", "while", "cond")

    def check(jaxpr) -> bool:
        for eqn in jaxpr.eqns:
            name = eqn.primitive.name
            if name.startswith(others) and name != "convert_element_type":
                return False
            for value in eqn.params.values():
                inner = getattr(value, "jaxpr", value)  # of jit, or of a custom_jvp
                if hasattr(inner, "eqns") and not check(inner):
                    return False
        return True

    return check(jax.make_jaxpr(fun)(*args).jaxpr)
