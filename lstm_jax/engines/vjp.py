"""One backward pass for every cell, with the weight gradients out of the loop.

Differentiating `lax.scan` adds to every weight gradient at every step: T passes over
the weights, and T roundings in their dtype. The interface of a cell allows better.
Only the carry's gradient is sequential; in reverse it is pulled back through the gates,
which are recomputed from what the forward pass saved, and the recurrent projection.
Weight gradients are products over all T x B at once, after the loop.

Memory limits long sequences, so little is saved:

- if gates use only the sum u + a, the sum is saved, else both;
- a leaf of the carry that the backward step does not read (h of an LSTM, which is only
  an input of the linear projection) is not saved: the step before recomputes it;
- the gradient of each pre-activation overwrites it, and such a leaf of the carry the
  gradient of the outputs: XLA updates a loop's carry in place.

`plan.py` decides, `vjp_forward.py` and `vjp_backward.py` are the two passes.
"""

from functools import partial
from typing import Any

import jax

from lstm_jax.cell import Cell
from lstm_jax.engines.cotangents import instantiate_float0, or_float0
from lstm_jax.engines.plan import Run, make_plan
from lstm_jax.engines.platforms import by_platform
from lstm_jax.engines.reverse_only import reverse_only
from lstm_jax.engines.scan import hoist
from lstm_jax.engines.scan_inputs import ScanInputs
from lstm_jax.engines.vjp_backward import Residuals, backward
from lstm_jax.engines.vjp_forward import forward


def vjp(
    cell: Cell,
    params: Any,
    inputs: ScanInputs,
    carry: Any,
    reset_carry: Any,
    *,
    time: int,
    reverse: bool = False,
    unroll: int = 1,
    remat: bool = False,
    every_carry: bool = False,
    dtype: Any = None,
) -> tuple[Any, Any, Any]:
    """Runs `cell` over a sequence; arguments and results as in `scan`.

    With `remat` only carries are kept: the backward pass recomputes pre-activations,
    of some √T steps at a time.

    Raises:
      TypeError: for forward-mode derivatives; use the engine "scan".
    """
    xs = inputs.xs
    inputs, project = hoist(cell, params, inputs, inputs.keys is not None)
    run = Run(
        cell=cell,
        project=project,
        inputs_ndim=0 if xs is None else xs.ndim - cell.feature_ndim,
        projects=xs is not None and inputs.xs is xs,
        dtype=dtype,
        time=time,
        reverse=reverse,
        unroll=unroll,
        remat=remat,
        every_carry=every_carry,
    )
    plan = make_plan(run, params, inputs, carry)

    @jax.custom_vjp
    def outputs(*args):
        only = partial(forward, plan, differentiated=False)
        return by_platform(lambda strategy, *args: only(strategy, *args)[0], *args)

    def outputs_and_residuals(*args):
        out, saved = by_platform(partial(forward, plan, differentiated=True), *args)
        return out, (args, out[0], saved)

    def gradients(residuals, cotangents):
        (params, xs, carry, reset_carry, others), ys, (states, pre) = residuals
        at = Residuals(
            params, others._replace(xs=xs), carry, reset_carry, ys, states, pre
        )
        like = ys, carry, cotangents[2]
        cotangents = jax.tree.map(instantiate_float0, like, cotangents)
        found = by_platform(partial(backward, plan), at, cotangents)
        pairs = zip((params, xs, carry, reset_carry), found, strict=True)
        return *(jax.tree.map(or_float0, x, d) for x, d in pairs), None

    outputs.defvjp(outputs_and_residuals, gradients)
    at = reverse_only("vjp", (params, inputs.xs, carry, reset_carry))
    return outputs(*at, inputs._replace(xs=None))
