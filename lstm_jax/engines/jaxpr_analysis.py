"""Dependence analysis of functions by their jaxprs, for arbitrary cells."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

# What contracts its operands, or reads a part of one.
PRODUCTS = ("dot_general", "ragged_dot", "conv_general_dilated", "gather")


def depends_on(fun: Callable, *args: Any) -> list[bool]:
    """For each leaf of `args`, whether any output of `fun` depends on it."""
    return _used(jax.make_jaxpr(fun)(*args).jaxpr)


class StepJaxpr(NamedTuple):
    """The gates of a cell, traced once: `(params, carry, u, a) -> (carry, y)`.

    Attributes:
      closed: their jaxpr.
      out: shapes of `(carry, y)`.
      params, carry, u, a: variables of the jaxpr, one for each leaf.
    """

    closed: ClosedJaxpr
    out: Any
    params: list
    carry: list
    u: list
    a: list

    def run(self, *args: Any) -> tuple[Any, Any]:
        """The gates, evaluated from the jaxpr."""
        out = jaxpr_as_fun(self.closed)(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(self.out), out)


def trace_step(gates: Callable, params: Any, carry: Any, u: Any, a: Any) -> StepJaxpr:
    """Traces `gates: (params, carry, u, a) -> (carry, y)` of one step."""
    args = params, carry, u, a
    closed, out = jax.make_jaxpr(gates, return_shape=True)(*args)
    variables = iter(closed.jaxpr.invars)
    groups = [[next(variables) for _ in jax.tree.leaves(arg)] for arg in args]
    return StepJaxpr(closed, out, *groups)


def read_params(step: StepJaxpr) -> list[bool]:
    """For each leaf of the params, whether the gates read it."""
    return _used(step.closed.jaxpr)[: len(step.params)]


def contracted_params(step: StepJaxpr) -> list[bool]:
    """For each leaf of the params, whether a product or convolution contracts it.

    That is, whether one has an operand that is made of it, and of nothing else but
    other params.
    """
    jaxpr = step.closed.jaxpr
    made_of = dict.fromkeys(jaxpr.constvars, frozenset())
    made_of |= dict.fromkeys(jaxpr.invars)
    made_of |= {v: frozenset({at}) for at, v in enumerate(step.params)}
    found = _contracted(jaxpr, made_of)
    return [at in found for at in range(len(step.params))]


def _contracted(jaxpr, made_of: dict) -> set[int]:
    """Which params are contracted.

    Args:
      jaxpr: equations to look at.
      made_of: of what each variable is made: params alone, or None.
    """
    found = set()
    for eqn in jaxpr.eqns:
        sources = [frozenset() if _is_literal(v) else made_of[v] for v in eqn.invars]
        known = frozenset().union(*filter(None, sources))
        if eqn.primitive.name in PRODUCTS:
            found |= known
        for inner in _inner(eqn):
            if len(inner.invars) == len(sources):
                within = dict(zip(inner.invars, sources, strict=True))
            else:  # of a loop or a branch: any of them
                within = dict.fromkeys(inner.invars, known)
            within |= dict.fromkeys(inner.constvars, frozenset())
            found |= _contracted(inner, within)
        made_of |= dict.fromkeys(eqn.outvars, None if None in sources else known)
    return found


def _inner(eqn) -> Iterator:
    """The jaxprs in an equation: of jit, of a loop, of branches."""
    for value in eqn.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(one, "jaxpr", one)
            if hasattr(inner, "eqns"):
                yield inner


def fused_adds(step: StepJaxpr) -> list[int | None]:
    """For each leaf of `u`, the leaf of `a` it is added to, if that is its only use.

    Gates that read a pair only as `u.astype(a.dtype) + a` can be evaluated, and pulled
    back, from the sum alone.

    Returns:
      For each leaf of `u` the index of a leaf of `a`, or None.
    """
    jaxpr, as_ = step.closed.jaxpr, step.a
    uses = {id(v): [] for v in step.u + as_}
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

    return [partner(v) for v in step.u]


class SplitGates(NamedTuple):
    """Gates as a function of the pieces that they split u + a into.

    Attributes:
      run: `(params, carry, pieces) -> ...`.
      sizes: of the pieces, along their last axis.
    """

    run: Callable
    sizes: list[int]


def split_gates(step: StepJaxpr) -> SplitGates | None:
    """How gates that read one array of each half split the sum; None if they do not.

    They read u only as a term of u + a; u and a have one leaf each.
    """
    closed = step.closed
    jaxpr = closed.jaxpr
    (a,) = step.a
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
    inputs = step.params + step.carry + list(split.outvars)
    rest = jaxpr.replace(invars=inputs, eqns=rest)
    # What only led to the sum, as a cast of u, reads what is not there any more.
    rest = rest.replace(eqns=_needed(rest))

    def run(params, carry, pieces):
        leaves = jax.tree.leaves((params, carry, pieces))
        out = jaxpr_as_fun(ClosedJaxpr(rest, closed.consts))(*leaves)
        return jax.tree.unflatten(jax.tree.structure(step.out), out)

    return SplitGates(run, [int(size) for size in split.params["sizes"]])


def output_alias(step: StepJaxpr) -> int | None:
    """Which leaf of the carry is also the output."""
    *carry, y = step.closed.jaxpr.outvars
    return next((at for at, leaf in enumerate(carry) if leaf is y), None)


def elementwise(step: StepJaxpr) -> bool:
    """Whether the gates have no reduction, product or loop in them."""
    others = ("reduce", "dot", "conv", "arg", "cum", "sort", "scan", "while", "cond")

    def check(jaxpr) -> bool:
        for eqn in jaxpr.eqns:
            name = eqn.primitive.name
            if name.startswith(others) and name != "convert_element_type":
                return False
            if not all(map(check, _inner(eqn))):
                return False
        return True

    return check(step.closed.jaxpr)


def _used(jaxpr) -> list[bool]:
    """For each input of `jaxpr`, whether an output depends on it."""
    needed = _read_by(jaxpr.replace(eqns=_needed(jaxpr)))
    return [v in needed for v in jaxpr.invars]


def _read_by(jaxpr) -> set:
    """What any equation or output of `jaxpr` reads."""
    everything = [v for eqn in jaxpr.eqns for v in eqn.invars] + jaxpr.outvars
    return {v for v in everything if not _is_literal(v)}


def _needed(jaxpr) -> list:
    """The equations that its outputs depend on, in order."""
    needed, eqns = {v for v in jaxpr.outvars if not _is_literal(v)}, []
    for eqn in reversed(jaxpr.eqns):
        if any(v in needed for v in eqn.outvars):
            needed |= {v for v in eqn.invars if not _is_literal(v)}
            eqns.append(eqn)
    return eqns[::-1]


def _is_literal(v) -> bool:
    return hasattr(v, "val")
