"""`unroll` on several devices, in every way JAX has to use them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import conformance
from lstm_jax import unroll

T, B = 5, 8
jax.config.update("jax_numpy_dtype_promotion", "strict")
for name in sys.argv[1:]:
    cell = conformance.CASES[name].cell
    params, xs, _ = conformance.problem(name, jnp.float32, batch=B, time=T)
    lengths = jnp.arange(B) % (T + 1)
    resets = jax.random.bernoulli(jax.random.key(2), 0.2, (T, B))
    for engine in ("scan", "vjp"):

        def loss(params, xs, lengths, resets):
            options = dict(lengths=lengths, resets=resets, engine=engine, reverse=True)
            ys, carry = unroll(cell, params, xs, **options)
            return (ys**2).sum() + sum((c**2).sum() for c in jax.tree.leaves(carry))

        at = (params, xs, lengths, resets)
        want, want_grads = jax.jit(jax.value_and_grad(loss))(*at)

        def same(value, grads):
            np.testing.assert_allclose(value, want, rtol=1e-5)  # float32, other sums
            close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
            jax.tree.map(close, grads, want_grads)

        specs = (P(), P(None, "data"), P("data"), P(None, "data"))
        for kind in (AxisType.Auto, AxisType.Explicit):
            mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
            put = [jax.device_put(a, NamedSharding(mesh, s)) for a, s in zip(at, specs)]
            with jax.set_mesh(mesh):
                same(*jax.jit(jax.value_and_grad(loss))(*put))

        mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
        spread = jax.shard_map(
            lambda *at: jax.lax.psum(loss(*at), "data"),
            mesh=mesh, in_specs=specs, out_specs=P(),
        )
        same(*jax.jit(jax.value_and_grad(spread))(*at))

        split = lambda a, axis: jnp.stack(jnp.split(a, 4, axis))
        values, grads = jax.pmap(jax.value_and_grad(loss), in_axes=(None, 0, 0, 0))(
            params, split(xs, 1), split(lengths, 0), split(resets, 1)
        )
        same(values.sum(), jax.tree.map(lambda g: g.sum(0), grads))
        print("equal", name, engine, flush=True)
"""


def check(*names):
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names], env=env, capture_output=True, text=True
    )
    wanted = [f"equal {name} {engine}" for name in names for engine in ("scan", "vjp")]
    assert out.stdout.splitlines() == wanted, out.stderr[-3000:]


def test_auto_explicit_shard_map_and_pmap_agree():
    check("lstm")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["lstm-everything", "gru", "conv-lstm", "composed", "repeat", "dropout"]
)
def test_auto_explicit_shard_map_and_pmap_agree_for_other_cells(name):
    check(name)
