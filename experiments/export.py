"""Exports a trained run: `python -m experiments.export RUN --out=model.jaxexport`.

The suffix of --out, or --format, selects what is written: the network as a function for
JAX (.jaxexport) or ONNX (.onnx), or its weights with the names of PyTorch (.pt), Keras
(.weights.h5) or this project (.safetensors).
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
    """Export a trained run as one file."""

    run: Path
    """Folder of the run, such as runs/digits."""
    out: Path | None = None
    """The file; default RUN/model.jaxexport. Its suffix selects the format."""
    format: Format | None = None
    """The whole network (jaxexport, onnx), or its weights (the others)."""
    streaming: bool = False
    """Also export the step for one frame, with the state as input and output."""


def export(
    run: str | Path,
    out: str | Path | None = None,
    *,
    format: Format | None = None,
    streaming: bool = False,
) -> Path:
    """Exports a trained run as one file.

    Args:
      run: folder of the run.
      out: the file, replaced atomically; None: RUN/model with the suffix of the format.
      format: as in `Options`; None: by the suffix of `out`, else "jaxexport".
      streaming: for "jaxexport": also export the step for one frame.

    Returns:
      The path of the file.

    Raises:
      ValueError: there is no such run or format, or the format does not support the
        network.
    """
    import jax

    from experiments.prediction import files
    from experiments.run.load_run import load_run, tuned_of
    from lstm_jax import training
    from lstm_jax.export import weights
    from lstm_jax.interop.safetensors import write_bytes

    format, out = _chosen(Path(run), out, format)
    if streaming and format != "jaxexport":
        raise UsageError(f"--streaming is for {ENDINGS['jaxexport']}, not for {out}")
    experiment, params = load_run(run)
    params, tuned = jax.device_get(params), tuned_of(run)
    if experiment.kind.bucketed and format != "safetensors":
        raise UsageError(
            f"{run} is a text recogniser, of which only the weights can be exported: "
            "use --format=safetensors"
        )
    try:
        if format == "jaxexport":
            content = files.jaxexport_bytes(experiment, params, tuned, streaming)
            write_bytes(out, content)
        elif format == "onnx":
            write_bytes(out, files.onnx_bytes(experiment, params, tuned))
        elif format == "safetensors":
            words = files.metadata(experiment, tuned)
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
            f"--out={out}: the suffix must be one of {', '.join(ENDINGS.values())}"
        )
    fits = format in (None, told) or (format, told) == ("pytorch", "safetensors")
    if not fits:
        raise UsageError(
            f"--out={out} does not fit --format={format}, whose suffix is "
            f"{ENDINGS[format]}"
        )
    return format or told, out


def main(arguments: list[str] | None = None) -> int:
    """The command line. Exit code 0; 2 after an error message."""
    return cli.run("export", Options, _run, arguments)


def _run(options: Options) -> None:
    from lstm_jax import training

    training.select_accelerator("cpu")  # leaves the accelerator to other programs
    out = export(
        options.run, options.out, format=options.format, streaming=options.streaming
    )
    print(f"written to {out} ({out.stat().st_size:,} bytes)")


if __name__ == "__main__":
    sys.exit(main())
