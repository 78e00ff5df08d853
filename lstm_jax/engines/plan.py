"""What the backward pass keeps of a step, found by looking at a cell's functions."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lstm_jax.engines.gradients import pull_back
from lstm_jax.engines.reading import Apart, apart, elementwise, reads, shows, sums
from lstm_jax.engines.scan import gates


class Pre(NamedTuple):
    """Pre-activations: `a`, with what of `u` is only added to it; the rest of `u`."""

    a: Any
    rest: list


class Plan(NamedTuple):
    """What to keep of a step, found by looking at the cell's functions.

    Attributes:
      kept: for each leaf of the carry, whether it is kept.
      small: for each leaf of the params, whether the gates read it as a vector.
      large: the same for those that are matrices or kernels.
      partners: for each leaf of u, the leaf of a it is only ever added to, or None.
      dtypes, tree: of the leaves of u, and its structure.
      a_dtypes, a_tree: the same of a.
      one_kernel: whether gates are elementwise, and read one stack.
      apart: gates as a function of what they split that stack into, or None.
      shown: whether one leaf of the carry is not kept, and it is the output.
    """

    kept: list[bool]
    small: list[bool]
    large: list[bool]
    partners: list[int | None]
    dtypes: list[Any]
    tree: Any
    a_dtypes: list[Any]
    a_tree: Any
    one_kernel: bool
    apart: Apart | None
    shown: bool

    def join(self, u: Any, a: Any) -> Pre:
        """The pre-activations of `u` and `a`."""
        rest, (leaves, tree) = [], jax.tree.flatten(a)
        for u_leaf, at in zip(jax.tree.leaves(u), self.partners, strict=True):
            if at is None:
                rest.append(u_leaf)
            else:
                z = u_leaf.astype(leaves[at].dtype) + leaves[at]
                leaves[at] = z.astype(u_leaf.dtype)
        return Pre(jax.tree.unflatten(tree, leaves), rest)

    def part(self, pre: Pre) -> tuple[Any, Any]:
        """`(u, a)` of the same gates, with zeros in `u` for what was added."""
        a = self.wide(pre)
        return self._u(pre._replace(a=a), jnp.zeros_like), a

    def wide(self, pre: Pre) -> Any:
        """Pre-activations or their gradients in the dtypes of `a`."""
        leaves = zip(jax.tree.leaves(pre.a), self.a_dtypes, strict=True)
        return jax.tree.unflatten(self.a_tree, [x.astype(d) for x, d in leaves])

    def gradient_of_u(self, d_pre: Pre) -> Any:
        """What reaches `u`: the gradient of a sum is that of its terms."""
        return self._u(d_pre, lambda d_a, dtype: d_a.astype(dtype))

    def _u(self, pre: Pre, of_added) -> Any:
        leaves, rest = jax.tree.leaves(pre.a), iter(pre.rest)
        both = zip(self.partners, self.dtypes, strict=True)
        return jax.tree.unflatten(
            self.tree,
            [next(rest) if i is None else of_added(leaves[i], d) for i, d in both],
        )


def make_plan(cell, project, params, steps, carry, remat) -> Plan:
    # Of the first step, for shapes and jaxprs only: XLA drops what it computes.
    steps_t = jax.tree.map(lambda x: x[0], steps)
    u, a = project(params, steps_t), cell.recur(params, carry)
    partners = sums(lambda u, a: gates(cell, params, carry, u, a), u, a)

    def pulled(carry):
        (new, y), pull = pull_back(partial(gates, cell), params, carry, u, a)
        _, pull_recur = pull_back(partial(cell.recur, params), carry)
        return pull((new, y)), pull_recur(a)

    everything = remat or steps.mask is not None or steps.starts is not None
    kept = [
        everything or read or not jnp.issubdtype(leaf.dtype, jnp.inexact)
        for leaf, read in zip(jax.tree.leaves(carry), reads(pulled, carry), strict=True)
    ]
    own = reads(lambda params: gates(cell, params, carry, u, a), params)
    most = cell.feature_ndim + cell.copies
    vector = [leaf.ndim <= most for leaf in jax.tree.leaves(params)]
    small = [o and v for o, v in zip(own, vector, strict=True)]
    large = [o and not v for o, v in zip(own, vector, strict=True)]
    u_leaves, tree = jax.tree.flatten(u)
    dtypes = [leaf.dtype for leaf in u_leaves]
    a_leaves, a_tree = jax.tree.flatten(a)
    a_dtypes = [leaf.dtype for leaf in a_leaves]
    one_stack = partners == [0] and len(a_leaves) == 1
    one_kernel = one_stack and elementwise(partial(gates, cell), params, carry, u, a)
    pieces = apart(partial(gates, cell), params, carry, u, a) if one_kernel else None
    lacking = kept.count(False)
    shown = lacking == 1 and shows(partial(gates, cell), params, carry, u, a) == (
        kept.index(False)
    )
    u_facts, a_facts = (dtypes, tree), (a_dtypes, a_tree)
    return Plan(
        kept, small, large, partners, *u_facts, *a_facts, one_kernel, pieces, shown
    )
