"""Random cases of `unroll` and a plain loop: `python random_cases.py COUNT NAME ...`.

A configuration is a cell and all that shapes a compiled program: T, *B, the options
that are given, engine, direction, remat, truncation, dtype, whether it runs in two
chunks, and where on a mesh. A case is one random input of a configuration: params,
inputs, carry, lengths, mask, resets, what padding holds, key, first step, consts, and
cotangents of all outputs. Its outputs, final carry, carry after each step, and its
gradients by params, inputs, carry and consts must equal those of a loop in Python,
in float64, over `cell.gates`, one example at a time (but a key for a whole batch draws
for all of it at once, so that a step is then one of the batch).

As a command: on meshes of eight devices, which XLA_FLAGS must have made.
"""

import sys
import traceback
import zlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import conformance
import jax
import jax.numpy as jnp
import meshes
import numpy as np
import user_cells
from conformance import Case, D
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from lstm_jax import Keys, autoregressive, dropout, lstm, rnn, unroll
from lstm_jax.cell import project_step
from lstm_jax.keys import split_key

CASES = conformance.CASES | {
    "variational": Case(dropout(rnn(D), 0.4, variational=True), (2,)),
    "sampling": Case(autoregressive(dropout(rnn(D), 0.3), sampling=0.5)),
    "feedback": Case(autoregressive(lstm(D), feedback=lambda y, w: jnp.tanh(y @ w))),
    "attention": Case(user_cells.attention(D), (2,)),
}
RANDOM = [*conformance.RANDOM, "variational", "sampling"]
# Loop constants: their shape, and whether each example has its own.
CONSTS = {"feedback": ((D, D), False), "attention": ((5, D), True)}
# Some that run without inputs, and whose carry does not need the shape of one.
FREE = ["lstm", "lstm-everything", "gru", "rnn", "stack", "autoregressive", "sampling"]
# With a relu, a clip or an absolute value, where rounding may flip a gradient.
KINKED = ["rnn-relu", "bottleneck", "st-lstm"]
ON_MESHES = ["Explicit", "Auto", "shard_map", "shard_map, two params", "in shard_map"]
# With a layer norm, which may divide by 0.003: too much for eight bits.
NORMS = ["unit", "lstm-everything", "lstm-layer-norm", "lstm-no-bias"]
NORMS += ["gru-layer-norm", "gru-everything"]
# Float64: other orders of summation. Float32 has 24 bits, bfloat16 8; T steps add up.
TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 0.05}
CASES_EACH = 30  # of one configuration


class Configuration(NamedTuple):
    """What shapes a program; `cut` is where its second chunk begins."""

    name: str
    time: int = 4
    batch: tuple[int, ...] = (3,)
    given: tuple[str, ...] = ("xs",)  # of xs, lengths, mask, resets, carry, key, keys
    engine: str = "vjp"
    reverse: bool = False
    remat: int | str | None = None
    tbptt_steps: int | None = None
    unroll: int = 1
    cut: int | None = None
    dtype: str = "float64"
    every_carry: bool = True
    mesh: str | None = None

    @property
    def has_key(self) -> bool:
        return not {"key", "keys"}.isdisjoint(self.given)

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """Begin and end of each, in the order of reading."""
        bounds = [0, *([self.cut] if self.cut else []), self.time]
        chunks = list(zip(bounds[:-1], bounds[1:], strict=True))
        return chunks[::-1] if self.reverse else chunks


def random_configuration(rng, name: str, mesh: str | None = None) -> Configuration:
    """One of those that `unroll` promises to run."""

    def one_of(*values):
        return values[rng.integers(len(values))]

    time = one_of(1, 2, 4, 5, 6)
    batch = (4,) if mesh else one_of((), (3,), (4,), (2, 2))
    given = [n for n in ("lengths", "mask", "resets", "carry") if rng.random() < 0.5]
    # With one key, each shard would draw for its examples what others draw for theirs.
    keys = ["key"] if mesh in (None, "Explicit", "Auto") else []
    keys += [] if name in CONSTS else ["keys"]
    if keys and rng.random() < (0.9 if name in RANDOM else 0.1):
        given.append(one_of(*keys))
    if name in FREE and rng.random() < 0.3:
        given = [*{*given, "carry"}]
    else:
        given.append("xs")
    dtypes = ["float64"] * 7 + ["float32"] * 2 * (name not in KINKED)
    dtypes += ["bfloat16"] * (name not in KINKED + NORMS)
    return Configuration(
        name,
        time,
        batch,
        tuple(sorted(given)),
        engine=one_of("scan", "vjp", "vjp", "auto"),
        reverse=one_of(False, True),
        remat=one_of(None, None, "step", "sqrt", 1, 2, 3),
        tbptt_steps=one_of(None, None, None, 1, 2, 3),
        unroll=one_of(1, 1, 2),
        cut=one_of(None, int(rng.integers(1, time))) if time > 1 else None,
        dtype=one_of(*dtypes),
        every_carry=one_of(False, True),
        mesh=mesh,
    )


def floats(tree: Any) -> list:
    """The leaves of `tree` that have gradients."""
    leaves = jax.tree.leaves(tree)
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]


def refilled(tree: Any, leaves: list) -> Any:
    """`tree` with other such leaves."""
    left = iter(leaves)
    return jax.tree.map(lambda leaf: next(left) if floats(leaf) else leaf, tree)


def valid_steps(config: Configuration, case: dict[str, Any]) -> np.ndarray:
    """Bool `[T, *B]`."""
    steps = np.arange(config.time).reshape(-1, *[1] * len(config.batch))
    within = steps < case.get("lengths", np.full(config.batch, config.time))
    return within & case.get("mask", True)


def random_case(config: Configuration, seed: int) -> dict[str, Any]:
    """What is given to `unroll`; `params` and `wanted`, cotangents, are lists of sets.

    Only with "two params" there are two.
    """
    rng = np.random.default_rng(seed)
    time, batch, given = config.time, config.batch, config.given
    params, carry, y = shapes(config.name, config.has_key)
    real = np.float64 if config.dtype == "float64" else np.float32

    def weights(leaf):
        """About as large as `init` makes them; vectors, some of which are gains."""
        noise = rng.standard_normal(leaf.shape)
        fan_in = np.prod(leaf.shape[:-1])
        noise = 0.8 * noise / np.sqrt(fan_in) if leaf.ndim > 1 else 0.5 + 0.3 * noise
        return noise.astype(real)

    def state(leaf):
        if not floats(leaf):  # the mask of a recurrent dropout
            return rng.random((*batch, *leaf.shape)) < 0.7
        return 0.5 * rng.standard_normal((*batch, *leaf.shape)).astype(real)

    def cotangents():
        def like(leaf, *lead):
            return rng.standard_normal((*lead, *batch, *leaf.shape))

        wanted = {"ys": like(y, time), "carry": list(map(like, floats(carry)))}
        if config.every_carry:
            wanted["carries"] = [like(leaf, time) for leaf in floats(carry)]
        return wanted

    sets = 2 if config.mesh == "shard_map, two params" else 1
    case = {"params": [jax.tree.map(weights, params) for _ in range(sets)]}
    if "lengths" in given:  # below 0 counts as 0, above T as T
        case["lengths"] = rng.integers(-1, time + 2, batch, np.int32)
    if "mask" in given:
        case["mask"] = rng.random((time, *batch)) < rng.choice([0.3, 0.7, 1])
    if "resets" in given:
        case["resets"] = rng.random((time, *batch)) < rng.choice([0, 0.2, 0.5])
        if config.reverse and config.cut:  # acts in the chunk before it
            case["resets"][config.cut] = False
    if "carry" in given:
        case["carry"] = jax.tree.map(state, carry)
    if config.has_key:
        lead = batch if "keys" in given else ()
        case["key"] = rng.integers(0, 2**32, (*lead, 2), np.uint32)
        case["first_step"] = np.int32(rng.integers(0, 1000))
    if "xs" in given:
        feature_shape = CASES[config.name].feature_shape
        case["xs"] = rng.standard_normal((time, *batch, *feature_shape)).astype(real)
        padding = rng.choice([0, 1, np.nan, np.inf, -np.inf])
        case["xs"][~valid_steps(config, case)] = padding
    if config.name in CONSTS:
        shape, per_example = CONSTS[config.name]
        lead = batch if per_example else ()
        case["consts"] = 0.5 * rng.standard_normal((*lead, *shape)).astype(real)
    return case | {"wanted": [cotangents() for _ in range(sets)]}


@cache
def shapes(name: str, has_key: bool) -> tuple[Any, Any, Any]:
    """Those of params, and of carry and output of one example."""
    cell, feature_shape, _ = CASES[name]

    def make(key):
        params = cell.init(key, feature_shape, jnp.float64)
        carry_key = key if has_key else None
        carry = cell.carry(params, (), feature_shape, jnp.float64, key=carry_key)
        shape, per_example = CONSTS.get(name, (None, False))
        consts = jnp.zeros(shape) if shape else None
        key = jax.random.key_data(key) if has_key else None
        x = jnp.zeros(feature_shape)
        _, y = steps_of(name).forward(params, carry, x, consts, key, 0)
        return params, carry, y

    return jax.eval_shape(make, jax.random.key(0))


# The loop


class Steps(NamedTuple):
    """What the loop calls, compiled: a step, an initial carry, and their pullbacks."""

    forward: Callable
    pull: Callable
    start: Callable
    pull_start: Callable


@cache
def steps_of(name: str) -> Steps:
    cell, feature_shape, _ = CASES[name]

    def forward(params, carry, x, consts, key, at):
        keys = None
        if key is not None:
            _, key_steps = split_key(jax.random.wrap_key_data(key))
            keys = Keys.of(key_steps, 1, at)
            keys = Keys(keys.per_sequence, keys.per_step[0])
        u = project_step(cell, params, x, keys)
        told = {} if consts is None else {"consts": consts}
        return cell.gates(params, carry, u, cell.recur(params, carry), **told)

    def pull(params, carry, x, consts, key, at, d_carry, d_y):
        def run(params, state, x, consts):
            now = refilled(carry, state)
            new, y = forward(params, now, x, consts, key, at)
            return floats(new), y

        _, pull = jax.vjp(run, params, floats(carry), x, consts)
        return pull((d_carry, d_y))

    def start(params, batch_shape, key):
        if key is not None:
            key, _ = split_key(jax.random.wrap_key_data(key))
        return cell.carry(params, batch_shape, feature_shape, jnp.float64, key=key)

    def pull_start(params, batch_shape, key, d_carry):
        _, pull = jax.vjp(lambda p: floats(start(p, batch_shape, key)), params)
        return pull(d_carry)[0]

    static = partial(jax.jit, static_argnums=1)
    return Steps(jax.jit(forward), jax.jit(pull), static(start), static(pull_start))


def choose(flags: Any, a: list, b: list) -> list:
    """Leaf by leaf, `a` where `flags [*B]`, else `b`."""

    def one(a, b):
        a = np.asarray(a)
        return np.where(
            np.reshape(flags, flags.shape + (1,) * (a.ndim - flags.ndim)), a, b
        )

    return [one(*pair) for pair in zip(a, b, strict=True)]


def zeros_like(leaves: list) -> list:
    return [np.zeros(np.shape(leaf)) for leaf in leaves]


def add(totals: list, more: list, index: tuple = ()) -> None:
    for total, one in zip(totals, more, strict=True):
        total[index] += np.asarray(one)


def loop(config: Configuration, case: dict[str, Any], number: int = 0):
    """What `unroll` returns, and gradients, for one set of params and cotangents."""
    case = jax.tree.map(
        lambda x: np.asarray(x, np.float64) if floats(x) else np.asarray(x), case
    )
    params, wanted = case["params"][number], case["wanted"][number]
    grads = {
        name: zeros_like(floats(params if name == "params" else case[name]))
        for name in GRADIENTS
        if name in case
    }
    found = jax.tree.map(np.zeros_like, wanted)
    params = jax.tree.map(jnp.asarray, params)
    whole = "key" in config.given
    for index in [()] if whole else np.ndindex(*config.batch):
        loop_one(config, case, params, wanted, found, grads, index)
    return found, grads


def loop_one(config, case, params, wanted, found, grads, index) -> None:
    """Adds what one example, or one batch, gives to `found` and `grads`."""
    steps, resets = steps_of(config.name), case.get("resets")
    batch = config.batch if "key" in config.given else ()
    valid = valid_steps(config, case)
    within = valid_steps(config, {n: case[n] for n in ["lengths"] if n in case})
    key = case.get("key")
    key = key[index] if "keys" in config.given else key
    consts = case.get("consts")
    of_example = config.name in CONSTS and CONSTS[config.name][1]
    consts = consts[index] if of_example else consts
    fresh = start = None
    if resets is not None or "carry" not in case:
        fresh = start = steps.start(params, batch, key)
    if "carry" in case:
        start = jax.tree.map(lambda leaf: leaf[index], case["carry"])

    tape, state, tree = [], *jax.tree.flatten(start)
    for begin, end in config.chunks:
        order = list(range(begin, end))[:: -1 if config.reverse else 1]
        for count, t in enumerate(order):
            # In reverse a sequence ends before the step that starts the next.
            first, starts = t + config.reverse, np.zeros(batch, bool)
            if resets is not None and first < config.time:
                starts = np.asarray(resets[first] & within[first])[index]
                state = choose(starts, jax.tree.leaves(fresh), state)
            x, now = case.get("xs"), np.asarray(valid[t][index])
            if x is not None:
                (x,) = choose(now, [x[t][index]], [np.zeros(())])
            at = case.get("first_step", np.int32(0)) + np.int32(t)
            read = params, tree.unflatten(state), x, consts, key, at
            cut = count and config.tbptt_steps and count % config.tbptt_steps == 0
            tape.append((t, read, starts, now, cut))
            if now.any():
                new, y = steps.forward(*read)
                state = choose(now, jax.tree.leaves(new), state)
                found["ys"][t][index] = choose(now, [y], [np.zeros(())])[0]
            if config.every_carry:
                add(found["carries"], floats(state), (t, *index))
    add(found["carry"], floats(state), index)

    d = [leaf[index] for leaf in wanted["carry"]]
    d_fresh = zeros_like(d)
    for t, read, starts, now, cut in reversed(tape):
        if "carries" in wanted:
            more = [leaf[t][index] for leaf in wanted["carries"]]
            d = [a + b for a, b in zip(d, more, strict=True)]
        if now.any():
            none = zeros_like(d)
            (d_y,) = choose(now, [wanted["ys"][t][index]], [np.zeros(())])
            pulled = steps.pull(*read, choose(now, d, none), d_y)
            d_params, d_carry, d_x, d_consts = pulled
            add(grads["params"], jax.tree.leaves(d_params))
            d = [
                np.asarray(a) + b
                for a, b in zip(d_carry, choose(now, none, d), strict=True)
            ]
            if d_x is not None:
                add(grads["xs"], [choose(now, [d_x], [np.zeros(())])[0]], (t, *index))
            if d_consts is not None:
                add(grads["consts"], [d_consts], index if of_example else ())
        add(d_fresh, choose(starts, d, zeros_like(d)))
        d = zeros_like(d) if cut else choose(starts, zeros_like(d), d)
    if "carry" in case:
        add(grads["carry"], d, index)
    else:
        add(d_fresh, d)
    if fresh is not None:
        d_params = steps.pull_start(params, batch, key, d_fresh)
        add(grads["params"], jax.tree.leaves(d_params))


# The program

GRADIENTS = ("params", "xs", "carry", "consts")


def run(config: Configuration, at: dict[str, Any]) -> dict[str, Any]:
    """What `unroll` returns; of carries the leaves that have gradients."""
    options = dict(
        engine=config.engine,
        reverse=config.reverse,
        remat=config.remat,
        tbptt_steps=config.tbptt_steps,
        unroll=config.unroll,
        consts=at.get("consts"),
        dtype=jnp.bfloat16 if config.dtype == "bfloat16" else None,
        return_carries=config.every_carry,
    )
    if "key" in at:
        options["key"] = jax.random.wrap_key_data(at["key"])
    carry, outs = at.get("carry"), []
    for begin, end in config.chunks:
        told = {n: at[n][begin:end] for n in ("mask", "resets") if n in at}
        if "lengths" in at:
            told["lengths"] = at["lengths"] - begin
        if "first_step" in at:
            told["first_step"] = at["first_step"] + begin
        xs = at["xs"][begin:end] if "xs" in at else None
        if xs is None:
            told["length"] = end - begin
        cell = CASES[config.name].cell
        outs.append(unroll(cell, at["params"], xs, carry, **told, **options))
        carry = outs[-1].carry
    outs = outs[::-1] if config.reverse else outs
    found = {"ys": jnp.concatenate([out.ys for out in outs]), "carry": floats(carry)}
    if config.every_carry:
        carries = zip(*(floats(out.carries) for out in outs), strict=True)
        found["carries"] = [jnp.concatenate(leaves) for leaves in carries]
    return found


def gradients(run: Callable, at: dict[str, Any], wanted: dict[str, Any]):
    """What `run` returns, and pulls back."""

    def loss(leaves):
        found = run(at | {n: refilled(at[n], leaves[n]) for n in leaves})
        products = jax.tree.map(
            lambda w, x: (w * x.astype(w.dtype)).sum(), wanted, found
        )
        return sum(jax.tree.leaves(products)), found

    leaves = {name: floats(at[name]) for name in GRADIENTS if name in at}
    grads, found = jax.grad(loss, has_aux=True)(leaves)
    return found, grads


def specs_of(config: Configuration, params: Any) -> dict[str, Any]:
    """Where all that is given, wanted and found lies."""
    batch, steps = P("data"), P(None, "data")
    of_example = config.name in CONSTS and CONSTS[config.name][1]
    return {
        "params": params,
        "xs": steps,
        "mask": steps,
        "resets": steps,
        "ys": steps,
        "carries": steps,
        "carry": batch,
        "lengths": batch,
        "key": batch if "keys" in config.given else P(),
        "first_step": P(),
        "consts": batch if of_example else P(),
    }


def program(config: Configuration) -> Callable:
    """`(at, wanted) -> found, gradients`, compiled once."""
    plain = partial(run, config)
    if config.mesh is None:
        return jax.jit(partial(gradients, plain))
    kind = AxisType.Explicit if config.mesh == "Explicit" else AxisType.Auto
    mesh = jax.make_mesh(meshes.SIZES, meshes.AXES, axis_types=(kind,) * 2)
    if config.mesh in ("Explicit", "Auto"):
        return placed(config, mesh, jax.jit(partial(gradients, plain)))
    two = config.mesh == "shard_map, two params"
    specs = specs_of(config, P("model") if two else P())

    def only(tree):
        return {name: specs[name] for name in tree}

    def local(at):
        if not two:
            return plain(at)
        first = jax.tree.map(lambda p: p[0], at["params"])
        return jax.tree.map(lambda x: x[None], plain(at | {"params": first}))

    def outside(at, wanted):
        out = only(wanted)
        if two:
            out = {name: P("model", *spec) for name, spec in out.items()}
        smap = partial(jax.shard_map, mesh=mesh, in_specs=(only(at),), out_specs=out)
        return gradients(smap(local), at, wanted)

    def inside(at, wanted):
        out = only(wanted), only([name for name in GRADIENTS if name in at])
        ins = only(at), only(wanted)
        smap = partial(jax.shard_map, mesh=mesh, in_specs=ins, out_specs=out)
        return smap(partial(gradients, plain))(at, wanted)

    return jax.jit(inside if config.mesh == "in shard_map" else outside)


def placed(config: Configuration, mesh, run: Callable) -> Callable:
    """`run`, of arguments that lie on the mesh, params along its axis "model"."""

    def call(at, wanted):
        specs = specs_of(config, None)

        def put(tree, spec):
            return jax.device_put(tree, NamedSharding(mesh, spec))

        def by_name(tree):
            return {name: put(tree[name], specs[name]) for name in tree}

        rest = {name: at[name] for name in at if name != "params"}
        over_model = meshes.over_model(at["params"])
        params = {"params": jax.tree.map(put, at["params"], over_model)}
        with jax.set_mesh(mesh):
            return run(params | by_name(rest), by_name(wanted))

    return call


def check(config: Configuration, run: Callable, seed: int) -> None:
    """Raises an AssertionError if a case differs from the loop."""
    case = random_case(config, seed)
    results = [loop(config, case, number) for number in range(len(case["params"]))]
    at = {name: case[name] for name in case if name not in ("params", "wanted")}
    if len(results) == 1:
        ((wanted, wanted_grads),) = results
        params, cotangents = case["params"][0], case["wanted"][0]
    else:

        def stacked(trees):
            return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

        params, cotangents = map(stacked, (case["params"], case["wanted"]))
        wanted = stacked([found for found, _ in results])
        grads = [grads for _, grads in results]
        wanted_grads = jax.tree.map(lambda *leaves: sum(leaves), *grads)
        wanted_grads["params"] = stacked([g["params"] for g in grads])
    found, grads = run(at | {"params": params}, cotangents)

    def same(path, got, want):
        got = np.asarray(got, np.float64)
        where = jax.tree_util.keystr(path)
        assert got.shape == want.shape, f"{where}: {got.shape}, not {want.shape}"
        assert np.isfinite(got).all(), f"{where}: not finite"
        error = np.abs(got - want).max(initial=0) / (1 + np.abs(want).max(initial=0))
        assert error <= TOLERANCES[config.dtype], f"{where}: off by {error:.1e}"

    got, want = (found, {"gradient": grads}), (wanted, {"gradient": wanted_grads})
    jax.tree_util.tree_map_with_path(same, got, want)


def failures(name: str, count: int, on_meshes: bool = False) -> list[str]:
    """Of `count` random cases of a cell, those that fail, in words."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), on_meshes])
    found, left = [], count
    while left > 0:
        mesh = ON_MESHES[rng.integers(len(ON_MESHES))] if on_meshes else None
        config = random_configuration(rng, name, mesh)
        run = program(config)
        for _ in range(min(left, CASES_EACH)):
            seed = int(rng.integers(2**31))
            try:
                check(config, run, seed)
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
                text = f"{type(error).__name__} at {where}: {error}"[:500]
                found.append(f"{config}, seed {seed}: {text}")
                break
        left -= CASES_EACH
    jax.clear_caches()
    return found


if __name__ == "__main__":
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_enable_x64", True)
    for word in sys.argv[2:]:
        for failure in failures(word, int(sys.argv[1]), on_meshes=True):
            print(failure, flush=True)
        print("checked", word, flush=True)
