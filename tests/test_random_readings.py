"""Hypothesis throws masks, lengths and resets at both engines and the NumPy loop."""

import os
from functools import cache, partial

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import CASES
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lstm_jax import unroll

FEW = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
# All ten thousand take three minutes: RANDOM_READINGS=10000.
MANY = settings(FEW, max_examples=int(os.environ.get("RANDOM_READINGS", 2000)))


@cache
def program(name, reverse):
    """`vjp`: everything it returns, and its gradients beside those of `scan`."""

    def loss(engine, params, xs, carry, options):
        cell = CASES[name].cell
        options = options | dict(engine=engine, reverse=reverse, return_carries=True)
        out = unroll(cell, params, xs, carry, **options)
        leaves = [out.ys, *jax.tree.leaves((out.carry, out.carries))]
        return sum(jnp.sin(leaf + 1).sum() for leaf in leaves), out

    def run(*at):
        grads, out = jax.grad(partial(loss, "vjp"), (0, 1, 2), has_aux=True)(*at)
        wanted, _ = jax.grad(partial(loss, "scan"), (0, 1, 2), has_aux=True)(*at)
        return out, grads, wanted

    return jax.jit(run)


@st.composite
def readings(draw, shapes=((1, 1), (4, 3), (7, 2))):
    """A cell, a direction, few shapes, and anything to read in them."""
    time, batch = draw(st.sampled_from(shapes))
    options = {"lengths": draw(arrays(int, batch, elements=st.integers(0, time)))}
    if draw(st.booleans()):
        options["mask"] = draw(arrays(bool, (time, batch)))
        options["resets"] = draw(arrays(bool, (time, batch)))
    name = draw(st.sampled_from(["lstm-everything", "gru", "unit"]))
    return name, draw(st.booleans()), (time, batch), options


def check(reading):
    name, reverse, (time, batch), options = reading
    at = conformance.problem(name, batch=batch, time=time)
    out, grads, wanted_grads = program(name, reverse)(*at, options)
    ys, states = conformance.reading_in_numpy(name, *at, options, reverse)
    # Float64 on both sides, in another order of summation.
    close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
    close(out.ys, ys)
    for carries, wanted in zip(jax.tree.leaves(out.carries), states, strict=True):
        close(carries, wanted)
    jax.tree.map(close, grads, wanted_grads)


@pytest.mark.usefixtures("x64")
@seed(784)
@FEW
@given(readings(shapes=[(4, 3)]))
def test_a_few_random_readings_equal_the_numpy_loop(reading):
    check(reading)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@seed(784)
@MANY
@given(readings())
def test_many_random_readings_equal_the_numpy_loop(reading):
    check(reading)
