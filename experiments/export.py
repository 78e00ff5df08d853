"""A trained run as one file: `python -m experiments.export RUN --out=model.jaxexport`.

What is written is told by the name's ending, or by --format: a compiled function that
JAX alone runs (.jaxexport), the same for ONNX (.onnx), or the weights, by the names of
PyTorch (.pt), of Keras (.weights.h5) or our own (.safetensors).
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

from experiments import cli
from experiments.errors import UsageError

ENDINGS = {
    "jaxexport": ".jaxexport",
    "onnx": ".onnx",
    "pytorch": ".pt",
    "keras": ".weights.h5",
    "safetensors": ".safetensors",
}
Format = Literal["jaxexport", "onnx", "pytorch", "keras", "safetensors"]


@dataclasses.dataclass(frozen=True)
class Options:
    """Writes a trained run as one file that needs less than the run does."""

    run: Path
    """Folder of the run, such as runs/digits."""
    out: Path | None = None
    """The file; default RUN/model.jaxexport. Its ending tells the format."""
    format: Format | None = None
    """jaxexport and onnx hold the whole network, from uint8 images to probabilities;
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
    import jax

    from experiments.prediction import files
    from experiments.run.load_run import load_run
    from lstm_jax import training
    from lstm_jax.export import weights
    from lstm_jax.interop.safetensors import write_bytes

    format, out = _chosen(Path(run), out, format)
    if streaming and format != "jaxexport":
        raise UsageError(f"--streaming is for {ENDINGS['jaxexport']}, not for {out}")
    experiment, params = load_run(run)
    params = jax.device_get(params)
    if experiment.kind.bucketed and format != "safetensors":
        raise UsageError(
            f"{run} reads lines of text, of which only the weights are exported: "
            "--format=safetensors"
        )
    try:
        if format == "jaxexport":
            write_bytes(out, files.jaxexport_bytes(experiment, params, streaming))
        elif format == "onnx":
            write_bytes(out, files.onnx_bytes(experiment, params))
        elif format == "safetensors":
            words = files.metadata(experiment)
            weights.write(out, training.flatten_params(params), format, words)
        else:
            weights.write(out, params, format)
    except NotImplementedError as error:
        raise UsageError(f"--out={out}: {error}") from error
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


def main(arguments: list[str] | None = None) -> int:
    """The command line. Exit code 0; 2 for a mistake."""
    return cli.run("export", Options, _run, arguments)


def _run(options: Options) -> None:
    from lstm_jax import training

    training.select_accelerator("cpu")  # which holds no other program's device
    out = export(
        options.run, options.out, format=options.format, streaming=options.streaming
    )
    print(f"written: {out} ({out.stat().st_size:,} bytes)")


if __name__ == "__main__":
    sys.exit(main())
