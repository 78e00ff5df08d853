"""Training begins with files of weights; bad ones are refused, and nothing is made."""

import json
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
from selection import slow_unless
from small_runs import SMALL_FLAGS, SMALL_MODEL

from experiments import train
from experiments.export import export
from experiments.run.init_from import weights_from
from experiments.run.load_run import load_run
from lstm_jax.interop import (
    read_safetensors,
    to_pytorch_classifier,
    write_safetensors,
    write_torch,
)
from lstm_jax.training import flatten_params

OPTIONS = dict(accelerator="cpu", steps=2, batch_size=16, baselines=False)
OPTIONS |= SMALL_MODEL
ENDINGS = [".safetensors", ".pt", ".weights.h5", "pytorch.safetensors"]


@pytest.fixture(scope="module")
def digits(digits_run):
    """`(facts, params)` of the finished run."""
    experiment, params = load_run(digits_run.directory)
    about = experiment.spec
    return about, params


def written(digits_run, folder, ending):
    if ending == ".weights.h5":
        pytest.importorskip("h5py", reason="it reads files of Keras's weights")
    own = dict(format="pytorch") if ending.startswith("pytorch") else {}
    return export(digits_run.directory, folder / f"x{ending}", **own)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_exported_comes_back_bit_by_bit(ending, digits_run, digits, tmp_path):
    about, params = digits
    path = written(digits_run, tmp_path, ending)
    blank = {}
    for name, leaf in flatten_params(params).items():
        blank.setdefault(name.split("/")[0], {})[name.split("/")[1]] = 0 * leaf
    filled, lines = weights_from(str(path), about, blank)
    count = len(flatten_params(params))
    assert f"{count} of {count} parameters" in lines[0]
    for name, leaf in flatten_params(filled).items():
        assert leaf.dtype == np.float32
        np.testing.assert_array_equal(leaf, flatten_params(params)[name], err_msg=name)


def test_a_training_begins_with_a_file(digits_run, tmp_path, capsys):
    path = written(digits_run, tmp_path, ".pt")
    options = OPTIONS | dict(optimizer__freeze="layer_0", run_dir=tmp_path / "run")
    run = train("digits", init_from=path, **options)
    assert "loaded 5 of 5 parameters" in " ".join(capsys.readouterr().out.split())
    ours, theirs = flatten_params(run.params), flatten_params(digits_run.params)
    for name in ours:
        same = np.array_equal(ours[name], theirs[name])
        assert same == name.startswith("layer_0"), name


def test_a_file_of_ours_tells_its_classes(digits_run, digits, tmp_path):
    about, params = digits
    path = written(digits_run, tmp_path, ".safetensors")
    other = type(about)(**vars(about) | {"classes": about.classes[::-1]})
    filled, lines = weights_from(str(path), other, params)
    kernel = np.asarray(params["head"]["kernel"])
    np.testing.assert_array_equal(filled["head"]["kernel"], kernel[:, ::-1])
    assert "in part, for 10 classes of the same name" in lines[1]
    # Without its words the columns are taken as they are.
    write_safetensors(path, read_safetensors(path))
    filled, _ = weights_from(str(path), other, params)
    np.testing.assert_array_equal(filled["head"]["kernel"], kernel)


def test_a_file_without_an_output_layer_leaves_ours(digits, tmp_path):
    about, params = digits
    state = to_pytorch_classifier(params)
    state = {name: a for name, a in state.items() if not name.startswith("head")}
    filled, lines = weights_from(
        str(write_torch(tmp_path / "x.pt", state)), about, params
    )
    assert lines[1:] == ["  not in the file: head/bias, head/kernel"]
    np.testing.assert_array_equal(filled["head"]["bias"], params["head"]["bias"])


class Evil:
    def __reduce__(self):
        return os.mkdir, (self.path,)


def pickled(made):
    evil = Evil()
    evil.path = str(made)
    return pickle.dumps({"lstm.weight_hh_l0": evil}, protocol=2)


def bare_pickle(path, made, state):
    path.write_bytes(pickled(made))


def zipped_pickle(path, made, state):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", pickled(made))


def truncated(path, made, state):
    write = write_torch if path.suffix == ".pt" else write_safetensors
    write(path, state)
    path.write_bytes(path.read_bytes()[:-100])


def claiming(path, made, state):
    about = {"w": {"dtype": "F32", "shape": [10 * 2**28]}}
    about["w"]["data_offsets"] = [0, 10 * 2**30]
    text = json.dumps(about).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def other_keys(path, made, state):
    write_torch(path, {f"{name}.w": array for name, array in state.items()})


def own_other_keys(path, made, state):
    write_safetensors(path, {"block/w": np.ones((2, 2), np.float32)})


def without(path, made, state):
    del state["lstm.bias_hh_l0"]
    write_torch(path, state)


def wider(path, made, state):
    state["head.weight"] = np.ones((12, 8), np.float32)
    state["head.bias"] = np.ones(12, np.float32)
    write_torch(path, state)


def one_way(path, made, state):
    state["head.weight"] = np.ones((10, 16), np.float32)  # of a network of both ways
    write_torch(path, state)


def of_keras(path, made, state):
    h5py = pytest.importorskip("h5py", reason="it reads files of Keras's weights")
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.ones((3, 3))


BAD = {
    ("x.pt", "is not a zip file"): bare_pickle,
    ("x.pt", "it would call .*mkdir, and was not read"): zipped_pickle,
    ("x.pt", "not a readable .pt file"): truncated,
    ("x.safetensors", "not a readable .safetensors file"): truncated,
    ("x.safetensors", r"w \(2684354560,\) wants 10,737,418,240 bytes"): claiming,
    ("x.safetensors", "its header claims"): bare_pickle,
    ("x.pt", "no array is called weight_hh_l0; .* there are: lstm.weight"): other_keys,
    ("x.safetensors", "no parameter .block/w. matches"): own_other_keys,
    ("x.pt", r"missing: bias_hh_l0 \(32,\)"): without,
    (
        "x.pt",
        r"of another shape: .*head/kernel is \(8, 12\) and not \(8, 10\)",
    ): wider,
    ("x.pt", "missing: layer_0_backward/w_x|layer_0_backward/b"): one_way,
    ("x.weights.h5", "not a readable .weights.h5 file"): bare_pickle,
    ("x.weights.h5", "of one kind and one Dense; there are: layers/conv2d"): of_keras,
    ("x.npz", "with the suffix .pt, .pth, .safetensors, .h5"): bare_pickle,
    ("x.pt", "no such file"): lambda path, made, state: None,
}
QUICK = zipped_pickle, claiming, own_other_keys, without, wider, one_way


@pytest.mark.parametrize(
    "name, says", [slow_unless(make in QUICK, *case) for case, make in BAD.items()]
)
def test_a_bad_file_is_refused_before_anything_is_made(
    name, says, digits, tmp_path, command
):
    if name.endswith(".h5"):
        pytest.importorskip("h5py", reason="it reads files of Keras's weights")
    path, made = tmp_path / name, tmp_path / "made"
    BAD[name, says](path, made, to_pytorch_classifier(digits[1]))
    flags = [*SMALL_FLAGS, f"--init-from={path}", f"--run-dir={tmp_path / 'run'}"]
    if BAD[name, says] is one_way:
        flags.append("--model.bidirectional")
    code, _, err = command("train", "digits", *flags)
    assert code == 2 and re.search(f"{re.escape(str(path))}.*(?:{says})", err), err
    assert err.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} <= {name}  # nothing ran
