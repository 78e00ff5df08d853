"""Hypothesis throws masks, lengths and resets at both engines and the NumPy loop.

Padding may hold NaN, and the carry may be the cell's own; a sequence with randomness,
run in chunks, must equal the whole.
"""

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
# How many, such as RANDOM_READINGS=20000.
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


NAMES = "lstm-everything", "gru", "unit"


@st.composite
def readings(draw, shapes=((1, 1), (4, 3), (7, 2)), names=NAMES):
    """A cell, a direction, few shapes, and anything to read in them."""
    time, batch = draw(st.sampled_from(shapes))
    options = {"lengths": draw(arrays(int, batch, elements=st.integers(0, time)))}
    if draw(st.booleans()):
        options["mask"] = draw(arrays(bool, (time, batch)))
        options["resets"] = draw(arrays(bool, (time, batch)))
    name = draw(st.sampled_from(names))
    given_carry, nan = draw(st.booleans()), draw(st.booleans())
    return name, draw(st.booleans()), (time, batch), options, given_carry, nan


def check(reading):
    name, reverse, (time, batch), options, given_carry, nan = reading
    params, xs, carry = conformance.problem(name, batch=batch, time=time)
    if not given_carry:
        carry = jax.tree.map(jnp.zeros_like, carry)  # as the cells' own are
    ys, states = conformance.reading_in_numpy(name, params, xs, carry, options, reverse)
    if nan:
        valid = np.arange(time)[:, None] < options["lengths"]
        valid &= options.get("mask", True)
        xs = jnp.where(valid[..., None], xs, jnp.nan)
    out, grads, wanted_grads = program(name, reverse)(params, xs, carry, options)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    # Float64 on both sides, in another order of summation.
    close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
    close(out.ys, ys)
    for carries, wanted in zip(jax.tree.leaves(out.carries), states, strict=True):
        close(carries, wanted)
    jax.tree.map(close, grads, wanted_grads)


@pytest.mark.usefixtures("x64")
@seed(784)
@FEW
@given(readings(shapes=[(4, 3)], names=["gru"]))
def test_a_few_random_readings_equal_the_numpy_loop(reading):
    check(reading)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@seed(784)
@MANY
@given(readings())
def test_many_random_readings_equal_the_numpy_loop(reading):
    check(reading)


@cache
def chunked(name, reverse):
    """A run with randomness, and the same in two chunks: `[whole, chunks]`."""
    cell, cut = CASES[name].cell, 3

    def run(params, xs, mask, resets, key):
        options = dict(reverse=reverse, key=key)
        whole = unroll(cell, params, xs, mask=mask, resets=resets, **options)
        parts, carry = {}, None
        chunks = [(0, slice(None, cut)), (cut, slice(cut, None))]
        for first, at in reversed(chunks) if reverse else chunks:
            starts = None if resets is None else resets[at]
            options |= dict(mask=mask[at], resets=starts, first_step=first)
            parts[first], carry = unroll(cell, params, xs[at], carry, **options)
        return whole, (jnp.concatenate([parts[0], parts[cut]]), carry)

    return jax.jit(run)


def check_chunks(name, reverse, mask, resets, number):
    params, xs, _ = conformance.problem(name, batch=2, time=7)
    # In reverse, a reset at the first step of a chunk acts in the chunk before it.
    resets = None if reverse else resets
    whole, chunks = chunked(name, reverse)(
        params, xs, mask, resets, jax.random.key(number)
    )
    close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)  # float64
    jax.tree.map(close, jax.tree.leaves(chunks), jax.tree.leaves(tuple(whole)))


def chunks(names):
    return given(
        st.sampled_from(names),
        st.booleans(),
        arrays(bool, (7, 2)),
        arrays(bool, (7, 2)),
        st.integers(0, 2**31),
    )


@pytest.mark.usefixtures("x64")
@seed(784)
@FEW
@chunks(["dropout"])
def test_a_few_random_runs_in_chunks_equal_the_whole(
    name, reverse, mask, resets, number
):
    check_chunks(name, reverse, mask, resets, number)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@seed(784)
@MANY
@chunks(conformance.RANDOM)
def test_many_random_runs_in_chunks_equal_the_whole(
    name, reverse, mask, resets, number
):
    check_chunks(name, reverse, mask, resets, number)
