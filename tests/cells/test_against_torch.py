"""Dense cells equal PyTorch's, in float64: outputs, final states and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax import bidirectional, gru, lstm, rnn, unroll

torch = pytest.importorskip("torch", reason="PyTorch is compared with, not required")

T, B, F, D, P = 6, 4, 3, 5, 2
LENGTHS = np.array([3, 6, 1, 4])  # PyTorch refuses 0
CELLS = {
    "lstm": (lstm(D), torch.nn.LSTM, {}),
    "lstm-projection": (lstm(D, projection=P), torch.nn.LSTM, {"proj_size": P}),
    "gru": (gru(D), torch.nn.GRU, {}),
    "rnn-tanh": (rnn(D), torch.nn.RNN, {}),
    "rnn-relu": (
        rnn(D, activation=jax.nn.relu),
        torch.nn.RNN,
        {"nonlinearity": "relu"},
    ),
}
FORMS = {  # number of layers, suffixes of the directions, lengths
    "packed": (1, [""], LENGTHS),
    "bidirectional": (1, ["", "_reverse"], None),
    "two-layers": (2, [""], None),
    "two-layers-bidirectional-packed": (2, ["", "_reverse"], LENGTHS),
}


def from_torch(arrays, place):
    """Our params from PyTorch's of one layer and direction, such as "l0_reverse".

    Rows of blocks become columns, in the same order. Of two biases that are always
    added we have the sum; the reset gate of a GRU comes between two, which stay.
    """
    names = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
    w_ih, w_hh, b_ih, b_hh = (arrays[f"{name}_{place}"] for name in names)
    params = {"w_x": w_ih.T, "w_h": w_hh.T, "b": b_ih + b_hh}
    if len(b_ih) == 3 * D:
        params["b"] = b_ih.at[: 2 * D].add(b_hh[: 2 * D])
        params["b_n"] = b_hh[2 * D :]
    if f"weight_hr_{place}" in arrays:
        params["w_p"] = arrays[f"weight_hr_{place}"].T
    return params


def theirs(module, xs, states, lengths):
    """Outputs and final states of PyTorch; states by name, `[layers * ways, B, D]`."""
    initial = (states["h"], states["c"]) if "c" in states else states["h"]
    if lengths is not None:
        xs = torch.nn.utils.rnn.pack_padded_sequence(
            xs, torch.tensor(lengths), enforce_sorted=False
        )
    ys, last = module(xs, initial)
    if lengths is not None:
        ys, _ = torch.nn.utils.rnn.pad_packed_sequence(ys)
    return ys, dict(zip("hc", last, strict=True)) if "c" in states else {"h": last}


def ours(cell, arrays, xs, states, form, engine):
    """The same of our cells, layer by layer, from the weights of PyTorch."""
    layers, ways, lengths = form
    Carry = type(cell.carry(None, (), (F,)))
    options = {"engine": engine}
    if lengths is not None:
        options["lengths"] = jnp.asarray(lengths)
    last = []
    for layer in range(layers):
        params = [from_torch(arrays, f"l{layer}{way}") for way in ways]
        at = layer * len(ways)
        carries = [
            Carry(**{name: state[at + k] for name, state in states.items()})
            for k in range(len(ways))
        ]
        if len(ways) == 2:
            xs, ends = bidirectional((cell, cell), params, xs, carries, **options)
        else:
            xs, *ends = unroll(cell, *params, xs, *carries, **options)
        last += ends
    return xs, {name: jnp.stack([getattr(c, name) for c in last]) for name in states}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", ["scan", "vjp"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CELLS)
def test_equals_torch(name, form, engine):
    cell, Module, options = CELLS[name]
    layers, ways, lengths = FORMS[form]
    torch.manual_seed(0)
    module = Module(
        F, D, layers, bidirectional=len(ways) == 2, dtype=torch.float64, **options
    )
    rng = np.random.default_rng(0)
    arrays = {k: p.detach().numpy() for k, p in module.named_parameters()}
    xs = rng.standard_normal((T, B, F))
    states = {
        k: rng.standard_normal((layers * len(ways), B, leaf.shape[-1]))
        for k, leaf in cell.carry(None, (), (F,))._asdict().items()
    }
    weights = rng.standard_normal((T, B, states["h"].shape[-1] * len(ways)))

    xs_t = torch.tensor(xs, requires_grad=True)
    states_t = {k: torch.tensor(s, requires_grad=True) for k, s in states.items()}
    want = theirs(module, xs_t, states_t, lengths)
    loss_t = (want[0] * torch.tensor(weights)).sum()
    (loss_t + sum(torch.sin(s).sum() for s in want[1].values())).backward()
    want_grads = (dict(module.named_parameters()), xs_t, states_t)
    want_grads = jax.tree.map(lambda leaf: leaf.grad.numpy(), want_grads)

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def grad(at):
        ys, last = ours(cell, *at, FORMS[form], engine)
        loss = (ys * weights).sum() + sum(jnp.sin(s).sum() for s in last.values())
        return loss, (ys, last)

    grads, got = grad(jax.tree.map(jnp.asarray, (arrays, xs, states)))

    def same(got, want):
        # The same float64 sums in another order.
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)

    jax.tree.map(same, got, jax.tree.map(lambda leaf: leaf.detach().numpy(), want))
    jax.tree.map(same, grads, want_grads)
