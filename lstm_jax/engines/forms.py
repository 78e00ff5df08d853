"""How each platform wants the same sums: chosen when a program is lowered for it."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from lstm_jax.engines import products


class Form(NamedTuple):
    """What an engine does so on one platform, and otherwise on another.

    Attributes:
      together: all inputs are projected before the loop, else each in its step. On CPU
        writing all projections to memory and reading them back costs more than the
        small products do.
      alone: a step is read from a stack in a branch of its own, which keeps XLA's CPU
        backend from copying whole stacks where gates take several kernels.
      merged: weights get their gradients with time and batch as one axis. On CPU, XLA
        contracts two at half the speed of one; elsewhere that would undo the placement
        of a batch on many devices.
      stepwise: weights of convolutions get theirs step by step, while the images of a
        step are in the cache.
      pin: lays out stacks in memory with time outermost. TPUs would choose another
        axis, for the sake of a product after the loop, and slow every step of it.
      products: rewrites a function's matrix products.
    """

    together: bool
    alone: bool
    merged: bool
    stepwise: bool
    pin: Callable[[Any], Any]
    products: Callable[[Callable], Callable]


def _time_outermost(tree: Any) -> Any:
    def pin(x):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        return with_layout_constraint(x, Layout(tuple(range(x.ndim))))

    return jax.tree.map(pin, tree)


CPU = Form(
    together=False,
    alone=True,
    merged=True,
    stepwise=True,
    pin=lambda tree: tree,
    products=products.for_cpu,
)
ACCELERATOR = Form(
    together=True,
    alone=False,
    merged=False,
    stepwise=False,
    pin=_time_outermost,
    products=lambda fun: fun,
)


def by_platform(run: Callable[..., Any], *args: Any) -> Any:
    """`run(form, *args)` with the form of the platform that it is lowered for.

    So a program exported for several platforms is fast on each.
    """
    return lax.platform_dependent(
        *args, cpu=partial(run, CPU), default=partial(run, ACCELERATOR)
    )
