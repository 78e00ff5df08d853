"""The parallel part of the backward pass: gradients of weights and inputs."""

from functools import partial
from typing import Any

import jax
from jax import lax

from lstm_jax.engines.cotangents import (
    accumulate,
    accumulators,
    add,
    add_leaves,
    pull_back,
    replace,
    select,
)
from lstm_jax.engines.plan import Decisions, Plan
from lstm_jax.engines.scan import gates
from lstm_jax.engines.stacks import is_sharded, project_all, recur_all
from lstm_jax.engines.vjp_loop import Found


def weight_gradients(
    plan: Plan, decisions: Decisions, params: Any, time: int, chunk: Any, found: Found
) -> tuple[Any, Any]:
    """`(d_params, d_xs)` of the `time` steps of a `Chunk`."""
    d_us, d_a = plan.gradient_of_u(found.d_pre), plan.a_of(found.d_pre)
    at = plan, decisions, params
    if decisions.conv_wgrad_in_loop:
        d_params, d_xs = _step_by_step(*at, chunk.inputs, found.carries, d_us, d_a)
    else:
        d_params, d_xs = _at_once(*at, time, chunk.inputs, found.carries, d_us, d_a)
    d_params = add_leaves(d_params, plan.vector_params, found.d_vectors)
    if any(plan.matrix_params):
        d_matrices = _within_gates(*at, chunk.pre, found.carries, found.d_out)
        d_params = add_leaves(d_params, plan.matrix_params, d_matrices)
    return d_params, d_xs


def _at_once(plan, decisions, params, time, inputs, carries, d_us, d_a):
    """Products over all steps."""
    strategy = decisions.strategy

    def pull(fun, *args):
        return strategy.rewrite_matmuls(pull_back(fun, *args)[1])

    def recur(params):
        return recur_all(plan, strategy, params, carries, inputs.xs)

    def project(params, xs):
        inputs_of = inputs._replace(xs=xs)
        return project_all(plan, strategy, time, params, inputs_of)

    (d_params,) = pull(recur, params)(d_a)
    if not plan.run.projects:
        if inputs.xs is not None:
            return d_params, d_us
        (d_project,) = pull(lambda params: project(params, None), params)(d_us)
        return add(d_params, d_project), None
    d_project, d_xs = pull(project, params, inputs.xs)(d_us)
    return add(d_params, d_project), d_xs


def _step_by_step(plan, decisions, params, inputs, carries, d_us, d_a):
    """Sums over steps: the images of one are in the cache."""

    def add_step(total, at_t):
        inputs_t, carry, gradients = at_t

        def halves(params, x):
            u_t = plan.run.project(params, inputs_t._replace(xs=x))
            return u_t, plan.run.cell.recur(params, carry)

        _, pull = pull_back(halves, params, inputs_t.xs)
        d_t, d_x = pull(gradients)
        return accumulate(total, d_t), d_x

    return lax.scan(add_step, accumulators(params), (inputs, carries, (d_us, d_a)))


def _within_gates(plan, decisions, params, pre, carries, d_out) -> list:
    """Gradients of the matrices that gates hold."""
    matrices = select(params, plan.matrix_params)

    def run(matrices, carry, pre):
        own = replace(params, plan.matrix_params, matrices)
        return gates(plan.run.cell, own, carry, *plan.part(pre))

    # Convolutions on a mesh with explicit axes, too, step by step: they would make one
    # axis of time and of a batch that is sharded.
    images = plan.run.cell.feature_ndim > 1
    if not decisions.conv_wgrad_in_loop and not (images and is_sharded(d_out)):
        run_all = jax.vmap(run, (None, 0, 0))
        _, pull = pull_back(lambda matrices: run_all(matrices, carries, pre), matrices)
        return pull(d_out)[0]

    def add_step(total, at_t):
        carry, pre, gradients = at_t
        _, pull = pull_back(partial(run, carry=carry, pre=pre), matrices)
        return accumulate(total, pull(gradients)[0]), None

    return lax.scan(add_step, accumulators(matrices), (carries, pre, d_out))[0]
