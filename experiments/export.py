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

from experiments.config import FINDERS, UsageError, explain

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
    config, about, task, params = _restored(run)
    if config.task.name == "recognition" and format != "safetensors":
        raise UsageError(
            f"{run} reads lines of text, of which only the weights are exported: "
            "--format=safetensors"
        )
    if format == "jaxexport":
        content = _compiled(config, about, task, params, streaming)
        write_bytes(out, content)
    elif format == "onnx":
        write_bytes(out, _onnx(out, config, about, task, params))
    elif format == "safetensors":
        from lstm_jax import training

        options = dict(source=about.dataset, dir=None, manual_dir=None)
        plain = dataclasses.replace(config.data, **options)
        plain = dataclasses.replace(config, data=plain, run_dir=None, init_from=None)
        told = {"config": dataclasses.asdict(plain), "data": dataclasses.asdict(about)}
        words = {"classes": json.dumps(about.classes), "by": "lstm_jax"}
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
    """As `restored`, with params as NumPy's arrays."""
    import jax

    from experiments.restoring import restored

    config, about, task, params = restored(run)
    return config, about, task, jax.device_get(params)


def forward(config, about, task, params, *, frames: int | None = None):
    """`(function, inputs)`: from uint8 pictures to what `predict` answers with.

    Args:
      config, about, task, params: of a run.
      frames: of a clip; None leaves them open, in a run whose clips have lengths.

    Returns:
      The function, of pictures, or of clips and lengths, and the shape and dtype of
      each of its inputs, where "B" and "T" are open.
    """
    import jax.numpy as jnp

    from experiments import network

    # The definition: time may be open, and nothing in it is bound to one version of
    # JAX, as the layouts that another engine pins are.
    plain = dataclasses.replace(config.model, engine="scan", tbptt_steps=None)
    run = network.forward_fn(dataclasses.replace(config, model=plain), about)
    steps, *shape = about.image_shape
    if len(about.image_shape) == 3:
        inputs = [(("B", *about.image_shape), jnp.uint8)]
        return lambda x: task.predict(run(params, dict(inputs=x))[0]), inputs
    dtype = jnp.uint8 if len(shape) == 3 else jnp.float32
    if config.model.kind == "reader":
        inputs = [(("B", frames or "T", *shape), dtype), (("B",), jnp.int32)]

        def answer(x, lengths):
            return task.predict(run(params, dict(inputs=x, lengths=lengths))[0])

        return answer, inputs
    horizon = config.task.horizon if config.task.name == "forecasting" else 0

    def answer(x):
        rest = jnp.zeros((x.shape[0], horizon, *x.shape[2:]), x.dtype)
        return task.predict(run(params, dict(inputs=jnp.concatenate([x, rest], 1)))[0])

    return answer, [(("B", steps - horizon, *shape), dtype)]


def stepwise(config, about, task, params):
    """`(start, step, frame)`: the same for one frame at a time.

    Returns:
      `start() -> state`, a tuple of arrays; `step(state, frame) -> (state, output)`;
      shape and dtype of a frame, uint8 `[H, W, C]`, or float32 `[F]`.

    Raises:
      UsageError: the run reads pictures, or has to see a whole clip.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from experiments import network
    from lstm_jax.models import stream

    if len(about.image_shape) == 3:
        raise UsageError("--streaming: the run reads single pictures, not clips")
    shape = tuple(about.image_shape[1:])
    try:
        parts = stream(network.model(config, about), params, shape)
    except ValueError as error:
        raise UsageError(f"--streaming: {error}") from error
    forecasts = config.task.name == "forecasting"
    offset = np.float32(0) if forecasts else np.asarray(about.pixel_offset, np.float32)
    scale = np.float32(1 / 255) if forecasts else np.asarray(about.pixel_scale, "f4")
    structure = jax.tree.structure(jax.eval_shape(parts.start))

    def start():
        return tuple(jax.tree.leaves(parts.start()))

    def step(state, frame):
        frame = (frame.astype(jnp.float32) - offset) * scale
        state, output = parts.step(jax.tree.unflatten(structure, state), frame)
        if not forecasts:
            output = task.predict(output[None])[0]
        return tuple(jax.tree.leaves(state)), output

    return start, step, (shape, jnp.uint8 if len(shape) == 3 else jnp.float32)


def _compiled(config, about, task, params, streaming: bool) -> bytes:
    import jax
    from jax import export as jax_export

    import lstm_jax
    from experiments import exported

    def made(function, *inputs):
        traced = jax_export.export(jax.jit(function), platforms=PLATFORMS)
        # Else the file would tell the paths of the source files on this machine.
        limit = jax.config.jax_traceback_in_locations_limit
        jax.config.update("jax_traceback_in_locations_limit", 0)
        try:
            return traced(*inputs)
        finally:
            jax.config.update("jax_traceback_in_locations_limit", limit)

    function, inputs = forward(config, about, task, params)
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
        start, step, frame = stepwise(config, about, task, params)
        functions["start"] = made(start)
        state = jax.eval_shape(start)
        functions["step"] = made(step, state, jax.ShapeDtypeStruct(*frame))
    shape = tuple(about.image_shape)
    if len(shape) == 3:
        told = {"kind": "pictures", "shape": shape}
    else:
        windows = config.data.sampling == "windows"
        told = {
            "kind": "clips" if len(shape) == 4 else "features",
            "shape": shape[1:],
            "frames": inputs[0][0][1] if len(inputs) == 1 else shape[0],
            "sampling": "spread" if windows else config.data.sampling,
        }
    table = {
        "task": config.task.name,
        "dataset": about.dataset,
        "classes": about.classes,
        "inputs": told,
        "platforms": PLATFORMS,
        "jax": jax.__version__,
        "lstm_jax": lstm_jax.__version__,
    }
    return exported.pack(table, functions)


def _onnx(out: Path, config, about, task, params) -> bytes:
    if importlib.util.find_spec("jax2onnx") is None:
        raise UsageError(
            f"--out={out} needs jax2onnx, which wants an older orbax: make an "
            "environment of its own, and there pip install lstm_jax jax2onnx"
        )
    from experiments import onnx_file

    if config.task.name in FINDERS or config.task.name == "forecasting":
        raise UsageError(f"--out={out}: a {config.task.name} is not exported to ONNX")
    # With an open time jax2onnx knows no masks.
    frames = about.image_shape[0] if len(about.image_shape) != 3 else None
    function, inputs = forward(config, about, task, params, frames=frames)
    words = {"task": config.task.name, "classes": about.classes}
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
