"""ONNX: onnxruntime answers as the network does; jax2onnx has an environment apart."""

import importlib.util
import json
import os

import numpy as np
import pytest
from test_export import answers, drawn, untrained

from experiments.predict import predict
from experiments.prediction.files import onnx_bytes

NAMES = ["rows", "gru, both ways", "convolutions", "an encoder", "clips, both ways"]
NAMES += ["features, a label each step", "a regression"]


def test_without_jax2onnx_one_line_says_what_to_do(digits_run, command):
    if importlib.util.find_spec("jax2onnx"):
        pytest.skip("jax2onnx is installed here")
    code, _, err = command("export", digits_run.directory, "--out=x.onnx")
    assert code == 2 and "pip install lstm_jax jax2onnx" in err
    assert err.count("\n") == 1 and not os.listdir()


def session(content):
    ort = pytest.importorskip("onnxruntime", reason="it runs ONNX")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(content, options)


@pytest.mark.slow  # jax2onnx takes seconds to import
@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_answers_alike(name):
    pytest.importorskip("jax2onnx", reason="it writes ONNX, in an environment apart")
    parts = untrained(name)
    tuned = {"thresholds": [0.5, 0.25]}
    runs, want = session(onnx_bytes(*parts, tuned)), answers(*parts)
    metadata = runs.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["thresholds"]) == tuned["thresholds"]
    shape = parts[0].spec.image_shape
    kind = "features" if len(shape) == 2 else "clips"
    names = [entry.name for entry in runs.get_inputs()]
    assert names == ["inputs", "lengths"][: 1 + (len(shape) != 3)]
    for batch in (1, 2, 5):
        inputs = {"inputs": drawn(batch, batch, *shape, kind=kind)}
        if len(names) == 2:
            inputs["lengths"] = np.int32([5, shape[0], 3, 1, 4])[:batch]
        (got,) = runs.run(["outputs"], inputs)
        np.testing.assert_allclose(got, want(**inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_run_as_onnx(digits_run, tmp_path, command):
    pytest.importorskip("jax2onnx", reason="it writes ONNX, in an environment apart")
    from PIL import Image

    out = tmp_path / "x.onnx"
    code, _, err = command("export", digits_run.directory, f"--out={out}")
    assert code == 0, err
    runs = session(out.read_bytes())
    words = runs.get_modelmeta().custom_metadata_map
    assert json.loads(words["classes"]) == [str(k) for k in range(10)]
    pixels = drawn(0, 8, 8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    (row,) = predict(digits_run.directory, tmp_path / "x.png")
    (got,) = runs.run(["outputs"], {"inputs": pixels[None, ..., None]})
    np.testing.assert_allclose(got[0], list(row["probabilities"].values()), atol=1e-5)


@pytest.mark.slow
def test_what_is_not_exported_is_refused():
    pytest.importorskip("jax2onnx", reason="it writes ONNX, in an environment apart")
    with pytest.raises(
        NotImplementedError, match="ONNX export does not support segmentation"
    ):
        onnx_bytes(*untrained("masks"), {})
