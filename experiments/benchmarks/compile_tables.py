"""What layers and training steps become on devices that are not here, in tables."""

import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.benchmarks import compiled, targets
from experiments.errors import UsageError


def compile_table(
    names: tuple[str, ...],
    shapes: dict[str, tuple[int, int, int, int]],
    engines: tuple[str, ...],
    kinds: tuple[str, ...],
    dtypes: tuple[str, ...],
    out: Path | None = None,
    *,
    options: dict[str, Any] | None = None,
    bundles: bool = False,
) -> list[dict]:
    """Prints what an LSTM layer becomes on each device.

    Args:
      names: of devices.
      shapes: B, T, F, D by name.
      engines: of `unroll`, and "flax", to which memory is compared.
      kinds: of "forward" and "gradient".
      dtypes: of "float32" and "bfloat16".
      out: a file that gets a line of JSON for each program.
      options: of XLA, by name.
      bundles: count the instruction words of TPU programs, too: the compiler then
        takes many times as long.

    Returns:
      What `compiled.compile_all` yields.
    """
    for name, given, known in (
        ("kinds", kinds, ("forward", "gradient")),
        ("dtypes", dtypes, ("float32", "bfloat16")),
    ):
        if unknown := [word for word in given if word not in known]:
            raise UsageError(f"--{name} {unknown[0]}: choose from {', '.join(known)}")
    jobs = [
        {
            "target": target,
            "shape": shape,
            "layer": dict(engine=engine, shape=shapes[shape], kind=kind, dtype=dtype),
            "options": options or {},
            "bundles": bundles and targets.platform(target) == "tpu",
        }
        for target, shape, dtype, kind, engine in itertools.product(
            targets.present(names), shapes, dtypes, kinds, engines
        )
    ]
    rows = _run(jobs, out)
    console = _console()
    for _, group in itertools.groupby(rows, lambda row: (row["target"], row["shape"])):
        console.print(_layers(list(group)))
    if rows:
        print(
            "CPU s: from the function to the program; cycles: the compiler's estimate "
            "for one iteration, not a time; of Flax's: temporary bytes"
        )
    return rows


def step_table(
    names: tuple[str, ...],
    presets: tuple[str, ...],
    dtypes: tuple[str, ...],
    out: Path | None = None,
    *,
    batch_per_device: int | None = None,
    options: dict[str, Any] | None = None,
) -> list[dict]:
    """Prints what the training steps of presets need on each device.

    Args:
      names: of devices, or of slices: "v5e:2x4".
      presets: names, those in `programs.READS`.
      dtypes: of "float32" and "bfloat16".
      out: a file that gets a line of JSON for each program.
      batch_per_device: by default the batch of the preset is split.
      options: of XLA, by name.
    """
    from experiments.benchmarks.programs import READS

    if unknown := [name for name in presets if name not in READS]:
        raise UsageError(f"--presets {unknown[0]}: choose from {', '.join(READS)}")
    jobs = []
    for target, name, dtype in itertools.product(
        targets.present(names), presets, dtypes
    ):
        changes: dict[str, Any] = {"precision": dtype}
        if batch_per_device:
            sides = target.partition(":")[2] or "1"
            count = math.prod(int(side) for side in sides.split("x"))
            changes["batch_size"] = batch_per_device * count
        step = dict(name=name, changes=changes, **READS[name])
        jobs.append({"target": target, "step": step, "options": options or {}})
    rows = _run(jobs, out)
    if good := [row for row in rows if not row["error"]]:
        _console().print(_steps(good))
    for row in rows:
        if row["error"]:
            print(f"{row['target']}, {row['step']['name']}: {row['error']}")
    return rows


def _run(jobs: list[dict], out: Path | None) -> list[dict]:
    rows = []
    with open(out or os.devnull, "w") as file:
        for row in compiled.compile_all(jobs):
            print(json.dumps(row), file=file, flush=True)
            rows.append(row)
    return rows


def _layers(rows: list[dict]) -> Table:
    batch, steps, inputs, width = rows[0]["layer"]["shape"]
    table = _table(
        f"{rows[0]['target']}, {rows[0]['shape']}: "
        f"B={batch} T={steps} F={inputs} D={width}",
        ("engine", "kind", "dtype"),
        ("CPU s", "MB temporary", "of Flax's"),
    )
    table.add_column("one iteration of each loop")
    peers = {
        (row["layer"]["kind"], row["layer"]["dtype"]): row["temporary"]
        for row in rows
        if row["layer"]["engine"] == "flax" and not row["error"]
    }
    for row in rows:
        layer = row["layer"]
        names = layer["engine"], layer["kind"], layer["dtype"]
        if row["error"]:
            table.add_row(*names, "", "", "", row["error"])
            continue
        peer = peers.get((layer["kind"], layer["dtype"]))
        table.add_row(
            *names,
            f"{row['cpu_seconds']:.1f}",
            f"{row['temporary'] / 1e6:.1f}",
            f"{row['temporary'] / peer:.2f}" if peer else "",
            "\n".join(map(_loop, row["loops"])) or "no loop",
        )
    return table


def _loop(loop: dict) -> str:
    parts = [f"{loop['fusions']} fusions", f"{loop['copies']} copies"]
    if loop["cycles"]:  # only a TPU's compiler estimates them
        parts.append(f"{loop['cycles']:,} cycles")
        kept = f"{loop['weights_in_vmem']} of {loop['weights']}"
        parts.append(f"w_h in VMEM: {kept if loop['weights'] else 'not seen'}")
    if loop["bundles"] is not None:
        parts.append(f"{loop['bundles']:,} bundles")
    if loop["custom_calls"]:
        parts.append(f"{len(loop['custom_calls'])} custom calls")
    if loop["all_reduces"]:
        parts.append(f"{loop['all_reduces']} all-reduces")
    if loop["on_host"] is not None:
        launches = f"on the host, {loop['launches']} launches"
        parts.append(launches if loop["on_host"] else "in a command buffer")
    return "  " * loop["depth"] + ", ".join(parts)


def _steps(rows: list[dict]) -> Table:
    table = _table(
        "training steps; MB a device",
        ("device", "preset", "precision"),
        ("compile s", "all-reduces", "in place of state", "arguments", "temporary"),
    )
    for row in rows:
        names = row["target"], row["step"]["name"], row["step"]["changes"]["precision"]
        table.add_row(
            *names,
            f"{row['seconds']:.1f}",
            str(row["all_reduces"]),
            f"{row['aliased'] / 1e6:.2f} of {row['state'] / 1e6:.2f}",
            f"{row['arguments'] / 1e6:.1f}",
            f"{row['temporary'] / 1e6:.1f}",
        )
    return table


def _console() -> Console:
    console = Console()
    # A file has no width; a row without breaks is what one looks for there.
    return console if console.is_terminal else Console(width=160)


def _table(title: str, words: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for word in words:
        table.add_column(word, no_wrap=True)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table
