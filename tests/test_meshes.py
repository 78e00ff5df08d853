"""`unroll` on several devices, in every way JAX has to use them."""

import os
import subprocess
import sys

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from lstm_jax import lstm, rnn, unroll

T, B, F, D = 5, 8, 3, 4
for make in (lstm, rnn):
    cell = make(D)
    params = cell.init(jax.random.key(0), (F,))
    xs = jax.random.normal(jax.random.key(1), (T, B, F))
    lengths = jnp.arange(B) % (T + 1)

    def loss(params, xs, lengths):
        ys, carry = unroll(cell, params, xs, lengths=lengths, reverse=True)
        return (ys**2).sum() + (carry.h**2).sum()

    want, want_grads = jax.value_and_grad(loss)(params, xs, lengths)

    def same(value, grads):
        np.testing.assert_allclose(value, want, rtol=1e-5)  # float32, other sums
        for leaf, wanted in zip(jax.tree.leaves(grads), jax.tree.leaves(want_grads)):
            np.testing.assert_allclose(leaf, wanted, rtol=1e-4, atol=1e-5)

    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
        put = lambda a, spec: jax.device_put(a, NamedSharding(mesh, spec))
        args = (put(params, P()), put(xs, P(None, "data")), put(lengths, P("data")))
        if kind == AxisType.Auto:
            same(*jax.jit(jax.value_and_grad(loss))(*args))
        else:
            with jax.set_mesh(mesh):
                same(*jax.jit(jax.value_and_grad(loss))(*args))

    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    spread = jax.shard_map(
        lambda p, x, n: jax.lax.psum(loss(p, x, n), "data"),
        mesh=mesh, in_specs=(P(), P(None, "data"), P("data")), out_specs=P(),
    )
    same(*jax.value_and_grad(spread)(params, xs, lengths))

    split = lambda a, axis: jnp.stack(jnp.split(a, 4, axis))
    values, grads = jax.pmap(jax.value_and_grad(loss), in_axes=(None, 0, 0))(
        params, split(xs, 1), split(lengths, 0)
    )
    same(values.sum(), jax.tree.map(lambda g: g.sum(0), grads))
print("equal")
"""


def test_auto_explicit_shard_map_and_pmap_agree():
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True
    )
    assert out.stdout.strip() == "equal", out.stderr[-3000:]
