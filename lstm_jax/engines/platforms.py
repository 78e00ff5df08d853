"""Platform-specific strategies for the same computation, chosen at lowering."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.core import Tracer
from jax.experimental.layout import Layout, with_layout_constraint
from jax.extend.core import jaxpr_as_fun

from lstm_jax.cells.convolve import traced_for
from lstm_jax.engines import cpu_matmul
from lstm_jax.engines.deferred import defer


class LoopStrategy(NamedTuple):
    """Choices of an engine for one platform.

    Attributes:
      hoist_projection: all inputs are projected before the loop, else each in its
        step. On CPU writing all projections to memory and reading them back costs
        more than the small products do.
      isolate_reads: a step is read from a stack in a branch of its own, which keeps
        XLA's CPU backend from copying whole stacks where gates take several kernels.
      flatten_time_batch: weights get their gradients with time and batch as one axis.
        On CPU, XLA contracts two at half the speed of one; elsewhere that would undo
        the placement of a batch on many devices.
      conv_wgrad_in_loop: weights of convolutions get theirs step by step, while the
        images of a step are in the cache.
      constrain_layout: lays out stacks in memory with time outermost. TPUs would
        choose another axis, for the sake of a product after the loop, and slow every
        step of it.
      rewrite_matmuls: rewrites a function's matrix products.
    """

    hoist_projection: bool
    isolate_reads: bool
    flatten_time_batch: bool
    conv_wgrad_in_loop: bool
    constrain_layout: Callable[[Any], Any]
    rewrite_matmuls: Callable[[Callable], Callable]


def _time_outermost(tree: Any) -> Any:
    def constrain(x):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        return with_layout_constraint(x, Layout(tuple(range(x.ndim))))

    return jax.tree.map(constrain, tree)


CPU = LoopStrategy(
    hoist_projection=False,
    isolate_reads=True,
    flatten_time_batch=True,
    conv_wgrad_in_loop=True,
    constrain_layout=lambda tree: tree,
    rewrite_matmuls=cpu_matmul.for_cpu,
)
ACCELERATOR = LoopStrategy(
    hoist_projection=True,
    isolate_reads=False,
    flatten_time_batch=False,
    conv_wgrad_in_loop=False,
    constrain_layout=_time_outermost,
    rewrite_matmuls=lambda fun: fun,
)


def by_platform(run: Callable[..., Any], *args: Any) -> Any:
    """`run(strategy, *args)`, with the strategy of the platform it is lowered for.

    So a program exported for several platforms is fast on each. It is traced at once
    for the default backend, and for the other platforms only when a program is lowered
    for one of them.
    """
    leaves, tree = jax.tree.flatten(args)

    def form(platform, strategy):
        def traced(*leaves):
            with traced_for(platform):
                return run(strategy, *jax.tree.unflatten(tree, leaves))

        return traced

    here, there = form("cpu", CPU), form("accelerator", ACCELERATOR)
    if not any(isinstance(leaf, Tracer) for leaf in leaves):  # runs here, and now
        return lax.platform_dependent(*leaves, cpu=here, default=there)
    on_cpu = jax.default_backend() == "cpu"
    if not on_cpu:
        here, there = there, here
    closed, out = jax.make_jaxpr(here, return_shape=True)(*leaves)

    def later(*leaves):
        return jax.tree.leaves(there(*leaves))

    # What one form keeps for its gradient and the other does not is filled up by zeros;
    # in jax 0.7 there are none for keys.
    keys = any(jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) for x in leaves)
    if not keys and not any(isinstance(const, Tracer) for const in closed.consts):
        later = partial(defer, later, closed.out_avals)
    forms = jaxpr_as_fun(closed), later
    cpu, default = forms if on_cpu else forms[::-1]
    found = lax.platform_dependent(*leaves, cpu=cpu, default=default)
    return jax.tree.unflatten(jax.tree.structure(out), found)
