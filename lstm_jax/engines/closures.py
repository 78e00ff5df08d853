"""Checks that a cell's functions close over no traced values."""

import functools
import types
from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer


def refuse_tracers(gates: Callable, consts: list) -> None:
    """Raises ValueError if `gates` closes over values under a transformation.

    Args:
      gates: of a cell.
      consts: of its jaxpr.

    Raises:
      ValueError: if one of `consts` is a tracer, with its name.
    """
    tracers = [c for c in consts if isinstance(c, Tracer)]
    if not tracers:
        return
    names = [_name(gates, tracer) for tracer in tracers]
    what = ", ".join(
        f"{name or 'an array'} {jax.typeof(t)}"
        for name, t in zip(names, tracers, strict=True)
    )
    raise ValueError(
        f"unroll: the cell's gates close over {what}, a value that JAX is "
        'transforming, and engine="vjp" cannot differentiate by it; pass it as '
        'consts=, which reach gates in every step, or use engine="scan"'
    )


def _name(function: Any, wanted: Tracer) -> str | None:
    """The name under which `function` closes over `wanted`, however deep."""
    seen: set[int] = set()

    def search(thing):
        if id(thing) in seen:
            return None
        seen.add(id(thing))
        if isinstance(thing, functools.partial):
            return search(thing.func) or search((thing.args, thing.keywords))
        if isinstance(thing, tuple | list):
            return next(filter(None, map(search, thing)), None)
        if isinstance(thing, dict):
            return search(list(thing.values()))
        if not isinstance(thing, types.FunctionType):
            return None
        for name, cell in zip(
            thing.__code__.co_freevars, thing.__closure__ or (), strict=True
        ):
            try:
                value = cell.cell_contents
            except ValueError:  # not bound yet
                continue
            if any(leaf is wanted for leaf in jax.tree.leaves(value)):
                return name
            if found := search(value):
                return found
        return None

    return search(function)
