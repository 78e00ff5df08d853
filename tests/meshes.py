"""Cells of the table on a mesh of 4 x 2: `python meshes.py NAME:ENGINE ...`."""

import sys
from functools import partial

import conformance
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from lstm_jax import unroll

T, B = 3, 4  # an example on each of the four devices of axis "data"
SIZES, AXES = (4, 2), ("data", "model")
BATCH = (P(None, "data"), P("data"), P(None, "data"))


def problem(name):
    """Params, inputs, lengths and resets of a case."""
    params, xs, _ = conformance.problem(name, jnp.float32, batch=B, time=T)
    resets = np.random.default_rng(2).random((T, B)) < 0.3
    return params, xs, jnp.arange(B) % (T + 1), jnp.asarray(resets)


def loss(name, engine, params, xs, lengths, resets):
    options = dict(lengths=lengths, resets=resets, engine=engine, reverse=True)
    ys, carry = unroll(conformance.CASES[name].cell, params, xs, **options)
    return (ys**2).sum() + sum((c**2).sum() for c in jax.tree.leaves(carry))


def over_model(params):
    """The last axis of each leaf over the axis "model", where it has two halves."""

    def spec(leaf):
        split = leaf.ndim > 0 and leaf.shape[-1] % 2 == 0
        return P(*(None,) * (leaf.ndim - 1), "model") if split else P()

    return jax.tree.map(spec, params)


def two(params):
    """Two sets of params, along a first axis."""
    return jax.tree.map(lambda p: jnp.stack([p, 0.5 * p]), params)


def sharded(mesh, loss, specs):
    """The loss over the mesh; with `P("model")`, of two sets of params, and both."""

    def one(params, *batch):
        if specs == P():
            return jax.lax.psum(loss(params, *batch), "data")
        params = jax.tree.map(lambda p: p[0], params)
        return jax.lax.psum(loss(params, *batch), AXES)

    return jax.shard_map(one, mesh=mesh, in_specs=(specs, *BATCH), out_specs=P())


def run(name, engine):
    """Raises an AssertionError if a way to use the mesh gives other numbers."""
    params, *batch = problem(name)
    pair = two(params)
    alone = jax.jit(jax.value_and_grad(partial(loss, name, "scan")))
    one, other = (
        alone(jax.tree.map(lambda p, at=at: p[at], pair), *batch) for at in range(2)
    )
    total = one[0] + other[0], jax.tree.map(lambda *g: jnp.stack(g), one[1], other[1])
    inner = partial(loss, name, engine)

    def same(got, want):
        # Float32, summed in another order.
        close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
        jax.tree.map(close, got, want)

    def place(mesh, spec, leaf):
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    for kind in (AxisType.Explicit, AxisType.Auto):
        mesh = jax.make_mesh(SIZES, AXES, axis_types=(kind,) * 2)
        specs = (over_model(params), *BATCH)
        at = jax.tree.map(partial(place, mesh), specs, (params, *batch))
        with jax.set_mesh(mesh):
            same(jax.jit(jax.value_and_grad(inner))(*at), one)
    both = jax.value_and_grad(sharded(mesh, inner, P("model")))
    same(jax.jit(both)(pair, *batch), total)
    spread = jax.value_and_grad(sharded(mesh, inner, P()))
    same(jax.jit(spread)(params, *batch), one)


if __name__ == "__main__":
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    for word in sys.argv[1:]:
        run(*word.split(":"))
        print("equal", word, flush=True)
