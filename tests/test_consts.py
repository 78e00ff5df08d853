"""Loop constants: what gates read in every step beside params."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import autoregressive, bidirectional, lstm, unroll

T, B, D = 5, 2, 3


def problem():
    """An LSTM of 4 features whose outputs come back as 3 by a matrix."""
    cell = autoregressive(lstm(4), feedback=lambda y, w: jnp.tanh(y @ w))
    keys = jax.random.split(jax.random.key(0), 3)
    params = cell.init(keys[0], (D,))
    w = jax.random.normal(keys[1], (4, D))
    carry = cell.carry(params, (B,), (D,))
    noise = jax.random.normal(keys[2], carry.y.shape)
    return cell, params, w, carry._replace(y=noise)


def loss(cell, engine, params, w, carry, **options):
    run = partial(unroll, cell, params, None, carry, length=T, engine=engine)
    return (run(consts=w, **options).ys ** 2).sum()


def test_gradients_by_loop_constants_equal_those_by_what_scan_closes_over():
    cell, params, w, carry = problem()

    def closed_over(params, w, carry):
        cell = autoregressive(lstm(4), feedback=lambda y: jnp.tanh(y @ w))
        run = partial(unroll, cell, params, None, carry, length=T)
        return (run(engine="scan").ys ** 2).sum()

    runs = closed_over, partial(loss, cell, "scan"), partial(loss, cell, "vjp")
    wanted, *others = jax.jit(
        lambda *at: [jax.grad(run, (0, 1, 2))(*at) for run in runs]
    )(params, w, carry)
    for got in others:  # float32, in another order
        close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
        jax.tree.map(close, got, wanted)


def test_loop_constants_are_not_stacked():
    cell, params, w, carry = problem()
    jaxpr = jax.make_jaxpr(jax.grad(partial(loss, cell, "vjp"), 1))(params, w, carry)
    # T of it would have the shape [5, 4, 3].
    assert "f32[4,3]" in str(jaxpr) and "f32[5,4,3]" not in str(jaxpr)


def test_a_value_under_a_gradient_that_gates_close_over_is_named():
    _, params, w, carry = problem()

    def closed_over(mixing):
        cell = autoregressive(lstm(4), feedback=lambda y: y @ mixing)
        return unroll(cell, params, None, carry, length=T).ys.sum()

    with pytest.raises(ValueError, match=r"close over mixing float32\[4,3\].*consts="):
        jax.grad(closed_over)(w)


@pytest.mark.parametrize("wrap", [lambda cell: cell, autoregressive])
def test_a_cell_that_reads_no_constants_refuses_them(wrap):
    """Also one whose feedback takes outputs alone."""
    cell = wrap(lstm(D))
    params = cell.init(jax.random.key(0), (D,))
    with pytest.raises(ValueError, match="gates do not read any"):
        unroll(cell, params, jnp.zeros((T, B, D)), consts=jnp.ones(3))


def test_loop_constants_go_with_a_key():
    cell = autoregressive(lstm(4), feedback=lambda y, w: y @ w, sampling=0.5)
    params = cell.init(jax.random.key(0), (D,))
    xs, w = jnp.ones((T, B, D)), jnp.ones((4, D))
    run = partial(unroll, cell, params, xs, consts=w)
    ys = [run(key=jax.random.key(n)).ys for n in (0, 1)]
    assert np.abs(np.asarray(ys[0] - ys[1])).max() > 1e-6


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_both_directions_read_loop_constants(platform, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    cell = autoregressive(lstm(4), feedback=lambda y, w: y @ w)
    params = cell.init(jax.random.key(0), (D,))
    xs, w = jax.random.normal(jax.random.key(1), (T, B, D)), jnp.ones((4, D))
    ys = bidirectional((cell, cell), (params, params), xs, consts=w).ys
    there = unroll(cell, params, xs, consts=w).ys
    back = unroll(cell, params, xs, consts=w, reverse=True).ys
    wanted = jnp.concatenate([there, back], axis=-1)
    np.testing.assert_allclose(ys, wanted, atol=1e-6)  # float32, another order
