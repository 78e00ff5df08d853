"""A trained run as one file: `python -m experiments.export RUN --out=model.jaxexport`.

What is written is told by the name's ending, or by --format: a compiled function that
JAX alone runs (.jaxexport), the same for ONNX (.onnx), or the weights, by the names of
PyTorch (.pt), of Keras (.weights.h5) or our own (.safetensors).
"""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, Literal

from experiments.choices import to_dict
from experiments.errors import UsageError, explain

ENDINGS = {
    "jaxexport": ".jaxexport",
    "onnx": ".onnx",
    "pytorch": ".pt",
    "keras": ".weights.h5",
    "safetensors": ".safetensors",
}
PLATFORMS = "cpu", "cuda", "tpu"
Format = Literal["jaxexport", "onnx", "pytorch", "keras", "safetensors"]


@dataclasses.dataclass(frozen=True)
class Options:
    """Writes a trained run as one file that needs less than the run does."""

    run: Path
    """Folder of the run, such as runs/digits."""
    out: Path | None = None
    """The file; default RUN/model.jaxexport. Its ending tells the format."""
    format: Format | None = None
    """jaxexport and onnx hold the whole network, from uint8 pictures to probabilities;
    pytorch, keras and safetensors its weights, by these libraries' names or ours."""
    streaming: bool = False
    """Also export one step, frame by frame, with its state in and out."""


def export(
    run: str | Path,
    out: str | Path | None = None,
    *,
    format: Format | None = None,
    streaming: bool = False,
) -> Path:
    """Writes a trained run as one file.

    Args:
      run: folder of the run.
      out: the file, written beside and then renamed; None: RUN/model and the ending of
        the format.
      format: as in `Options`; None: what the ending of `out` says, else "jaxexport".
      streaming: for "jaxexport": also the step from frame to frame.

    Returns:
      The path of the file.

    Raises:
      ValueError: there is no such run or format, or the format cannot hold the network.
    """
    from lstm_jax import interop
    from lstm_jax.interop.safetensors import write_bytes

    format, out = _chosen(Path(run), out, format)
    if streaming and format != "jaxexport":
        raise UsageError(f"--streaming is for {ENDINGS['jaxexport']}, not for {out}")
    experiment, params = _restored(run)
    config, spec = experiment.config, experiment.spec
    if experiment.kind.bucketed and format != "safetensors":
        raise UsageError(
            f"{run} reads lines of text, of which only the weights are exported: "
            "--format=safetensors"
        )
    if format == "jaxexport":
        content = _compiled(experiment, params, streaming)
        write_bytes(out, content)
    elif format == "onnx":
        write_bytes(out, _onnx(out, experiment, params))
    elif format == "safetensors":
        from lstm_jax import training

        options = dict(source=spec.dataset, dir=None, manual_dir=None)
        plain = dataclasses.replace(config.data, **options)
        plain = dataclasses.replace(config, data=plain, run_dir=None, init_from=None)
        told = {"config": to_dict(plain), "data": dataclasses.asdict(spec)}
        words = {"classes": json.dumps(spec.classes), "by": "lstm_jax"}
        words["run"] = json.dumps(told)
        interop.write_safetensors(out, training.named(params), words)
    else:
        _write_weights(format, out, params)
    return out


def _chosen(run: Path, out: Any, format: Format | None) -> tuple[Format, Path]:
    if out is None:
        format = format or "jaxexport"
        return format, run.expanduser() / f"model{ENDINGS[format]}"
    out = Path(out).expanduser()
    told = next((f for f, ending in ENDINGS.items() if out.name.endswith(ending)), None)
    if told is None:
        raise UsageError(
            f"--out={out}: the name must end in {', '.join(ENDINGS.values())}"
        )
    fits = format in (None, told) or (format, told) == ("pytorch", "safetensors")
    if not fits:
        raise UsageError(f"--out={out} is no name for --format={format}")
    return format or told, out


def _restored(run: str | Path):
    """As `load_run`, with params as NumPy's arrays."""
    import jax

    from experiments.run.load_run import load_run

    experiment, params = load_run(run)
    return experiment, jax.device_get(params)


def forward(experiment, params, *, frames: int | None = None):
    """`(function, inputs)`: from uint8 pictures to what `predict` answers with.

    Args:
      experiment, params: of a run.
      frames: of a clip; None leaves them open, in a run whose clips have lengths.

    Returns:
      The function, of pictures, or of clips and lengths, and the shape and dtype of
      each of its inputs, where "B" and "T" are open.
    """
    import jax.numpy as jnp

    from experiments.experiment import Experiment

    # The definition: time may be open, and nothing in it is bound to one version of
    # JAX, as the layouts that another engine pins are.
    config, spec = experiment.config, experiment.spec
    plain = {"engine": "scan", "tbptt_steps": None}
    plain = {
        name: value for name, value in plain.items() if hasattr(config.model, name)
    }
    model = dataclasses.replace(config.model, **plain)
    run = Experiment(dataclasses.replace(config, model=model), spec)
    steps, *shape = spec.image_shape
    if spec.pictures:
        inputs = [(("B", *spec.image_shape), jnp.uint8)]
        return lambda x: run.predictions(params, dict(inputs=x)), inputs
    dtype = jnp.float32 if spec.features else jnp.uint8
    if experiment.model_kind.reads_lengths:
        inputs = [(("B", frames or "T", *shape), dtype), (("B",), jnp.int32)]

        def answer(x, lengths):
            return run.predictions(params, dict(inputs=x, lengths=lengths))

        return answer, inputs
    unseen = experiment.kind.unseen_steps(config)

    def answer(x):
        rest = jnp.zeros((x.shape[0], unseen, *x.shape[2:]), x.dtype)
        return run.predictions(params, dict(inputs=jnp.concatenate([x, rest], 1)))

    return answer, [(("B", steps - unseen, *shape), dtype)]


def stepwise(experiment, params):
    """`(start, step, frame)`: the same for one frame at a time.

    Returns:
      `start() -> state`, a tuple of arrays; `step(state, frame) -> (state, output)`;
      shape and dtype of a frame, uint8 `[H, W, C]`, or float32 `[F]`.

    Raises:
      UsageError: the run reads pictures, or has to see a whole clip.
    """
    import jax
    import jax.numpy as jnp

    from lstm_jax.models import stream

    spec = experiment.spec
    if spec.pictures:
        raise UsageError("--streaming: the run reads single pictures, not clips")
    shape = tuple(spec.image_shape[1:])
    try:
        parts = stream(experiment.network.module, params, shape)
    except ValueError as error:
        raise UsageError(f"--streaming: {error}") from error
    structure = jax.tree.structure(jax.eval_shape(parts.start))

    def start():
        return tuple(jax.tree.leaves(parts.start()))

    def step(state, frame):
        state = jax.tree.unflatten(structure, state)
        state, output = parts.step(state, spec.normalize(frame))
        output = experiment.kind.stream_answer(experiment.task, output)
        return tuple(jax.tree.leaves(state)), output

    return start, step, (shape, jnp.float32 if spec.features else jnp.uint8)


def _compiled(experiment, params, streaming: bool) -> bytes:
    import jax
    from jax import export as jax_export

    import lstm_jax
    from experiments.prediction import exported

    def made(function, *inputs):
        traced = jax_export.export(jax.jit(function), platforms=PLATFORMS)
        # Else the file would tell the paths of the source files on this machine.
        limit = jax.config.jax_traceback_in_locations_limit
        jax.config.update("jax_traceback_in_locations_limit", 0)
        try:
            return traced(*inputs)
        finally:
            jax.config.update("jax_traceback_in_locations_limit", limit)

    function, inputs = forward(experiment, params)
    scope = jax_export.SymbolicScope()
    open_sizes = {
        name: jax_export.symbolic_shape(name, scope=scope)[0] for name in "BT"
    }
    specs = [
        jax.ShapeDtypeStruct(tuple(open_sizes.get(n, n) for n in shape), dtype)
        for shape, dtype in inputs
    ]
    functions = {"answer": made(function, *specs)}
    if streaming:
        start, step, frame = stepwise(experiment, params)
        functions["start"] = made(start)
        state = jax.eval_shape(start)
        functions["step"] = made(step, state, jax.ShapeDtypeStruct(*frame))
    config, spec = experiment.config, experiment.spec
    shape = tuple(spec.image_shape)
    if spec.pictures:
        told = {"kind": "pictures", "shape": shape}
    else:
        windows = config.data.sampling == "windows"
        told = {
            "kind": "features" if spec.features else "clips",
            "shape": shape[1:],
            "frames": inputs[0][0][1] if len(inputs) == 1 else shape[0],
            "sampling": "spread" if windows else config.data.sampling,
        }
    table = {
        "task": config.task.name,
        "dataset": spec.dataset,
        "classes": spec.classes,
        "inputs": told,
        "platforms": PLATFORMS,
        "jax": jax.__version__,
        "lstm_jax": lstm_jax.__version__,
    }
    return exported.pack(table, functions)


def _onnx(out: Path, experiment, params) -> bytes:
    if importlib.util.find_spec("jax2onnx") is None:
        raise UsageError(
            f"--out={out} needs jax2onnx, which wants an older orbax: make an "
            "environment of its own, and there pip install lstm_jax jax2onnx"
        )
    from experiments import onnx_file

    task, spec = experiment.kind, experiment.spec
    if not task.to_onnx:
        raise UsageError(f"--out={out}: a {task.name} is not exported to ONNX")
    # With an open time jax2onnx knows no masks.
    frames = None if spec.pictures else spec.image_shape[0]
    function, inputs = forward(experiment, params, frames=frames)
    words = {"task": task.name, "classes": spec.classes}
    try:
        return onnx_file.model_bytes(function, inputs, words)
    except ValueError as error:
        raise UsageError(f"--out={out}: {error}") from error


def _write_weights(format: Format, out: Path, params: Any) -> None:
    from lstm_jax import interop

    try:
        if format == "keras":
            interop.write_keras(out, interop.to_keras_classifier(params))
            return
        state = interop.to_pytorch_classifier(params)
    except NotImplementedError as error:
        raise UsageError(f"--out={out}: {error}") from error
    kept = out.name.endswith(ENDINGS["safetensors"])
    (interop.write_safetensors if kept else interop.write_torch)(out, state)


def main(arguments: list[str] | None = None) -> int:
    """The command line. Exit code 0; 2 for a mistake."""
    import tyro

    options = tyro.cli(
        Options,
        args=arguments,
        prog="python -m experiments.export",
        config=(tyro.conf.PositionalRequiredArgs,),
    )
    try:
        from lstm_jax import training

        training.select_accelerator("cpu")  # which holds no other program's device
        out = export(
            options.run, options.out, format=options.format, streaming=options.streaming
        )
    except (ValueError, RuntimeError, OSError) as error:
        print(explain(error), file=sys.stderr)
        return 2
    print(f"written: {out} ({out.stat().st_size:,} bytes)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
