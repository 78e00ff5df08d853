"""What cells draw: first biases, and noise that is new for each step and layer."""

import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax import Cell, dropout, gru, lstm, stack, step, unroll, zoneout

T, B, D = 4, 50, 6
KEY = jax.random.key(7)
ONES = jnp.ones((T, B, D))


def identity() -> Cell:
    """Puts out its input."""

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        return jnp.zeros(batch_shape, dtype)

    return Cell(
        init=lambda key, feature_shape, dtype=jnp.float32: (),
        carry=carry,
        project=lambda params, xs, *, keys=None: xs,
        recur=lambda params, carry: carry,
        gates=lambda params, carry, u, a: (carry, u),
    )


def outputs(cell, params):
    return np.asarray(unroll(cell, params, ONES, key=KEY, engine="scan").ys)


def test_the_forget_bias_is_in_the_second_block():
    b = lstm(D, forget_bias=1.5).init(KEY, (2,))["b"]
    np.testing.assert_array_equal(b, np.repeat([0, 1.5, 0, 0], D))


def test_dropout_draws_in_each_step_and_scales_what_it_keeps():
    ys = outputs(dropout(identity(), 0.25), ())
    np.testing.assert_allclose(np.unique(ys), [0, 1 / 0.75], rtol=1e-6)
    # 1,200 draws: a standard error of 0.0125.
    assert abs((ys > 0).mean() - 0.75) < 0.05
    assert not (ys[0] == ys[1]).all() and not (ys[0] == ys[2]).all()
    whole = outputs(dropout(identity(), 0.25, variational=True), ())
    assert (whole == whole[0]).all()


def test_layers_of_a_stack_draw_apart():
    cell = dropout(identity(), 0.5)
    ys = outputs(stack(cell, cell), ((), ()))
    # Kept by both: a quarter; were their masks the same, half. A standard error of
    # 0.0125 over 1,200 draws.
    assert abs((ys > 0).mean() - 0.25) < 0.05


def test_zoneout_in_evaluation_is_the_mean():
    plain, x = gru(D), ONES[0, :, :2]
    params = plain.init(KEY, (2,))
    old = jax.tree.map(lambda leaf: leaf + 0.5, plain.carry(params, (B,), (2,)))
    new, _ = step(plain, params, old, plain.project(params, x))
    cell = zoneout(plain, 0.3)
    got, y = step(cell, params, old, cell.project(params, x))
    np.testing.assert_allclose(got.h, 0.3 * old.h + 0.7 * new.h, atol=1e-6)  # float32
    np.testing.assert_array_equal(y, got.h)
