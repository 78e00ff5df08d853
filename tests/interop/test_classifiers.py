"""Whole classifiers of PyTorch and Keras: the same logits in float64, by files."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import LAYERS, B, D, F, T, close, draw, identical, ours

from lstm_jax import bidirectional, gru, lstm, rnn, unroll
from lstm_jax.interop import (
    from_keras_classifier,
    from_pytorch_classifier,
    read_keras,
    read_torch,
    to_keras_classifier,
    to_pytorch_classifier,
    write_keras,
    write_torch,
)

K = 5
CELLS = {"lstm": lstm(D), "gru": gru(D), "rnn": rnn(D)}
FORMS = {"one": (1, 1), "two-layers": (2, 1), "both-ways": (2, 2)}
TABLE = [(kind, form) for kind in CELLS for form in FORMS]


def params_of(kind, form):
    layers, ways = FORMS[form]
    params = {"head": {"kernel": draw(8, ways * D, K), "bias": draw(9, K)}}
    for layer in range(layers):
        for way in ("", "_backward")[:ways]:
            made = ours(kind, ways * D if layer else F)
            made["b"] = made["b"] + 0.25 * layer + 0.125 * bool(way)  # no two alike
            params[f"layer_{layer}{way}"] = made
    return params


def logits(kind, params, xs):
    """What `SequenceClassifier` answers with pooling="last", in float64."""
    cell, layer = CELLS[kind], 0
    while (name := f"layer_{layer}") in params:
        if back := params.get(f"{name}_backward"):
            xs = bidirectional((cell, cell), (params[name], back), xs).ys
        else:
            xs = unroll(cell, params[name], xs).ys
        layer += 1
    if f"layer_{layer - 1}_backward" in params:
        pooled = jnp.concatenate([xs[-1, :, :D], xs[0, :, D:]], axis=-1)
    else:
        pooled = xs[-1]
    return pooled @ params["head"]["kernel"] + params["head"]["bias"]


@pytest.mark.parametrize("kind, form", TABLE)
def test_equals_a_module_of_pytorch(kind, form, x64, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is compared with")
    layers, ways = FORMS[form]

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
            made = kinds[kind](F, D, layers, bidirectional=ways == 2)
            setattr(self, kind, made)
            self.head = torch.nn.Linear(ways * D, K)

        def forward(self, xs):
            states = getattr(self, kind)(xs)[1]
            h = states[0] if kind == "lstm" else states
            return self.head(torch.cat(tuple(h[-ways:]), -1))

    params, xs = params_of(kind, form), draw(7, T, B, F)
    module = Theirs().double()
    path = write_torch(tmp_path / "x.pt", to_pytorch_classifier(params))
    module.load_state_dict(torch.load(path, weights_only=True))
    want = module(torch.from_numpy(xs)).detach().numpy()
    close(logits(kind, params, jnp.asarray(xs)), want)

    # Theirs has two biases that are not zero, and any names.
    torch.manual_seed(0)
    module = Theirs().double()
    outer = torch.nn.Sequential(module)
    torch.save({"model": outer.state_dict(), "epoch": 3}, tmp_path / "y.pt")
    theirs = from_pytorch_classifier(read_torch(tmp_path / "y.pt"))
    want = module(torch.from_numpy(xs)).detach().numpy()
    close(logits(kind, theirs, jnp.asarray(xs)), want)


@pytest.mark.parametrize("kind, form", TABLE)
def test_equals_a_model_of_keras(kind, form, x64, tmp_path):
    keras = pytest.importorskip("keras", reason="Keras is compared with")
    if keras.backend.backend() != "jax":
        pytest.skip("Keras runs on another backend here")
    layers, ways = FORMS[form]

    @keras.saving.register_keras_serializable()
    def tanh(x):
        return jnp.tanh(x)  # that of Keras computes in float32

    names = {"lstm": "LSTM", "gru": "GRU", "rnn": "SimpleRNN"}

    def model():
        stacked = [keras.Input((T, F), dtype="float64")]
        for layer in range(layers):
            own = getattr(keras.layers, names[kind])(
                D,
                return_sequences=layer < layers - 1,
                activation=tanh,
                dropout=0.5,
                dtype="float64",
            )
            both = keras.layers.Bidirectional(own, dtype="float64")
            stacked.append(both if ways == 2 else own)
        dense = keras.layers.Dense(K, name="answers", dtype="float64")
        return keras.Sequential(
            [*stacked, keras.layers.Dropout(0.5, dtype="float64"), dense]
        )

    params, xs = params_of(kind, form), draw(7, T, B, F)
    path = write_keras(tmp_path / "x.weights.h5", to_keras_classifier(params))
    built = model()
    built.load_weights(path)
    with jax.numpy_dtype_promotion("standard"):
        want = built(np.swapaxes(xs, 0, 1))
    close(logits(kind, params, jnp.asarray(xs)), want)

    built.set_weights(
        [draw(20 + k, *w.shape) for k, w in enumerate(built.get_weights())]
    )
    built.compile("adam", "mse")
    built.save_weights(tmp_path / "y.weights.h5")
    theirs = from_keras_classifier(read_keras(tmp_path / "y.weights.h5"))
    with jax.numpy_dtype_promotion("standard"):
        want = built(np.swapaxes(xs, 0, 1))
    close(logits(kind, theirs, jnp.asarray(xs)), want)


@pytest.mark.parametrize("kind, form", TABLE)
def test_there_and_back_is_identical(kind, form):
    params = params_of(kind, form)
    identical(from_pytorch_classifier(to_pytorch_classifier(params)), params)
    identical(from_keras_classifier(to_keras_classifier(params)), params)


def test_a_linear_layer_may_have_no_bias_or_be_missing():
    params = params_of("lstm", "one")
    state = to_pytorch_classifier(params)
    del state["head.bias"]
    assert not from_pytorch_classifier(state)["head"]["bias"].any()
    del state["head.weight"]
    assert set(from_pytorch_classifier(state)) == {"layer_0"}
    weights = to_keras_classifier(params)
    del weights["layers/dense/vars/1"]
    assert not from_keras_classifier(weights)["head"]["bias"].any()
    del weights["layers/dense/vars/0"]
    assert set(from_keras_classifier(weights)) == {"layer_0"}


def test_many_layers_stay_in_their_order():
    params = {f"layer_{k}": ours("rnn", F if not k else D) for k in range(12)}
    for k in range(12):
        params[f"layer_{k}"]["b"] = np.full(D, float(k))
    params["head"] = {"kernel": draw(8, D, K), "bias": draw(9, K)}
    identical(from_keras_classifier(to_keras_classifier(params)), params)
    identical(from_pytorch_classifier(to_pytorch_classifier(params)), params)


def changed(state, *, without=(), **others):
    return {k: v for k, v in state.items() if k not in without} | {
        k.replace("__", "."): v for k, v in others.items()
    }


BAD_PYTORCH = {
    "no array is called weight_hh_l0.*there are: lstm.bias_hh_l0, head": dict(
        without=[f"lstm.{n}_l0" for n in ("weight_hh", "weight_ih", "bias_ih")]
    ),
    "2 recurrent modules, lstm, other": dict(other__weight_hh_l0=draw(1, 4 * D, D)),
    r"missing: bias_hh_l0 \(16,\)": dict(without=["lstm.bias_hh_l0"]),
    r"of another shape: weight_ih_l0 is \(3, 2\)": dict(
        lstm__weight_ih_l0=draw(1, 3, 2)
    ),
    "2 linear layers.*head.weight, fc.weight": dict(fc__weight=draw(1, K, D)),
    r"unexpected: norm.weight \(4,\)": dict(norm__weight=draw(1, D)),
    r"of another shape: head.bias is \(4,\) and not \(5,\)": dict(
        head__bias=draw(1, 4)
    ),
}


@pytest.mark.parametrize("says", BAD_PYTORCH)
def test_other_modules_of_pytorch_are_refused_in_one_line(says):
    state = changed(
        to_pytorch_classifier(params_of("lstm", "one")), **BAD_PYTORCH[says]
    )
    with pytest.raises(ValueError, match=f"x.pt: .*{says}") as error:
        from_pytorch_classifier(state, caller="x.pt")
    assert "\n" not in str(error.value)


BAD_KERAS = {
    "of one kind and one Dense; there are: layers/conv2d": {
        "layers/conv2d/vars/0": draw(1, 3, 3)
    },
    "of one kind": {"layers/gru/cell/vars/0": draw(1, F, 3 * D)},
    "one Dense": {"layers/dense_1/vars/0": draw(1, D, K)},
    "missing: recurrent_kernel": {"layers/lstm_1/cell/vars/0": draw(1, D, 4 * D)},
    r"of another shape: kernel is \(3, 15\)": {
        "layers/lstm/cell/vars/0": draw(1, F, 15)
    },
    r"of another shape: bias is \(4,\)": {"layers/dense/vars/1": draw(1, 4)},
    r"its Dense has no kernel": {"layers/dense/vars/0": draw(1, 4)},
}


@pytest.mark.parametrize("says", BAD_KERAS)
def test_other_models_of_keras_are_refused_in_one_line(says):
    weights = to_keras_classifier(params_of("lstm", "one")) | BAD_KERAS[says]
    with pytest.raises(ValueError, match=f"x.h5: .*{says}") as error:
        from_keras_classifier(weights, caller="x.h5")
    assert "\n" not in str(error.value)


def test_what_these_libraries_do_not_have_is_refused():
    params = params_of("lstm", "one")
    params["layer_0"]["p_i"] = draw(1, D)
    encoded = params_of("lstm", "one") | {"encoder": {"w": draw(1, 2)}}
    for convert in (to_pytorch_classifier, to_keras_classifier):
        with pytest.raises(NotImplementedError, match="peepholes"):
            convert(params)
        with pytest.raises(NotImplementedError, match="the network has encoder"):
            convert(encoded)
    assert set(LAYERS) == set(CELLS)
