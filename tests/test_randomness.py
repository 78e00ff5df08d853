"""What is drawn: for whom, in which step, and never silently not at all."""

import gc
import weakref
from functools import partial

import conformance
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conformance import CASES, RANDOM
from jax import jit
from selection import slow_but, slow_unless

from lstm_jax import (
    GRUCarry,
    Keys,
    autoregressive,
    bidirectional,
    conv_gru,
    dropout,
    gru,
    initializers,
    lstm,
    recurrent_dropout,
    recurrent_layers,
    repeat,
    rnn,
    stack,
    step,
    unroll,
    zoneout,
)
from lstm_jax.cell import project_step
from lstm_jax.keys import split_key
from lstm_jax.randomness import example_dropout, is_stochastic, step_dropout

T, B, F, D = 6, 4, 3, 3
KEY = jax.random.key(7)
KEYS = jax.random.split(jax.random.key(8), B)
CELLS = {
    "dropout": dropout(lstm(D), 0.5),
    "variational": dropout(gru(D), 0.5, variational=True),
    "recurrent": recurrent_dropout(lstm(D), 0.5),
    "zoneout": zoneout(lstm(D), 0.5),
    "stack": stack(dropout(rnn(D), 0.3), zoneout(recurrent_dropout(rnn(D), 0.3), 0.2)),
    "repeat": repeat(zoneout(dropout(rnn(D), 0.3), 0.3), 2),
    "sampling": autoregressive(dropout(rnn(D), 0.3), sampling=0.5),
}
# Of every kind, those that make their output in another way.
OUTPUTS = (
    *("lstm", "lstm-proj", "gru", "conv-lstm", "st-lstm"),
    *("stack", "residual", "readout", "zoneout", "autoregressive"),
)
QUICK_CHUNKS = ("variational", True), ("repeat", True), ("sampling", False)
QUICK_KEYS = ("variational", "vjp"), ("repeat", "scan"), ("sampling", "scan")


def problem(cell, time=T):
    xs = jax.random.normal(jax.random.key(1), (time, B, F))
    return cell.init(jax.random.key(0), (F,)), xs


def equal(got, want, atol=1e-6):  # float32, sums in another order
    jax.tree.map(partial(np.testing.assert_allclose, atol=atol), got, want)


@pytest.mark.parametrize(
    "name, reverse",
    [
        slow_unless(name == "stack" or (name, reverse) in QUICK_CHUNKS, name, reverse)
        for name in CELLS
        for reverse in (False, True)
    ],
)
def test_chunks_equal_the_whole(name, reverse):
    cell = CELLS[name]
    params, xs = problem(cell)
    engine = "scan" if reverse else "vjp"
    options = dict(key=KEY, reverse=reverse, engine=engine)
    start = cell.carry(params, (B,), (F,), key=split_key(KEY)[0])  # as unroll draws it

    @jit
    def run(xs, carry, first_step):
        return unroll(cell, params, xs, carry, first_step=first_step, **options)

    whole, carry, ys = run(xs, start, 0), start, {}
    for begin in (3, 0) if reverse else (0, 3):
        ys[begin], carry = run(xs[begin : begin + 3], carry, begin)
    equal(jnp.concatenate([ys[0], ys[3]]), whole.ys)
    equal(carry, whole.carry)
    # The number counts: the second half draws anew.
    assert np.abs(run(xs[:3], start, 3).ys - run(xs[:3], start, 0).ys).max() > 1e-3 or (
        name in ("variational", "recurrent")
    )


def test_a_carry_drawn_by_a_run_is_that_of_its_key():
    cell = CELLS["recurrent"]
    params, xs = problem(cell)
    one, other = (unroll(cell, params, xs[:t], key=KEY).carry.mask for t in (0, 1))
    equal(one, other)
    assert not one.h.all()


@pytest.mark.parametrize(
    "name, engine",
    [
        slow_unless(name == "stack" or (name, engine) in QUICK_KEYS, name, engine)
        for name in CELLS
        for engine in ("scan", "vjp")
    ],
)
def test_keys_follow_their_examples(name, engine):
    """In another order of the batch an example draws the same; gradients too."""
    cell = CELLS[name]
    params, xs = problem(cell)
    order = np.array([2, 0, 3, 1])

    @jit
    @partial(jax.value_and_grad, has_aux=True)
    def run(params, xs, keys):
        ys = unroll(cell, params, xs, key=keys, engine=engine).ys
        return jnp.square(ys).sum(), ys

    (_, ys), grads = run(params, xs, KEYS)
    (_, other), other_grads = run(params, xs[:, order], KEYS[order])
    equal(other, ys[:, order])
    equal(other_grads, grads, 1e-5)
    (_, other), _ = run(params, xs, KEYS[order])
    assert np.abs(other - ys).max() > 1e-3


@pytest.mark.parametrize("engine", ["scan", "vjp"])
def test_an_example_alone_draws_what_it_draws_in_a_batch(engine):
    cell = CELLS["stack"]
    params, xs = problem(cell)
    run = jit(lambda xs, key: unroll(cell, params, xs, key=key, engine=engine).ys)
    equal(run(xs[:, 1], KEYS[1]), run(xs, KEYS)[:, 1])  # without a batch axis


def test_keys_of_examples_go_with_lengths_resets_and_both_directions():
    cell = CELLS["stack"]
    params, xs = problem(cell)
    resets = np.arange(T)[:, None] == np.array([0, 3, 9, 2])
    lengths = np.array([6, 5, 0, 4])

    @jit
    def run(xs, keys, lengths, resets):
        options = dict(key=keys, lengths=lengths, resets=resets)
        return bidirectional((cell, cell), (params, params), xs, **options).ys

    order = np.array([2, 0, 3, 1])
    ys = run(xs, KEYS, lengths, resets)
    other = run(xs[:, order], KEYS[order], lengths[order], resets[:, order])
    equal(other, ys[:, order])
    assert not ys[5:, 1].any() and ys[4, 1].any()


def test_keys_for_a_batch_of_two_axes():
    cell = dropout(zoneout(rnn(D), 0.5), 0.5)
    params, xs = problem(cell)
    run = jit(lambda xs, keys: unroll(cell, params, xs, key=keys, remat="step").ys)
    square = run(xs.reshape(T, 2, 2, F), KEYS.reshape(2, 2))
    equal(square.reshape(T, B, D), run(xs, KEYS))


def test_keys_for_a_run_without_inputs():
    cell = CELLS["sampling"]
    params, _ = problem(cell)
    start = cell.carry(params, (B,), (F,))

    @partial(jit, static_argnums=2)
    def run(keys, carry, length, first_step=0):
        options = dict(length=length, key=keys, first_step=first_step, engine="scan")
        return unroll(cell, params, None, carry, **options)

    whole, half = run(KEYS, start, 4), run(KEYS, start, 2)
    equal(run(KEYS, half.carry, 2, 2).carry, whole.carry)
    equal(run(KEYS[::-1], start, 4).ys, whole.ys[:, ::-1])
    assert unroll(cell, params, None, length=1, key=KEYS).ys.shape == (1, B, D)


@pytest.mark.parametrize("noise", [dropout, zoneout])
def test_keys_for_images_without_inputs(noise):
    """What a cell projects without input has no axes of space."""
    inner = conv_gru(2, (1, 1), **initializers.pytorch_defaults(1))
    cell = noise(inner, 0.0)
    params = inner.init(jax.random.key(0), (2, 2, 1))
    start = GRUCarry(jax.random.normal(KEY, (B, 2, 2, 2)))
    run = partial(unroll, params=params, xs=None, carry=start, length=2, engine="scan")
    equal(jit(partial(run, cell))(key=KEYS).ys, jit(partial(run, inner))().ys)


@pytest.mark.parametrize("cell", [CELLS["dropout"], lstm(D)])
def test_keys_of_a_wrong_shape_are_refused(cell):
    """Also where no cell draws."""
    params, xs = problem(cell)
    runs = (
        partial(unroll, cell, params),
        partial(bidirectional, (cell, cell), (params, params)),
        partial(recurrent_layers(cell).apply, (params,)),
    )
    for run in runs:
        with pytest.raises(ValueError, match=r"key has shape \(3,\); pass one key, "):
            run(xs, key=KEYS[:3])


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize(
    "first_step", [1.7, True, np.array([0, 1]), np.float32(1), jnp.ones(())]
)
def test_a_first_step_is_one_integer(first_step, key):
    cell = CELLS["dropout"]
    params, xs = problem(cell)
    with pytest.raises(ValueError, match="first_step is .*pass one integer"):
        unroll(cell, params, xs, key=key, first_step=first_step)
    with pytest.raises(ValueError, match="first_step is .*pass one integer"):
        step_dropout(xs, 0.5, KEY, first_step)


def test_an_eager_call_asks_once_whether_a_cell_draws(monkeypatch):
    asked = []

    def depends_on_key(*args):
        asked.append(args)
        return True

    monkeypatch.setattr("lstm_jax.randomness.depends_on_key", depends_on_key)
    cell = dropout(lstm(D), 0.5)
    params, _ = problem(cell)
    for width, count in ((F, 1), (F, 1), (F + 1, 2)):
        assert is_stochastic(cell, params, (width,))
        assert len(asked) == count
    found = weakref.ref(cell.project)
    del cell
    asked.clear()
    gc.collect()
    assert found() is None  # the cell is not kept


@pytest.mark.parametrize("name", CASES)
def test_a_cell_is_stochastic_if_its_key_matters(name):
    cell, feature_shape, _ = CASES[name]
    params = jax.eval_shape(lambda: cell.init(KEY, feature_shape))
    found = is_stochastic(cell, params, feature_shape)
    assert found == (name in RANDOM) or name == "repeat"  # which loops in its step


def test_a_key_that_is_not_drawn_from_changes_no_program():
    cell = stack(lstm(D), gru(D))
    params, xs = problem(cell)
    texts = [
        jax.jit(lambda p, key=key: unroll(cell, p, xs, key=key)).lower(params).as_text()
        for key in (None, KEY, KEYS)
    ]
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("wrap", [lambda c: c, stack, lambda c: zoneout(c, 0.1)])
def test_recurrent_dropout_is_never_silently_off(wrap):
    cell = wrap(recurrent_dropout(lstm(D), 0.5))
    params, xs = problem(cell)
    without = cell.carry(params, (B,), (F,))
    run = partial(unroll, cell, params, xs)
    with pytest.raises(ValueError, match=r"cell.carry\(params, .*key=key\)"):
        run(without, key=KEY)
    with pytest.raises(ValueError, match="key=key"):
        run(cell.carry(params, (B,), (F,), key=KEY))  # nor silently on
    equal(run(without).ys, run().ys)
    equal(
        run(cell.carry(params, (B,), (F,), key=KEY), key=KEY).carry,
        run(cell.carry(params, (B,), (F,), key=KEY), key=KEY, engine="scan").carry,
    )


@pytest.mark.parametrize("name", slow_but(CASES, *OUTPUTS))
def test_what_a_cell_says_of_its_output_is_so(name):
    cell = CASES[name].cell
    params, xs, carry = conformance.problem(name, jnp.float32, batch=2)
    new, y = step(cell, params, carry, project_step(cell, params, xs[0]))
    if cell.output is not None:
        np.testing.assert_array_equal(cell.output(new), y)
    else:
        leaves = [leaf for leaf in jax.tree.leaves(new) if leaf.shape == y.shape]
        assert not any((leaf == y).all() for leaf in leaves)


def test_zoneout_does_not_ask_which_object_an_output_is():
    plain = lstm(D)
    jitted = plain._replace(gates=jax.jit(plain.gates))
    params, xs = problem(plain)
    for key in (None, KEY):
        runs = [
            jit(partial(unroll, zoneout(cell, 0.5), params, key=key))(xs)
            for cell in (plain, jitted)
        ]
        equal(*runs)
        equal(runs[1].ys[-1], runs[1].carry.h)


def test_zoneout_of_equal_layers_equals_that_of_a_stack():
    params, xs = problem(repeat(rnn(D), 2))
    apart = tuple(jax.tree.map(lambda p, at=at: p[at], params) for at in range(2))
    for key in (None, KEY):
        cells = repeat(rnn(D), 2), stack(rnn(D), rnn(D))
        together, stacked = (
            jit(partial(unroll, zoneout(cell, 0.5), p, key=key))(xs)
            for cell, p in zip(cells, (params, apart), strict=True)
        )
        equal(tuple(together), tuple(stacked))
        equal(together.ys[-1], together.carry[-1].h)


def test_dropout_of_steps():
    xs = jnp.ones((T, 50, 7))
    drop = jit(partial(step_dropout, rate=0.25))
    one = drop(xs, key=KEY)
    assert set(np.unique(one)) == {0.0, np.float32(4 / 3)}
    # 2,100 draws: a standard error of 0.01.
    np.testing.assert_allclose((one == 0).mean(), 0.25, atol=0.05)
    equal(one[4:], drop(xs, key=KEY, first_step=4)[:2])
    keys = jax.random.split(KEY, 50)
    many = drop(xs, key=keys)
    equal(many[2:, ::-1], drop(xs, key=keys[::-1], first_step=2)[:4])
    assert not (many[0] == many[1]).all() and not (many[:, 0] == many[:, 1]).all()
    equal(many[0], example_dropout(xs[0], 0.25, Keys.of(keys, 1).per_step[0]))
    assert step_dropout(xs, 0.0, KEY) is xs


@pytest.mark.parametrize("wrap", [zoneout, recurrent_dropout])
def test_integer_inputs_draw_as_well(wrap):
    cell = wrap(lstm(D), 0.5)
    xs = jnp.ones((2, B, F), jnp.uint8)
    params, _ = problem(cell)
    ys = [unroll(cell, params, xs, key=jax.random.key(n)).ys for n in (0, 1)]
    assert np.abs(np.asarray(ys[0] - ys[1])).max() > 1e-3


@pytest.mark.parametrize("number", [True, 0, 1.5])
def test_a_number_of_layers_is_an_integer(number):
    with pytest.raises(ValueError, match="num_layers"):
        recurrent_layers(lstm(D), num_layers=number)
