"""kraken's files of weights: what is read of them, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.interop import read_safetensors_metadata, write_safetensors
from lstm_jax.models import VGSLNet, load_kraken
from lstm_jax.models.kraken import describe_kraken
from lstm_jax.models.vgsl import parse
from tests.models.kraken_files import PREFIX, tensors, write

SPEC = (
    "[1,16,0,1 Cr{C_0}3,5,6,2,1 Gn{Gn_1}3 Do{Do_2}0.1,2 (Cl{C_3}3,3,4 [Cr{C_4}1,1,3 "
    "Ct{C_5}3,3,2] I{I_6}) Mp{Mp_7}2,2 S{S_8}1(1x0)1,3 Lbx{L_9}5 Lfx{L_10}4 O{O_11}1c4]"
)


def made(spec=SPEC, seed=0):
    """Params of a spec's network, none of them zero."""
    blank = jnp.zeros((1, 16, 40, 1))
    shapes = jax.eval_shape(VGSLNet(parse(spec)).init, jax.random.key(0), blank)
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (0.4 * rng.standard_normal(leaf.shape)).astype(np.float32),
        shapes["params"],
    )


def images(count=2, width=40):
    rng = np.random.default_rng(1)
    return rng.random((count, 16, width, 1), np.float32)


def test_a_network_answers_as_that_of_its_params(tmp_path):
    params = made()
    file = write(tmp_path / "a.safetensors", SPEC, params, "xyz")
    kept = {
        name.split("nn.")[1]: array.shape for name, array in tensors(params).items()
    }
    assert kept["C_0.co.weight"] == (6, 1, 3, 5)  # as kraken has them
    assert kept["L_9.layer.weight_ih_l0_reverse"] == (20, 4 * 12)
    found = load_kraken(file)
    assert describe_kraken(file) == (found.spec, found.alphabet)
    assert found.alphabet == ("x", "y", "z")
    assert str(found.spec) == SPEC.replace("O{O_11}", "O")
    wanted = VGSLNet(parse(SPEC)).apply({"params": params}, images())
    answers = VGSLNet(found.spec).apply({"params": found.params}, images())
    np.testing.assert_array_equal(answers, wanted)
    assert np.ptp(wanted) > 0.1


def test_half_floats_and_characters_of_two_code_points(tmp_path):
    spec = "[1,16,0,1 S{S_0}1(1x0)1,3 Lfx{L_1}3 O{O_2}1c3]"
    params = jax.tree.map(lambda x: x.astype(np.float16), made(spec))
    found = load_kraken(
        write(tmp_path / "a.safetensors", spec, params, ["e\u0301", "b"])
    )
    assert found.alphabet == ("e\u0301", "b")
    codec = {"codec": json.dumps({"e\u0301": [2], "b": [1]})}
    file = write(tmp_path / "b.safetensors", spec, params, "", **codec)
    assert load_kraken(file).alphabet == ("b", "e\u0301")
    assert {leaf.dtype for leaf in jax.tree.leaves(found.params)} == {np.dtype("f4")}


def test_a_spec_says_what_kraken_does(tmp_path):
    spec = (
        "[1,16,0,1 S{S_0}1(1x0)1,3 Grx{G_1}3 O{O_2}1c5 Lrx{L_3}2 O{O_4}1c3]"  # as saved
    )
    runs = "[1,16,0,1 S{S_0}1(1x0)1,3 Lfx{G_1}3 Cl{O_2}1,1,5 Lfx{L_3}2 O{O_4}1c3]"
    params = made(runs)
    named = {**params, "O_2": {**params["O_2"]}}
    named["O_2"]["kernel"] = named["O_2"]["kernel"][0, 0]
    found = load_kraken(write(tmp_path / "a.safetensors", spec, named, "ab"))
    assert str(found.spec) == runs.replace("O{O_4}", "O")
    np.testing.assert_array_equal(
        VGSLNet(found.spec).apply({"params": found.params}, images()),
        VGSLNet(parse(runs)).apply({"params": params}, images()),
    )


LSTM = "[1,16,0,1 S{S_0}1(1x0)1,3 Lfx{L_1}3 O{O_2}1c3]"


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"codec": {"a": [1]}}, "1 characters have labels"),
        ({"codec": {"a": [1, 2], "b": [2]}}, r"'a' has the labels \[1, 2\]"),
        ({"_model": "ROMLP"}, r"there are 0 among its networks \(ROMLP\)"),
        ({"codec": None}, "expected one recogniser"),
        ({"codec": {"a": ["1"], "b": [2]}}, "'a' has the labels"),
        ({"vgsl": LSTM.replace("Lfx", "Lbx")}, "L_1/backward"),
        ({"vgsl": LSTM.replace("x{L_1}", "xo{L_1}")}, "legacy LSTMs"),
        ({"vgsl": LSTM.replace("Lfx{L_1}3", "Lfx{L_1}4")}, "L_1/forward"),
        ({"vgsl": LSTM.replace("L_1", "L_7")}, r"no weights of Lfx\{L_7\}3"),
        (
            {"vgsl": LSTM.replace("O{O_2}1c3", "O{O_2}2l3")},
            "does not output a sequence for CTC",
        ),
        ({"vgsl": LSTM.replace("Lfx", "Cs{C_9}1,1,16 Lfx")}, "omits the sigmoid"),
        ({"vgsl": LSTM.replace("Lfx", "Lbxs{L_9}4 Lfx")}, "end of the line"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(tmp_path, about, message):
    file = write(tmp_path / "a.safetensors", LSTM, made(LSTM), "ab", **about)
    with pytest.raises(ValueError, match=message) as caught:
        load_kraken(file)
    assert "legacy" in message or "\n" not in str(caught.value)  # a spec is pointed at


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "kraken did not write this file"),
        ({"kraken_meta": "{"}, "damaged"),
        ({"kraken_meta": "[]"}, "damaged"),
        ({"kraken_meta": '{"a": {}}'}, "damaged"),
        ({"kraken_meta": '{"a": {"_model": "TorchVGSLModel", "codec": 3}}'}, "damaged"),
    ],
)
def test_another_file_is_refused(tmp_path, metadata, message):
    file = write_safetensors(tmp_path / "a.safetensors", tensors(made()), metadata)
    with pytest.raises(ValueError, match=message):
        load_kraken(file)


def test_a_missing_array_is_named(tmp_path):
    file = write(tmp_path / "a.safetensors", LSTM, made(LSTM), "ab")
    metadata, arrays = read_safetensors_metadata(file), tensors(made(LSTM))
    del arrays[f"{PREFIX}.nn.O_2.lin.bias"]
    write_safetensors(file, arrays, metadata)
    with pytest.raises(ValueError, match=r"O\{O_2\}1c3 has weight"):
        load_kraken(file)
