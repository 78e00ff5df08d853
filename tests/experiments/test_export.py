"""One file of a run: the same answers from it with JAX alone; bad files are refused."""

import io
import json
import os
import pickle
import re
import textwrap
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image
from selection import slow_but

from experiments.config import override, preset
from experiments.experiment import Experiment
from experiments.export import export
from experiments.predict import predict
from experiments.prediction import exported
from experiments.prediction.files import jaxexport_bytes
from experiments.spec import DataSpec
from lstm_jax import data
from lstm_jax.export import jaxexport, weights
from lstm_jax.interop import read_keras, read_safetensors, read_torch
from lstm_jax.training import flatten_params

# A fresh environment is made of this one by refusing all but JAX, NumPy and Pillow.
LEAN = """
import sys
MISSING = set(
    "flax optax orbax tensorflow tensorflow_datasets array_record chex sklearn "
    "matplotlib rich tyro torch keras h5py safetensors onnx".split()
)
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in MISSING or name.startswith(OURS):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
"""
MODELS = "lstm_jax.models", "lstm_jax.tasks", "lstm_jax.training", "lstm_jax.interop"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    test = data.load("digits").splits["test"].inputs
    for number in range(5):
        Image.fromarray(test[number, ..., 0]).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def digits_file(digits_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "new" / "digits.jaxexport"
    assert export(digits_run.directory, out) == out
    assert os.listdir(out.parent) == [out.name]
    return out


def test_predict_answers_alike_by_run_and_by_file(digits_run, digits_file, pictures):
    (pictures.parent / "no.png").write_bytes(b"no")
    paths = pictures, pictures.parent / "no.png"
    by_file, by_run = (
        predict(digits_file, *paths),
        predict(digits_run.directory, *paths),
    )
    assert [row["path"] for row in by_file] == [row["path"] for row in by_run]
    for a, b in zip(by_file[:-1], by_run[:-1], strict=True):
        assert a["label"] == b["label"] and a.keys() == b.keys()
        want, got = b["probabilities"], a["probabilities"]
        np.testing.assert_allclose(list(got.values()), list(want.values()), atol=1e-6)
    assert by_file[-1]["error"] == by_run[-1]["error"]


def test_predict_needs_no_more_than_jax(digits_run, digits_file, pictures, run_python):
    code = f"OURS = {(*MODELS, 'experiments.experiment')!r}"
    code += LEAN.replace("rich tyro", "")  # of the command line
    code += "from experiments.predict import main; sys.exit(main(sys.argv[1:]))"
    out = pictures.parent / "lean.jsonl"
    done = run_python("-c", code, digits_file, pictures, f"--out={out}")
    assert done.returncode == 0, done.stderr
    got = [json.loads(line) for line in out.read_text().splitlines()]
    want = predict(digits_run.directory, pictures)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a["confidence"], b["confidence"], atol=1e-6)
        assert re.search(f"{re.escape(b['path'])}  {b['label']}  ", done.stdout)


def test_the_documented_lines_need_none_of_our_code(digits_file, run_python):
    text = (Path(__file__).parents[2] / "docs" / "interop.md").read_text()
    (lines,) = re.findall(r"```python\n(import json.*?)```", text, re.DOTALL)
    code = "OURS = 'lstm_jax', 'experiments'" + LEAN + lines + "print(probabilities)"
    code = code.replace("model.jaxexport", str(digits_file))
    done = run_python("-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[") == 3  # of two pictures


def facts(config, shape, classes=3):
    names = [f"class {k}" for k in range(classes)]
    forecast = config.task.name == "forecasting"
    return DataSpec("x", names, shape, 0 if forecast else classes, [20.0], [0.01])


SMALL = {"model.features": 8}
# Small sums, run once: it is compiling that takes time.
QUICK = dict(compiler_options={"xla_backend_optimization_level": 0})
RUNS = {  # preset, shape of an example, options
    "rows": ("fashion-rows", [6, 5, 1], {}),
    "gru, both ways": ("digits", [8, 8, 1], {"model.cell": "gru"}),
    "bfloat16": ("digits", [8, 8, 3], {"precision": "bfloat16"}),
    "convolutions": ("moving-motion", [8, 12, 12, 1], {"model.cell.kernel_size": 3}),
    "an encoder": (
        "moving-motion",
        [8, 8, 8, 3],
        {"model.cell": "lstm", "model.encoder": "cnn", "model.pooling": "max"},
    ),
    "clips, both ways": (
        "moving-motion",
        [8, 4, 4, 1],
        {"model.cell": "lstm", "model.bidirectional": True, "model.pooling": "last"},
    ),
    "features, a label each step": (
        "features",
        [8, 7],
        {
            "model.bidirectional": False,
            "task": "multilabel",
        },
    ),
    "a regression": ("digits-angle", [8, 8, 1], {}),
    "masks": ("segment-digits", [16, 16, 1], {}),
    "boxes": ("detect-digits", [16, 16, 1], {}),
    "boxes of clips": ("detect-moving-digits", [3, 16, 16, 1], {}),
    "a forecast": (
        "moving-digits",
        [5, 8, 8, 1],
        {"task.horizon": 2, "model.cell.kernel_size": 3},
    ),
    "PredRNN": (
        "moving-digits-predrnn",
        [5, 8, 8, 1],
        {"task.horizon": 2, "model.kernel_size": 3},
    ),
}


def untrained(name):
    """`(experiment, params)` of a network that nobody trained."""
    from_preset, shape, options = RUNS[name]
    config = override(preset(from_preset), SMALL | options)
    experiment = Experiment(config, facts(config, shape))
    rng, key = np.random.default_rng(0), jax.random.key(0)
    shapes = jax.eval_shape(experiment.init, key)
    params = jax.tree.map(
        lambda leaf: 0.2 * rng.standard_normal(leaf.shape, np.float32), shapes
    )
    return experiment, params


def answers(experiment, params):
    """What it has to be equal to: one program, of one shape."""
    want = jax.jit(lambda batch: experiment.predictions(params, batch), **QUICK)
    return lambda **batch: np.asarray(want(batch))


def made(name, tmp_path, streaming=False):
    """An exported file, what it has to equal, and the shape of an example."""
    parts = untrained(name)
    path = tmp_path / "x.jaxexport"
    path.write_bytes(jaxexport_bytes(*parts, {}, streaming))
    return jaxexport.read(path), answers(*parts), parts[0].spec.image_shape


def drawn(seed, *shape, kind="images"):
    rng = np.random.default_rng(seed)
    if kind == "features":
        return rng.standard_normal(shape, np.float32)
    return rng.integers(0, 256, shape, np.uint8)


# Another engine sums in another order; through a bfloat16 network that is 2**-8.
CLOSE = {"bfloat16": dict(atol=2e-2), "boxes": dict(atol=1e-3, rtol=1e-5)}


@pytest.mark.parametrize(
    "name",
    slow_but(RUNS, "clips, both ways", "boxes"),
)
def test_a_file_answers_batches_of_any_size_and_clips_of_any_length(name, tmp_path):
    (about, functions), want, shape = made(name, tmp_path)
    kind = about["inputs"]["kind"]
    function = functions["answer"]
    assert set(function.platforms) == {"cpu", "cuda", "tpu"}
    frames = about["inputs"].get("frames")
    varies = len(function.in_avals) == 2  # clips of any length
    close = CLOSE.get(name, dict(atol=1e-5, rtol=1e-5))
    sizes = ((1, 8), (3, 5)) if varies else ((1, frames), (3, frames))
    if about["task"] not in ("classification", "regression", "multilabel"):
        sizes = sizes[1:]
    for batch, steps in sizes:
        # What is wanted comes from a batch of three whole clips.
        inputs = {"inputs": drawn(batch, 3, *shape, kind=kind)}
        given = [inputs["inputs"][:batch]]
        if kind != "images":
            given[0] = given[0][:, :steps]
        if about["task"] == "forecasting":
            inputs["inputs"][:, steps:] = 0
        if varies:
            inputs["lengths"] = np.int32([steps, 1, 3])
            given.append(inputs["lengths"][:batch])
        got = jax.jit(function.call, **QUICK)(*given)
        expected = want(**inputs)[:batch]
        if expected.shape != got.shape:  # a label for each step
            expected = expected[:, :steps]
        np.testing.assert_allclose(got, expected, **close)


STREAMS = ["convolutions", "an encoder", "features, a label each step", "PredRNN"]


@pytest.mark.parametrize("name", slow_but(STREAMS, "an encoder"))
def test_the_streaming_step_answers_as_whole_clips_are_answered(name, tmp_path):
    (about, functions), want, shape = made(name, tmp_path, streaming=True)
    clip = drawn(1, *shape, kind=about["inputs"]["kind"])
    state, step = functions["start"].call(), jax.jit(functions["step"].call, **QUICK)
    for number, frame in enumerate(clip):
        state, output = step(state, frame)
        steps = number + 1
        if about["task"] == "forecasting":
            if steps == about["inputs"]["frames"]:
                whole = want(inputs=clip[None])[0][0]
                np.testing.assert_allclose(np.clip(output, 0, 1), whole, atol=1e-5)
            continue
        whole = want(inputs=clip[None], lengths=np.int32([steps]))[0]
        whole = whole[number] if whole.ndim == 2 else whole
        np.testing.assert_allclose(output, whole, atol=1e-5)
    assert all(isinstance(leaf, jax.Array) for leaf in state)


def test_live_and_clips_by_a_file(tmp_path, command):
    made("convolutions", tmp_path, streaming=True)
    file, clip = tmp_path / "x.jaxexport", tmp_path / "clip.gif"
    frames = [Image.fromarray(frame[..., 0]) for frame in drawn(2, 6, 12, 12, 1)]
    frames[0].save(clip, save_all=True, append_images=frames[1:], optimize=False)
    (whole,) = predict(file, clip)
    found = exported.watch(file, str(clip), every=0)
    assert found["frames"] == 6
    want = list(whole["probabilities"].values())
    np.testing.assert_allclose(found["outputs"], want, atol=1e-6)
    code, out, _ = command("predict", file, "--live", clip)
    assert code == 0 and "6 frames; milliseconds per frame: p50" in out
    made("convolutions", tmp_path)
    code, _, err = command("predict", file, "--live", clip)
    assert code == 2 and "export it with --streaming" in err


def test_weights_by_the_names_of_each_library(digits_run, tmp_path, command):
    run, want = (
        digits_run.directory,
        {k: np.asarray(v) for k, v in flatten_params(digits_run.params).items()},
    )
    code, out, _ = command("export", run, "--format=safetensors")
    assert code == 0 and "model.safetensors" in out
    got = read_safetensors(run / "model.safetensors")
    assert got.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array)
    (run / "model.safetensors").unlink()
    theirs = read_torch(export(run, tmp_path / "x.pt"))
    np.testing.assert_array_equal(theirs["lstm.weight_ih_l0"], want["layer_0/w_x"].T)
    same = read_safetensors(export(run, tmp_path / "y.safetensors", format="pytorch"))
    assert same.keys() == theirs.keys()
    pytest.importorskip("h5py", reason="it writes files of Keras's weights")
    theirs = read_keras(export(run, tmp_path / "x.weights.h5"))
    np.testing.assert_array_equal(theirs["layers/dense/vars/1"], want["head/bias"])


@pytest.mark.parametrize(
    "flags, words",
    [
        (
            ["--out=x.foo"],
            "the suffix must be one of .jaxexport, .onnx, .pt, .weights.h5",
        ),
        (["--out=x.pt", "--format=keras"], "--out=x.pt does not fit --format=keras"),
        (["--out=x.pt", "--streaming"], "--streaming is for .jaxexport"),
        (["--streaming"], "--streaming needs a run on clips"),
    ],
)
def test_mistakes_get_one_line_and_no_file(digits_run, command, flags, words):
    before = sorted(digits_run.directory.iterdir())
    code, _, err = command("export", digits_run.directory, *flags)
    assert code == 2 and words in err and err.count("\n") == 1
    assert not os.listdir() and sorted(digits_run.directory.iterdir()) == before


def test_other_mistakes(tmp_path, command):
    code, _, err = command("export", tmp_path)
    assert code == 2 and "holds no run" in err
    with pytest.raises(NotImplementedError, match="the network has encoder"):
        weights.write(tmp_path / "x.h5", {"encoder": {}, "layer_0": {}}, "keras")
    with pytest.raises(ValueError, match="--streaming: .*bidirectional"):
        made("clips, both ways", tmp_path, streaming=True)
    made("masks", tmp_path)
    with pytest.raises(ValueError, match="predict does not support segmentation"):
        predict(tmp_path / "x.jaxexport", tmp_path)


class Evil:
    def __reduce__(self):
        return os.mkdir, (self.path,)


def rezipped(whole, *, kind=zipfile.ZIP_STORED, **parts):
    """The same file with other parts; None leaves one out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w") as new:
        parts = {name.replace("__", "."): part for name, part in parts.items()}
        for name, part in ({n: old.read(n) for n in old.namelist()} | parts).items():
            if part is not None:
                new.writestr(name, part, kind)
    return out.getvalue()


def table(whole, **changes):
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        about = json.loads(file.read("about.json"))
    return rezipped(whole, about__json=json.dumps(about | changes))


def claims(whole, size=10 * 2**30 % 2**32):
    """Both headers of the table say so; what is over 32 bits stands elsewhere."""
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        old = file.getinfo("about.json").file_size.to_bytes(4, "little") * 2
    return whole.replace(old, size.to_bytes(4, "little") * 2)


def calling(whole, path):
    """A program that calls a function of the machine it runs on, by name."""
    name = "xla_ffi_python_cpu_callback"
    shape = jax.ShapeDtypeStruct((2, 10), jnp.float32)
    run = jax.jit(lambda x: jax.ffi.ffi_call(name, shape)(x))
    made = jax_export.export(
        run, disabled_checks=[jax_export.DisabledSafetyCheck.custom_call(name)]
    )(jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.uint8))
    return rezipped(whole, answer__bin=bytes(made.serialize()))


BAD = {
    "not a zip file|truncated": lambda whole, made: whole[: len(whole) // 2],
    "File is not a zip file": lambda whole, made: pickle.dumps(Evil_at(made)),
    "not a zip": lambda whole, made: b"",
    "claims 2,147,483,648 bytes": lambda whole, made: claims(whole),
    "claims 4,294,967,294 bytes": lambda whole, made: claims(whole, 2**32 - 2),
    "compressed": lambda whole, made: rezipped(whole, kind=zipfile.ZIP_DEFLATED),
    "it holds no answer.bin": lambda whole, made: rezipped(whole, answer__bin=None),
    "it holds no start.bin": lambda whole, made: rezipped(whole, step__bin=b"x"),
    "it holds .*evil.pkl": lambda whole, made: rezipped(
        whole, evil__pkl=pickle.dumps(Evil_at(made))
    ),
    "about.json is missing or damaged": lambda whole, made: rezipped(
        whole, about__json=b"{"
    ),
    "is not that of format 1": lambda whole, made: table(whole, format=2),
    "is not that of format": lambda whole, made: table(whole, classes=3),
    "is not that of form": lambda whole, made: table(whole, thresholds=[0.5]),
    "is not that": lambda whole, made: table(
        whole, inputs={"kind": "images", "shape": [2**20, 2**13, 1]}
    ),
    "its about.json says": lambda whole, made: table(
        whole, inputs={"kind": "images", "shape": [9, 8, 1]}
    ),
    "about.json has 3 classes": lambda whole, made: table(whole, classes=["a"] * 3),
    "answer.bin is damaged": lambda whole, made: rezipped(whole, answer__bin=b"x" * 99),
    "answer.bin is damaged, or": lambda whole, made: rezipped(
        whole, answer__bin=pickle.dumps(Evil_at(made))
    ),
    "would call xla_.*callback, and was not run": calling,
}


def Evil_at(path):
    evil = Evil()
    evil.path = path
    return evil


@pytest.mark.parametrize("says", BAD)
def test_a_bad_file_is_refused_in_one_line(says, digits_file, tmp_path, command):
    path, made = tmp_path / "x.jaxexport", tmp_path / "made"
    path.write_bytes(BAD[says](digits_file.read_bytes(), str(made)))
    code, out, err = command("predict", path, "some.png")
    assert code == 2 and not out
    assert re.search(f"x.jaxexport: not a readable .jaxexport file.*{says}", err), err
    assert err.count("\n") == 1 and os.listdir(tmp_path) == ["x.jaxexport"]


def test_a_damaged_byte_is_found(digits_file, tmp_path, command):
    whole = bytearray(digits_file.read_bytes())
    whole[len(whole) // 2] ^= 1
    (tmp_path / "x.jaxexport").write_bytes(whole)
    code, _, err = command("predict", tmp_path / "x.jaxexport", "some.png")
    assert code == 2 and "Bad CRC-32" in err and err.count("\n") == 1


def test_a_program_that_is_damaged_inside_its_frame(digits_file, tmp_path, run_python):
    """By one who knows the format: its checksums hold, MLIR's reader finds it."""
    whole = digits_file.read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        program = bytearray(file.read("answer.bin"))
    at = program.index(b"StableHLO")
    program[at + 40 : at + 90] = bytes(50)
    path = tmp_path / "x.jaxexport"
    path.write_bytes(rezipped(whole, answer__bin=bytes(program)))
    done = run_python("-m", "experiments.predict", path, "some.png")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "its answer.bin is damaged" in done.stderr


def test_the_same_run_gives_the_same_bytes_without_paths(
    digits_run, digits_file, tmp_path
):
    again = export(digits_run.directory, tmp_path / "again.jaxexport")
    assert again.read_bytes() == digits_file.read_bytes()
    assert b".py" not in again.read_bytes()
