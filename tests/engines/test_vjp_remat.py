"""The engine "vjp": chunks of its backward pass, and the memory that it saves."""

from functools import partial

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import CASES
from selection import slow

from lstm_jax import unroll

QUICK = ["lstm"]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name, options",
    [
        # T = 7 leaves a shorter chunk, before the others in one direction.
        slow("lstm-proj", {}),  # what is not saved is found again between chunks
        ("lstm-proj", {"reverse": True}),
        ("lstm", {"remat": "step"}),
        slow("stack", {}),
        slow("st-lstm", {"reverse": True}),
        slow("gru", {"remat": "step", "reverse": True}),
    ],
)
def test_chunks_of_the_backward_pass_have_the_gradients_of_scan(name, options):
    at = conformance.problem(name, time=7)

    def loss(engine, params, xs, carry):
        run = partial(unroll, CASES[name].cell, engine=engine, **options)
        ys, last = run(params, xs, carry)
        leaves = jax.tree.leaves(last)
        return (ys**2).sum() + sum(jnp.sin(leaf).sum() for leaf in leaves)

    wanted, got = (
        jax.jit(jax.grad(partial(loss, engine), (0, 1, 2)))(*at)
        for engine in ("scan", "vjp")
    )
    # The same sums in another order, in float64.
    close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-11)
    jax.tree.map(close, got, wanted)


def temporaries(name, **options) -> int:
    """Bytes that XLA counts for the gradient, T = 144."""
    make = partial(conformance.problem, name, jnp.float32, batch=8, time=144)
    params, xs, _ = jax.eval_shape(make)

    def loss(params, xs):
        return (unroll(CASES[name].cell, params, xs, **options).ys ** 2).sum()

    compiled = jax.jit(jax.grad(loss)).lower(params, xs).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.optimized
@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES],
)
def test_remat_uses_less_memory(name):
    sizes = {
        remat: temporaries(name, engine="vjp", remat=remat)
        for remat in (None, "step", "sqrt")
    }
    assert sizes["sqrt"] < sizes["step"]
    if name.startswith("rnn"):
        # One vector a step is all that either keeps.
        assert sizes["step"] <= 1.02 * sizes[None]
    else:
        assert sizes["step"] < 0.9 * sizes[None]


@pytest.mark.optimized
@pytest.mark.parametrize(
    "name", ["lstm", pytest.param("stack", marks=pytest.mark.slow)]
)
def test_half_of_what_scan_keeps(name):
    vjp, scan = (temporaries(name, engine=engine) for engine in ("vjp", "scan"))
    assert vjp <= 0.51 * scan
