"""What is traced for other platforms only when a program is lowered for one."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import lstm, unroll
from lstm_jax.engines.deferred import defer
from lstm_jax.engines.platforms import by_platform

KEY = jax.random.key(0)


def counted():
    """A run that counts for which platform it is traced, and what it is to give."""
    traced = Counter()

    def run(strategy, x, y):
        traced["cpu" if strategy.isolate_reads else "accelerator"] += 1
        return jnp.sin(x) * y, {"sum": (x * y).sum(-1)}

    return run, traced


def test_a_program_is_traced_once_and_for_another_platform_when_lowered_for_it():
    run, traced = counted()
    x = jnp.arange(3.0)
    program = jax.jit(lambda x: by_platform(run, x, 2 * x)).trace(x)
    assert traced == {"cpu": 1}
    program.lower()
    assert traced == {"cpu": 1}
    program.lower(lowering_platforms=("tpu",))
    assert traced == {"cpu": 1, "accelerator": 1}
    program.lower(lowering_platforms=("cpu", "tpu"))
    assert traced["accelerator"] == 2


def test_where_the_default_backend_is_no_cpu_that_form_waits(monkeypatch):
    run, traced = counted()
    x = jnp.arange(3.0)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    program = jax.jit(lambda x: by_platform(run, x, x)).trace(x)
    assert traced == {"accelerator": 1}
    # The other form, not the one that was traced, is what runs on this CPU.
    got, found = program.lower().compile()(x)
    assert traced == {"accelerator": 1, "cpu": 1}
    np.testing.assert_allclose(got, np.sin(x) * x, rtol=1e-6)
    np.testing.assert_allclose(found["sum"], (x * x).sum(), rtol=1e-6)


def test_what_waits_is_mapped_and_differentiated():
    x = jnp.arange(6.0).reshape(2, 3)
    out = [jax.typeof(x[0])]

    def run(x, y):
        (z,) = defer(lambda x, y: [x * jnp.sin(y)], out, x, y)
        return z

    wanted = lambda x, y: x * jnp.sin(y)  # noqa: E731
    got = jax.jit(jax.vmap(run, (0, None)))(x, x[1])
    np.testing.assert_allclose(got, wanted(x, x[1]), rtol=1e-6)
    got = jax.jit(jax.grad(lambda x: run(x, x).sum()))(x[1])
    want = jax.grad(lambda x: wanted(x, x).sum())(x[1])
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_what_waits_keeps_the_precision_that_it_was_traced_under():
    def run(strategy, x):
        return x @ x

    with jax.default_matmul_precision("highest"):
        program = jax.jit(lambda x: by_platform(run, x)).trace(jnp.ones((2, 2)))
    for platform in ("cpu", "tpu"):
        assert "HIGHEST" in program.lower(lowering_platforms=(platform,)).as_text()


def test_a_value_that_is_closed_over_reaches_every_platform():
    cell = lstm(2)
    params = cell.init(jax.random.key(0), (2,))
    scaled = lambda scale: cell._replace(  # noqa: E731
        recur=lambda p, carry: scale * cell.recur(p, carry)
    )

    def run(scale, xs):
        return unroll(scaled(scale), params, xs).ys

    xs = jnp.ones((3, 1, 2))
    program = jax.jit(run).trace(2.0, xs)
    for platform in ("cpu", "tpu"):
        program.lower(lowering_platforms=(platform,))
    want = jax.jit(lambda scale: unroll(scaled(scale), params, xs, engine="scan").ys)
    got = program.lower().compile()(2.0, xs)
    np.testing.assert_allclose(got, want(2.0), rtol=1e-5)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_seeds_of_a_vmap_run_in_either_form(backend, monkeypatch):
    cell = lstm(2)
    params = jax.vmap(lambda key: cell.init(key, (2,)))(jax.random.split(KEY, 2))
    xs = jnp.ones((3, 1, 2))

    def loss(params, engine):
        return (unroll(cell, params, xs, engine=engine).ys ** 2).sum()

    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    got, want = (
        jax.jit(jax.vmap(jax.grad(lambda p, e=e: loss(p, e))))(params)
        for e in ("vjp", "scan")
    )
    # The same sums in another order, of float32.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), got, want)
