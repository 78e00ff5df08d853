"""`unroll` on several devices, in every way JAX has to use them, for every cell."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import meshes
import pytest
from conformance import CASES
from forced_devices import forced_devices
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from selection import slow_but

from lstm_jax import (
    LSTMCarry,
    autoregressive,
    gru,
    lstm,
    recurrent_dropout,
    stack,
    unroll,
    zoneout,
)
from lstm_jax.cells.autoregressive import AutoregressiveCarry

ENGINES = ("scan", "vjp")
SOME = "lstm-everything", "conv-gru"


def loops(jaxpr, within=False):
    """Names of the primitives within the loops of a jaxpr."""
    for eqn in jaxpr.eqns:
        if within:
            yield eqn.primitive.name
        for value in eqn.params.values():
            for one in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(one, "jaxpr", one)
                if hasattr(inner, "eqns"):
                    yield from loops(inner, within or eqn.primitive.name == "scan")


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", slow_but(CASES, *SOME))
def test_gradients_on_a_mesh_lie_as_their_params(name, engine, kind):
    """Traced only: what a mesh refuses, it refuses while tracing."""
    mesh = AbstractMesh(meshes.SIZES, meshes.AXES, axis_types=(kind,) * 2)
    at = jax.eval_shape(partial(meshes.problem, name))
    specs = (meshes.over_model(at[0]), *meshes.BATCH)

    def place(spec, a):
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)

    at = jax.tree.map(place, specs, at)
    with jax.sharding.use_abstract_mesh(mesh):
        found = jax.eval_shape(jax.grad(partial(meshes.loss, name, engine)), *at)
    if kind == AxisType.Explicit:
        for d, p in zip(*map(jax.tree.leaves, (found, at[0])), strict=True):
            assert d.sharding.spec == P(
                *p.sharding.spec, *[None] * (d.ndim - len(p.sharding.spec))
            )


def explicit(*arrays):
    """A mesh with Explicit axes, and arrays `(shape, dtype, spec)` on it."""
    kinds = (AxisType.Explicit,) * 2
    mesh = AbstractMesh(meshes.SIZES, meshes.AXES, axis_types=kinds)
    return mesh, [
        jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
        for shape, dtype, spec in arrays
    ]


def test_a_run_without_inputs_stays_where_its_carry_is():
    state = (8, 4), jnp.float32, P("data")
    mesh, carry = explicit(state, state)
    cell = lstm(4)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), (3,)))

    def run(params, carry):
        return unroll(cell, params, None, LSTMCarry(*carry), length=3).ys

    with jax.sharding.use_abstract_mesh(mesh):
        ys = jax.eval_shape(run, params, carry)
    assert ys.sharding.spec == P(None, "data", None)


def traced_gradients(cell, mesh, xs, carry=None, **options):
    """Of params along the axis "model", by shapes alone."""

    def put(spec, leaf):
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), xs.shape[2:]))
    params = jax.tree.map(put, meshes.over_model(params), params)

    def loss(params, xs, carry):
        out = unroll(cell, params, xs, carry, engine="vjp", **options)
        return sum((leaf**2).sum() for leaf in jax.tree.leaves((out.ys, out.carry)))

    with jax.sharding.use_abstract_mesh(mesh):
        return jax.eval_shape(jax.grad(loss), params, xs, carry)


def test_a_chunk_longer_than_its_sequence_stays_on_its_mesh():
    mesh, (xs,) = explicit(((3, 8, 3), jnp.float32, P(None, "data")))
    traced_gradients(lstm(4), mesh, xs, remat=5)


@pytest.mark.parametrize("wrap", [stack, autoregressive])
def test_a_given_carry_goes_with_sharded_params(wrap):
    """Whose cell wants to know the shape of an output to make one of its own."""
    cell = wrap(lstm(3))
    mesh, (xs, c, h) = explicit(
        ((4, 8, 3), jnp.float32, P(None, "data")),
        *[((8, 3), jnp.float32, P("data"))] * 2,
    )
    state = LSTMCarry(c, h)
    carry = (state,) if wrap is stack else AutoregressiveCarry(state, h)
    traced_gradients(cell, mesh, xs, carry)


@pytest.mark.parametrize("flags", ["mask", "resets"])
def test_masks_of_a_recurrent_dropout_vary_as_their_examples(flags):
    """They have no gradients, of which a loop over gradients is told nonetheless."""
    mesh = AbstractMesh(meshes.SIZES, meshes.AXES, axis_types=(AxisType.Auto,) * 2)
    cell = recurrent_dropout(gru(3), 0.5)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), (2,)))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 4))
    xs, told = (
        jax.ShapeDtypeStruct((3, 4, *rest), dtype)
        for rest, dtype in (((2,), jnp.float32), ((), jnp.bool_))
    )

    def loss(params, xs, keys, told):
        ys = unroll(cell, params, xs, key=keys, engine="vjp", **{flags: told}).ys
        return jax.lax.psum((ys**2).sum(), "data")

    specs = P(), P(None, "data"), P("data"), P(None, "data")
    run = jax.shard_map(loss, mesh=mesh, in_specs=specs, out_specs=P())
    jax.eval_shape(jax.grad(run), params, xs, keys, told)


@pytest.mark.parametrize("spec", [P("data"), P()])
def test_keys_of_examples_go_where_the_examples_are(spec):
    cell = zoneout(lstm(4), 0.5)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), (3,)))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 8))
    inputs = (3, 8, 3), jnp.float32, P(None, "data")
    mesh, (xs, keys) = explicit(inputs, (keys.shape, keys.dtype, spec))

    def run(params, xs, key):
        return unroll(cell, params, xs, key=key).ys

    with jax.sharding.use_abstract_mesh(mesh):
        ys = jax.eval_shape(
            lambda p, x, k: unroll(cell, p, x, key=k).ys, params, xs, keys
        )
    assert ys.sharding.spec == P(None, "data", None)


@pytest.mark.parametrize("specs", [P("model"), P()])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", slow_but(CASES, *SOME))
def test_no_step_of_a_shard_map_waits_for_others(name, engine, specs):
    mesh = AbstractMesh(meshes.SIZES, meshes.AXES, axis_types=(AxisType.Auto,) * 2)
    params, *batch = jax.eval_shape(partial(meshes.problem, name))
    if specs == P("model"):
        params = jax.eval_shape(meshes.two, params)
    run = meshes.sharded(mesh, partial(meshes.loss, name, engine), specs)
    within = set(loops(jax.make_jaxpr(jax.grad(run))(params, *batch).jaxpr))
    assert "dot_general" in within or "conv_general_dilated" in within
    assert not [name for name in within if "psum" in name or "gather" in name]


def check(*words):
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env = os.environ | forced_devices(8) | {"PYTHONPATH": path}
    command = [sys.executable, meshes.__file__, *words]
    out = subprocess.run(command, env=env, capture_output=True, text=True)
    wanted = [f"equal {word}" for word in words]
    assert out.stdout.splitlines() == wanted, out.stderr[-3000:]


@pytest.mark.process
def test_the_gradients_of_a_gru_on_every_kind_of_mesh():
    check("gru:vjp")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_gradients_on_every_kind_of_mesh(name):
    check(f"{name}:scan", f"{name}:vjp")
