"""What every conversion is held to, and the sizes that all of them use."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

T, B, F, D, P = 3, 2, 3, 4, 2
LAYERS = {"lstm": 4, "gru": 3, "rnn": 1}  # blocks of gates


def draw(seed, *shape):
    """Float64; of a size that brings gates to neither end."""
    return 0.5 * np.random.default_rng(seed).standard_normal(shape)


def ours(kind, inputs=F, *, proj_size=None, kernel=(), gru_bias=True):
    """Random params of our cell, as NumPy's float64."""
    outputs, gates = proj_size or D, LAYERS[kind] * D
    params = {
        "w_x": draw(1, *kernel, inputs, gates),
        "w_h": draw(2, *kernel, outputs, gates),
        "b": draw(3, gates),
    }
    if kind == "lstm":
        params["b"][D : 2 * D] += (
            1  # where Sterbenz's lemma holds: 1 goes and comes back
        )
    if kind == "gru":
        params["b_n"] = draw(4, D) if gru_bias else np.zeros(D)
    if proj_size:
        params["w_p"] = draw(5, D, proj_size)
    return params


def identical(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


def close(got, want):
    """The same float64 sums in another order."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def loss(ys, states):
    """A number that every output and final state moves, each in its own way."""
    total = (ys * jnp.cos(jnp.arange(ys.size, dtype=ys.dtype)).reshape(ys.shape)).sum()
    return total + sum(jnp.sin(2 * s).sum() for s in jax.tree.leaves(states))


def agree(run, their_run, *at):
    """Both give the same outputs, final states and gradients, in float64.

    Args:
      run, their_run: `(their weights, xs, states) -> (ys, final states)`, ours through
        the conversion, so that gradients compare on their weights.
      *at: where.
    """

    def graded(run):
        def value(*at):
            ys, states = run(*at)
            return loss(ys, states), (ys, states)

        return jax.grad(value, argnums=tuple(range(len(at))), has_aux=True)

    # Small sums, run once: it is compiling that takes time.
    quick = {"xla_backend_optimization_level": 0}

    @partial(jax.jit, compiler_options=quick)
    def both(at):
        got = graded(run)(*at)
        # Other libraries are not written for strict promotion of dtypes.
        with jax.numpy_dtype_promotion("standard"):
            return got, graded(their_run)(*at)

    got, want = both(jax.tree.map(jnp.asarray, at))
    close(got[1], want[1])
    close(got[0], want[0])
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(got[0]))
