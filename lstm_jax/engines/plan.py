"""Decides what the forward pass saves and how both passes run."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.cell import Cell
from lstm_jax.engines.closures import refuse_tracers
from lstm_jax.engines.cotangents import pull_back
from lstm_jax.engines.jaxpr_analysis import (
    SplitGates,
    contracted_params,
    depends_on,
    elementwise,
    fused_adds,
    output_alias,
    read_params,
    split_gates,
    trace_step,
)
from lstm_jax.engines.platforms import LoopStrategy
from lstm_jax.engines.scan import gates
from lstm_jax.engines.scan_inputs import ScanInputs


class PreActivations(NamedTuple):
    """`a`, with what of `u` is only added to it; the rest of `u`."""

    a: Any
    rest: list


class Run(NamedTuple):
    """Static arguments of an engine's run.

    Attributes:
      cell: the cell.
      project: `(params, inputs_t) -> u_t`, of one step.
      inputs_ndim: axes of xs before the features, time included; 0 without xs.
      projects: whether xs hold inputs, else projections.
      dtype, time, reverse, unroll, remat, every_carry: as in `scan`.
    """

    cell: Cell
    project: Any
    inputs_ndim: int
    projects: bool
    dtype: Any
    time: int
    reverse: bool
    unroll: int
    remat: bool
    every_carry: bool


class Plan(NamedTuple):
    """Decisions about a cell, from analysing its functions.

    Attributes:
      run: what is asked.
      saved: for each leaf of the carry, whether it is kept. The others are what the
        step before returns.
      vector_params: for each leaf of the params, whether the gates read it and it is
        none of `large_params`: its gradient is summed in the loop.
      matrix_params: whether it is one: its gradient is one of all steps of a chunk.
      fused_operand: for each leaf of u, the leaf of a it is only ever added to, or
        None.
      u_dtypes, u_tree: of the leaves of u, and its structure.
      a_dtypes, a_tree: the same of a.
      one_kernel: whether gates are elementwise, and read one stack.
      split_gates: gates as a function of what they split that stack into, or None.
      output_is_state: whether one leaf of the carry is not saved, and it is the output.
      output_like_state: whether one leaf is not saved, and it fits into the outputs.
    """

    run: Run
    saved: list[bool]
    vector_params: list[bool]
    matrix_params: list[bool]
    fused_operand: list[int | None]
    u_dtypes: list[Any]
    u_tree: Any
    a_dtypes: list[Any]
    a_tree: Any
    one_kernel: bool
    split_gates: SplitGates | None
    output_is_state: bool
    output_like_state: bool

    @property
    def recomputed(self) -> list[bool]:
        """For each leaf of the carry, whether it is not saved."""
        return [not saved for saved in self.saved]

    @property
    def chunk(self) -> int:
        """Steps that the backward pass treats at once: T, or some √T to save memory.

        Where pre-activations are recomputed, or gates hold matrices, it would keep
        more of each step than the forward pass did.
        """
        time = self.run.time
        if time < 4 or not (self.run.remat or any(self.matrix_params)):
            return time
        root = math.isqrt(time)
        whole = [n for n in range(root // 2 + 1, 2 * root + 1) if time % n == 0]
        return min(whole, key=lambda n: abs(n - root), default=root)

    def decide(self, strategy: LoopStrategy) -> "Decisions":
        """What both passes do on a platform."""
        isolates = strategy.isolate_reads
        in_place = isolates or self.one_kernel
        output_is_state = not isolates and self.output_is_state
        state_in_outputs = in_place and self.output_like_state and not output_is_state
        feature_ndim = self.run.cell.feature_ndim
        hoists = strategy.hoist_projection and self.run.projects
        return Decisions(
            strategy=strategy,
            hoist_projection=hoists,
            overwrite_inputs=hoists and self.one_kernel and not self.run.remat,
            in_place=in_place,
            split_gates=None if isolates else self.split_gates,
            output_is_state=output_is_state,
            state_in_outputs=state_in_outputs,
            conv_wgrad_in_loop=strategy.conv_wgrad_in_loop and feature_ndim > 1,
        )

    def join(self, u: Any, a: Any) -> PreActivations:
        """The pre-activations of `u` and `a`."""
        rest, (leaves, tree) = [], jax.tree.flatten(a)
        for u_leaf, at in zip(jax.tree.leaves(u), self.fused_operand, strict=True):
            if at is None:
                rest.append(u_leaf)
            else:
                z = u_leaf.astype(leaves[at].dtype) + leaves[at]
                leaves[at] = z.astype(u_leaf.dtype)
        return PreActivations(jax.tree.unflatten(tree, leaves), rest)

    def part(self, pre: PreActivations) -> tuple[Any, Any]:
        """`(u, a)` of the same gates, with zeros in `u` for what was added."""
        a = self.a_of(pre)
        return self._u(pre._replace(a=a), jnp.zeros_like), a

    def a_of(self, pre: PreActivations) -> Any:
        """Pre-activations or their gradients in the dtypes of `a`."""
        leaves = zip(jax.tree.leaves(pre.a), self.a_dtypes, strict=True)
        return jax.tree.unflatten(self.a_tree, [x.astype(d) for x, d in leaves])

    def gradient_of_u(self, d_pre: PreActivations) -> Any:
        """What reaches `u`: the gradient of a sum is that of its terms."""
        return self._u(d_pre, lambda d_a, dtype: d_a.astype(dtype))

    def _u(self, pre: PreActivations, of_added) -> Any:
        leaves, rest = jax.tree.leaves(pre.a), iter(pre.rest)
        both = zip(self.fused_operand, self.u_dtypes, strict=True)
        return jax.tree.unflatten(
            self.u_tree,
            [next(rest) if i is None else of_added(leaves[i], d) for i, d in both],
        )


class Decisions(NamedTuple):
    """What both passes do on one platform.

    Attributes:
      strategy: of the platform.
      hoist_projection: all inputs are projected before the forward loop.
      overwrite_inputs: pre-activations take the place of projected inputs: one stack
        where there were two.
      in_place: gradients of pre-activations take the place of these. Gates that
        reduce, or read two stacks, do so in several kernels. XLA would then copy whole
        stacks in every step, to keep them from being overwritten, unless steps are
        read from them alone.
      split_gates: gates read each piece by a read of its own: whole, the pieces would
        be converted first, in a kernel more.
      output_is_state: the leaf that is not saved is read from the outputs.
      state_in_outputs: it is written over the gradients of outputs, one step ahead of
        where they are read, and read from what was written: XLA would copy whole
        stacks otherwise.
      conv_wgrad_in_loop: weights of convolutions get their gradients step by step.
    """

    strategy: LoopStrategy
    hoist_projection: bool
    overwrite_inputs: bool
    in_place: bool
    split_gates: SplitGates | None
    output_is_state: bool
    state_in_outputs: bool
    conv_wgrad_in_loop: bool


def large_params(cell: Any, params: Any, step: Any) -> list[bool]:
    """For each leaf of the params, whether gates contract it, and it is large.

    Of a cell over images, what has no more axes than an image is small beside the maps
    of a step, such as the `[D, 4D]` of a 1x1 convolution: to keep these maps for a
    product after the loop takes more memory than to sum in it.
    """
    images = cell.feature_ndim > 1
    most = cell.feature_ndim + cell.params_batch_ndim
    return [
        contracted and not (images and leaf.ndim <= most)
        for leaf, contracted in zip(
            jax.tree.leaves(params), contracted_params(step), strict=True
        )
    ]


def make_plan(run: Run, params: Any, inputs: ScanInputs, carry: Any) -> Plan:
    """Looks at one step: for shapes and jaxprs only, XLA drops what it computes."""
    cell = run.cell
    inputs_t = jax.tree.map(lambda x: x[0], inputs)
    u, a = run.project(params, inputs_t), cell.recur(params, carry)
    step = trace_step(partial(gates, cell), params, carry, u, a)
    refuse_tracers(cell.gates, step.closed.consts)

    def pulled(carry):
        out, pull = pull_back(step.run, params, carry, u, a)
        _, pull_recur = pull_back(partial(cell.recur, params), carry)
        return pull(out), pull_recur(a)

    everything = run.remat or inputs.mask is not None or inputs.is_first is not None
    leaves = jax.tree.leaves(carry)
    saved = [
        everything or read or not jnp.issubdtype(leaf.dtype, jnp.inexact)
        for leaf, read in zip(leaves, depends_on(pulled, carry), strict=True)
    ]
    read, products = read_params(step), large_params(cell, params, step)
    fused = fused_adds(step)
    u_leaves, u_tree = jax.tree.flatten(u)
    a_leaves, a_tree = jax.tree.flatten(a)
    one_kernel = fused == [0] and len(a_leaves) == 1 and elementwise(step)
    only = saved.index(False) if saved.count(False) == 1 else None
    _, y = step.out
    return Plan(
        run=run,
        saved=saved,
        vector_params=[r and not p for r, p in zip(read, products, strict=True)],
        matrix_params=[r and p for r, p in zip(read, products, strict=True)],
        fused_operand=fused,
        u_dtypes=[leaf.dtype for leaf in u_leaves],
        u_tree=u_tree,
        a_dtypes=[leaf.dtype for leaf in a_leaves],
        a_tree=a_tree,
        one_kernel=one_kernel,
        split_gates=split_gates(step) if one_kernel else None,
        output_is_state=only is not None and output_alias(step) == only,
        output_like_state=only is not None
        and (y.shape, jnp.dtype(run.dtype)) == (leaves[only].shape, leaves[only].dtype),
    )
