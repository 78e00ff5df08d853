"""Muon: its matrices are orthogonal, its other leaves are Adam's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lstm_jax.training import make_optimizer
from lstm_jax.training.muon import RMS, muon

RNG = np.random.default_rng(0)


def steps(grads, tx):
    """The updates that follow a list of gradients."""
    state, updates = tx.init(grads[0]), []
    with jax.numpy_dtype_promotion("standard"):  # as in the train step
        for g in grads:
            update, state = tx.update(g, state)
            updates.append(update)
    return updates


def normal(*shape):
    return RNG.normal(size=shape).astype("f")


@pytest.mark.parametrize("shape", [(6, 6), (5, 20), (24, 8)])
def test_an_update_is_the_momentum_with_all_singular_values_alike(shape):
    scales = np.geomspace(1, 50, min(shape))  # far from alike in the gradients
    u, _, v = np.linalg.svd(normal(*shape), full_matrices=False)
    grads = [((u * scales) @ v + 0.1 * normal(*shape)).astype("f") for _ in range(4)]
    got = np.float64(steps(grads, muon())[-1])

    momentum = sum(0.05 * 0.95 ** (3 - t) * g for t, g in enumerate(np.float64(grads)))
    ahead = 0.95 * momentum / (1 - 0.95**5) + 0.05 * grads[-1] / (1 - 0.95**4)
    u, _, v = np.linalg.svd(ahead, full_matrices=False)
    inside = u.T @ got @ v.T  # diagonal, if the singular vectors are the same
    norm = np.linalg.norm(got)
    assert np.linalg.norm(inside - np.diag(np.diag(inside))) < 1e-3 * norm
    values = np.diag(inside) * np.sqrt(min(shape)) / norm
    assert (0.6 < values).all() and (values < 1.5).all()  # five iterations
    np.testing.assert_allclose(np.sqrt((got**2).mean()), RMS, rtol=1e-5)


def test_a_kernel_is_the_matrix_of_its_outputs():
    grads = [normal(3, 3, 4, 5) for _ in range(3)]
    flat = steps([g.reshape(36, 5) for g in grads], muon())
    for got, want in zip(steps(grads, muon()), flat, strict=True):
        assert got.shape == (3, 3, 4, 5)
        np.testing.assert_array_equal(got.reshape(36, 5), want)


def test_vectors_and_numbers_are_adams():
    grads = [{"w": normal(3, 4), "b": normal(4), "s": normal()} for _ in range(3)]
    adam = steps(
        [{"b": g["b"], "s": g["s"]} for g in grads], optax.scale_by_adam(nesterov=True)
    )
    for got, want in zip(steps(grads, muon()), adam, strict=True):
        np.testing.assert_array_equal(got["b"], want["b"])
        np.testing.assert_array_equal(got["s"], want["s"])


@pytest.mark.parametrize("leaves", [{}, {"b": np.ones(3, "f")}, {"w": np.ones((2, 3))}])
def test_leaves_of_one_kind_or_none(leaves):
    got = steps([jax.tree.map(jnp.asarray, leaves)], muon())[0]
    assert jax.tree.map(jnp.shape, got) == jax.tree.map(jnp.shape, leaves)


def test_without_gradients_nothing_moves():
    """So that what is frozen stays."""
    zeros = {"w": np.zeros((3, 4), "f"), "b": np.zeros(4, "f")}
    for update in steps([zeros] * 2, muon()):
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(update))


def test_seeds_side_by_side_are_each_their_own():
    grads = [{"w": normal(3, 4, 5), "b": normal(3, 5)} for _ in range(2)]
    tx = make_optimizer("muon", 0.1, clip=1.0)

    def two(first, second):
        state = tx.init(first)
        _, state = tx.update(first, state, first)
        return tx.update(second, state, first)[0]

    with jax.numpy_dtype_promotion("standard"):
        got = jax.vmap(two)(*grads)
        for k in range(3):
            want = two(*jax.tree.map(lambda x: x[k], grads))  # noqa: B023
            jax.tree.map(
                lambda x, y: np.testing.assert_allclose(x[k], y, rtol=1e-4),  # noqa: B023
                got,
                want,
            )
