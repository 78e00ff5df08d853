"""What a function reads: found in its jaxpr, for cells that nobody has seen before."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun


def depends_on(fun: Callable, *args: Any) -> list[bool]:
    """For each leaf of `args`, whether any output of `fun` depends on it."""
    jaxpr = jax.make_jaxpr(fun)(*args).jaxpr
    needed = _read_by(jaxpr.replace(eqns=_needed(jaxpr)))
    return [v in needed for v in jaxpr.invars]


def fused_adds(gates: Callable, u: Any, a: Any) -> list[int | None]:
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


class SplitGates(NamedTuple):
    """Gates as a function of the pieces that they split u + a into.

    Attributes:
      run: `(params, carry, pieces) -> ...`.
      sizes: of the pieces, along their last axis.
    """

    run: Callable
    sizes: list[int]


def split_gates(
    gates: Callable, params: Any, carry: Any, u: Any, a: Any
) -> SplitGates | None:
    """How gates that read one array of each half split the sum; None if they do not.

    Args:
      gates: `(params, carry, u, a) -> ...`, that read u only as a term of u + a.
      params, carry: of the cell.
      u, a: halves of one step, of one leaf each.
    """
    closed, shape = jax.make_jaxpr(gates, return_shape=True)(params, carry, u, a)
    jaxpr = closed.jaxpr
    *others, _, a = jaxpr.invars
    (added,) = [eqn for eqn in jaxpr.eqns if a in eqn.invars]
    (z,) = added.outvars
    uses = [eqn for eqn in jaxpr.eqns if z in eqn.invars]
    if z in jaxpr.outvars or [eqn.primitive.name for eqn in uses] != ["split"]:
        return None
    (split,) = uses
    all_read = _read_by(jaxpr).issuperset(split.outvars)
    if split.params["axis"] != z.aval.ndim - 1 or not all_read:
        return None
    rest = [eqn for eqn in jaxpr.eqns if eqn is not added and eqn is not split]
    rest = jaxpr.replace(invars=others + list(split.outvars), eqns=rest)
    # What only led to the sum, as a cast of u, reads what is not there any more.
    rest = rest.replace(eqns=_needed(rest))

    def run(params, carry, pieces):
        leaves = jax.tree.leaves((params, carry, pieces))
        out = jaxpr_as_fun(ClosedJaxpr(rest, closed.consts))(*leaves)
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return SplitGates(run, [int(size) for size in split.params["sizes"]])


def _read_by(jaxpr) -> set:
    """What any equation or output of `jaxpr` reads."""
    everything = [v for eqn in jaxpr.eqns for v in eqn.invars] + jaxpr.outvars
    return {v for v in everything if not hasattr(v, "val")}  # literals have one


def _needed(jaxpr) -> list:
    """The equations that its outputs depend on, in order."""
    needed, eqns = {v for v in jaxpr.outvars if not hasattr(v, "val")}, []
    for eqn in reversed(jaxpr.eqns):
        if any(v in needed for v in eqn.outvars):
            needed |= {v for v in eqn.invars if not hasattr(v, "val")}
            eqns.append(eqn)
    return eqns[::-1]


def output_alias(gates: Callable, *args: Any) -> int | None:
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
