"""Dense cells equal PyTorch's, in float64: outputs, final states and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import B, D, F, P, T, close, identical, loss

from lstm_jax import bidirectional, gru, lstm, rnn, unroll
from lstm_jax.interop import (
    from_pytorch,
    from_pytorch_carry,
    from_pytorch_cell,
    to_pytorch,
    to_pytorch_carry,
    to_pytorch_cell,
)

torch = pytest.importorskip("torch", reason="PyTorch is compared with, not required")

pytestmark = pytest.mark.slow  # compared in `make test-all`

LENGTHS = np.array([2, 3])  # PyTorch refuses 0
CELLS = {
    "lstm": (lstm(D), torch.nn.LSTM, {}),
    "lstm-proj": (lstm(D, proj_size=P), torch.nn.LSTM, {"proj_size": P}),
    "lstm-without-bias": (lstm(D), torch.nn.LSTM, {"bias": False}),
    "gru": (gru(D), torch.nn.GRU, {}),
    "gru-without-bias": (gru(D), torch.nn.GRU, {"bias": False}),
    "rnn-tanh": (rnn(D), torch.nn.RNN, {}),
    "rnn-relu": (
        rnn(D, activation=jax.nn.relu),
        torch.nn.RNN,
        {"nonlinearity": "relu"},
    ),
    "rnn-without-bias": (rnn(D), torch.nn.RNN, {"bias": False}),
}
FORMS = {  # number of layers, directions, lengths
    "packed": (1, 1, LENGTHS),
    "bidirectional": (1, 2, None),
    "two-layers": (2, 1, None),
    "two-layers-bidirectional-packed": (2, 2, LENGTHS),
}


def kind(name):
    return name.partition("-")[0]


def module_of(name, form):
    _, Module, options = CELLS[name]
    layers, ways, _ = FORMS[form]
    torch.manual_seed(0)
    return Module(F, D, layers, bidirectional=ways == 2, dtype=torch.float64, **options)


def theirs(module, xs, states, lengths):
    """Outputs and final states of PyTorch."""
    if lengths is not None:
        xs = torch.nn.utils.rnn.pack_padded_sequence(
            xs, torch.tensor(lengths), enforce_sorted=False
        )
    ys, last = module(xs, states)
    return (
        ys if lengths is None else torch.nn.utils.rnn.pad_packed_sequence(ys)[0]
    ), last


def ours(cell, kind, state, xs, states, form, engine):
    """The same of our cells, layer by layer, from the weights of PyTorch."""
    _, ways, lengths = form
    options = {"engine": engine}
    if lengths is not None:
        options["lengths"] = jnp.asarray(lengths)
    carries = from_pytorch_carry(states, kind, bidirectional=ways == 2)
    last = []
    for params, carry in zip(from_pytorch(state), carries, strict=True):
        if ways == 2:
            xs, end = bidirectional((cell, cell), params, xs, carry, **options)
        else:
            xs, end = unroll(cell, params, xs, carry, **options)
        last.append(end)
    return xs, to_pytorch_carry(last)


def numpy(tree):
    return jax.tree.map(lambda leaf: leaf.detach().numpy(), tree)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name, form, engine",
    [
        (name, form, "vjp")
        for name in CELLS
        for form in FORMS
        if "without" not in name or form == "packed"
    ]
    + [("lstm-proj", "two-layers-bidirectional-packed", "scan")],
)
def test_equals_torch(name, form, engine):
    module = module_of(name, form)
    layers, ways, lengths = FORMS[form]
    rng = np.random.default_rng(0)
    xs = rng.standard_normal((T, B, F))
    widths = [P if "proj" in name else D] + [D] * (kind(name) == "lstm")
    states = tuple(rng.standard_normal((layers * ways, B, width)) for width in widths)
    states = states if len(states) == 2 else states[0]

    xs_t = torch.tensor(xs, requires_grad=True)
    states_t = jax.tree.map(lambda s: torch.tensor(s, requires_grad=True), states)
    ys, last = theirs(module, xs_t, states_t, lengths)
    # The loss of `agreement`, by PyTorch.
    weights = torch.cos(torch.arange(ys.numel(), dtype=torch.float64))
    value = (ys * weights.reshape(ys.shape)).sum()
    (value + sum(torch.sin(2 * s).sum() for s in jax.tree.leaves(last))).backward()
    parameters = dict(module.named_parameters())
    grads = jax.tree.map(lambda leaf: leaf.grad.numpy(), (parameters, xs_t, states_t))

    @jax.jit
    def graded(at):
        def value(at):
            out = ours(CELLS[name][0], kind(name), *at, FORMS[form], engine)
            return loss(*out), out

        return jax.grad(value, has_aux=True)(at)

    arrays = numpy(parameters)
    got_grads, got = graded(jax.tree.map(jnp.asarray, (arrays, xs, states)))
    close(got, numpy((ys, last)))
    close(got_grads, grads)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CELLS)
def test_there_and_back_is_identical(name, form):
    module = module_of(name, form)
    layers = from_pytorch(module.state_dict())
    assert len(layers) == FORMS[form][0]
    state = to_pytorch(layers, bias="without" not in name)
    module.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    identical(from_pytorch(module.state_dict()), layers)
    for key, array in state.items():
        if key.startswith("weight"):
            identical(module.state_dict()[key].numpy(), array)
    prefixed = to_pytorch(layers, bias="without" not in name, prefix="net.")
    identical(from_pytorch(prefixed | {"head.bias": 0.0}, prefix="net."), layers)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_cells_equal_torch(kind, bias):
    Cell = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell, "rnn": torch.nn.RNNCell}
    module = Cell[kind](F, D, bias=bias, dtype=torch.float64)
    params = from_pytorch_cell(module.state_dict())
    rng = np.random.default_rng(0)
    x, h, c = (rng.standard_normal((B, width)) for width in (F, D, D))
    states = (h, c) if kind == "lstm" else h
    want = module(torch.tensor(x), jax.tree.map(torch.tensor, states))
    cell = {"lstm": lstm(D), "gru": gru(D), "rnn": rnn(D)}[kind]
    carry = from_pytorch_carry(jax.tree.map(lambda s: s[None], states), kind)[0]
    got = unroll(cell, params, x[None], jax.tree.map(jnp.asarray, carry)).carry
    got = jax.tree.map(lambda s: s[0], to_pytorch_carry([got]))
    close(got, numpy(want))
    state = to_pytorch_cell(params, bias=bias)
    assert state.keys() == module.state_dict().keys()
    identical(from_pytorch_cell(state), params)


def test_bfloat16_tensors_are_told_by_name():
    state = torch.nn.RNN(2, 2, dtype=torch.bfloat16).state_dict()
    with pytest.raises(ValueError, match="^from_pytorch: weight_ih_l0 is not an array"):
        from_pytorch(state)
