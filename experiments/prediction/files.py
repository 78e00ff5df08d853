"""The contents of exported files, as bytes."""

import dataclasses
import importlib.util
import json
from typing import Any

import jax

import lstm_jax
from experiments.choices import to_dict
from experiments.errors import UsageError
from experiments.experiment import Experiment
from experiments.prediction.predictor import sampling_of
from experiments.prediction.trained import stepwise, whole
from lstm_jax.export import jaxexport, onnx


def jaxexport_bytes(
    experiment: Experiment, params: Any, tuned: dict[str, Any], streaming: bool
) -> bytes:
    """A .jaxexport file.

    Args:
      experiment: of the run.
      params: of its network.
      tuned: from `tuned_of`.
      streaming: include the step for one frame.

    Raises:
      UsageError: the network cannot be streamed.
    """
    function, inputs = whole(experiment, params)
    made = jaxexport.exported(function, *jaxexport.symbolic_inputs(inputs))
    functions = {"answer": made}
    config, spec = experiment.config, experiment.spec
    if streaming and spec.is_image:
        raise UsageError("--streaming needs a run on clips; this one is on images")
    if streaming:
        try:
            start, step, frame = stepwise(experiment, params)
        except ValueError as error:
            raise UsageError(f"--streaming: {error}") from error
        frame = jax.ShapeDtypeStruct(*frame)
        functions["start"] = jaxexport.exported(start)
        functions["step"] = jaxexport.exported(step, jax.eval_shape(start), frame)
    shape = tuple(spec.image_shape)
    if spec.is_image:
        described = {"kind": "images", "shape": shape}
        if spec.depth:
            described["depth"] = spec.depth
        described["fit"] = spec.fit
    else:
        described = {
            "kind": "features" if spec.features else "clips",
            "shape": shape[1:],
            "frames": inputs[0][0][1] if len(inputs) == 1 else shape[0],
            "sampling": sampling_of(config),
        }
    about = {
        "task": config.task.name,
        "dataset": spec.dataset,
        "classes": spec.classes,
        "inputs": described,
        "platforms": jaxexport.PLATFORMS,
        "jax": jax.__version__,
        "lstm_jax": lstm_jax.__version__,
        **tuned,
    }
    return jaxexport.pack(about, functions)


def onnx_bytes(experiment: Experiment, params: Any, tuned: dict[str, Any]) -> bytes:
    """An ONNX model.

    Raises:
      NotImplementedError: jax2onnx is missing, or the network cannot be converted.
    """
    if importlib.util.find_spec("jax2onnx") is None:
        raise NotImplementedError(
            "ONNX export needs jax2onnx, which requires an older orbax: use a new "
            "environment, and there pip install lstm_jax jax2onnx"
        )
    task, spec = experiment.kind, experiment.spec
    if not task.to_onnx:
        raise NotImplementedError(f"ONNX export does not support {task.name}")
    # jax2onnx does not support masks over a dynamic time axis.
    frames = None if spec.is_image else spec.image_shape[0]
    function, inputs = whole(experiment, params, frames=frames)
    words = {"task": task.name, "classes": spec.classes, **tuned}
    return onnx.model_bytes(function, inputs, words)


def metadata(experiment: Experiment, tuned: dict[str, Any]) -> dict[str, str]:
    """Metadata of a .safetensors file: classes and configuration, without paths."""
    config, spec = experiment.config, experiment.spec
    data = dataclasses.replace(
        config.data, source=spec.dataset, dir=None, manual_dir=None
    )
    config = dataclasses.replace(config, data=data, run_dir=None, init_from=None)
    run = {"config": to_dict(config), "data": dataclasses.asdict(spec), "tuned": tuned}
    return {
        "classes": json.dumps(spec.classes),
        "by": "lstm_jax",
        "run": json.dumps(run),
    }
