"""Tables of compiled layers and training steps: `benchmark compile`."""

import itertools
import json
import math
import os
from typing import Any

from rich.table import Table

from experiments.benchmarks import compiled, tables, targets
from experiments.benchmarks.layers import shape
from experiments.benchmarks.options import Compile
from experiments.benchmarks.programs import READS
from experiments.errors import UsageError


def compile_programs(options: Compile) -> list[dict[str, Any]]:
    """Compiles layers, or training steps of presets, for each target; prints tables.

    Returns:
      The rows of `compiled.compile_all`, which are also written to `options.out`.
    """
    xla = dict(option.split("=", 1) for option in options.xla)
    jobs = _steps(options) if options.presets else _layers(options)
    rows = []
    with open(options.out or os.devnull, "w") as file:
        for row in compiled.compile_all([job | {"options": xla} for job in jobs]):
            print(json.dumps(row), file=file, flush=True)
            rows.append(row)
    (_show_steps if options.presets else _show_layers)(rows)
    return rows


def _layers(options: Compile) -> list[dict[str, Any]]:
    """A job for each program of an LSTM layer."""
    shapes = {name: shape(name) for name in options.shapes}
    return [
        {
            "target": target,
            "shape": name,
            "layer": dict(engine=engine, shape=shapes[name], kind=kind, dtype=dtype),
        }
        for target, name, dtype, kind, engine in itertools.product(
            targets.present(options.targets),
            shapes,
            options.dtypes,
            options.kinds,
            options.engines,
        )
    ]


def _steps(options: Compile) -> list[dict[str, Any]]:
    """A job for each training step of a preset."""
    if unknown := [name for name in options.presets if name not in READS]:
        raise UsageError(f"--presets {unknown[0]}: choose from {', '.join(READS)}")
    jobs = []
    for target, name, dtype in itertools.product(
        targets.present(options.targets), options.presets, options.dtypes
    ):
        changes: dict[str, Any] = {"precision": dtype}
        if options.batch_per_device:
            sides = target.partition(":")[2] or "1"
            count = math.prod(int(side) for side in sides.split("x"))
            changes["batch_size"] = options.batch_per_device * count
        step = dict(name=name, changes=changes, **READS[name])
        jobs.append({"target": target, "step": step})
    return jobs


def _show_layers(rows: list[dict[str, Any]]) -> None:
    console = tables.console()
    for _, group in itertools.groupby(rows, lambda row: (row["target"], row["shape"])):
        console.print(_layer_table(list(group)))
    if rows:
        print(
            "CPU s: tracing, lowering and compilation; cycles: the compiler's estimate "
            "for one iteration, not a time; of Flax's: ratio of temporary bytes"
        )


def _layer_table(rows: list[dict[str, Any]]) -> Table:
    batch, steps, inputs, width = rows[0]["layer"]["shape"]
    words = "engine", "kind", "dtype"
    names = [tuple(row["layer"][word] for word in words) for row in rows]
    memory = {
        name: row["temporary"]
        for name, row in zip(names, rows, strict=True)
        if not row["error"]
    }
    cells = []
    for name, row in zip(names, rows, strict=True):
        if row["error"]:
            cells.append((*name, "", "", "", row["error"]))
            continue
        peer = memory.get(("flax", *name[1:]))
        cells.append(
            (
                *name,
                f"{row['cpu_seconds']:.1f}",
                f"{memory[name] / 1e6:.1f}",
                f"{memory[name] / peer:.2f}" if peer else "",
                "\n".join(map(_loop, row["loops"])) or "no loop",
            )
        )
    heads = [*words, "CPU s", "MB temporary", "of Flax's"]
    found = tables.table(
        f"{rows[0]['target']}, {rows[0]['shape']}: "
        f"B={batch} T={steps} F={inputs} D={width}",
        [*heads, "one iteration of each loop"],
        cells,
        words=3,
    )
    found.columns[-1].justify = "left"
    return found


def _loop(loop: dict) -> str:
    parts = [f"{loop['fusions']} fusions", f"{loop['copies']} copies"]
    if loop["cycles"]:  # only a TPU's compiler estimates them
        parts.append(f"{loop['cycles']:,} cycles")
        kept = f"{loop['weights_in_vmem']} of {loop['weights']}"
        parts.append(f"w_h in VMEM: {kept if loop['weights'] else 'not found'}")
    if loop["custom_calls"]:
        parts.append(f"{len(loop['custom_calls'])} custom calls")
    if loop["all_reduces"]:
        parts.append(f"{loop['all_reduces']} all-reduces")
    if loop["on_host"] is not None:
        launches = f"on the host, {loop['launches']} launches"
        parts.append(launches if loop["on_host"] else "in a command buffer")
    return "  " * loop["depth"] + ", ".join(parts)


def _show_steps(rows: list[dict[str, Any]]) -> None:
    cells = [
        (
            row["target"],
            row["step"]["name"],
            row["step"]["changes"]["precision"],
            f"{row['seconds']:.1f}",
            str(row["all_reduces"]),
            f"{row['aliased'] / 1e6:.2f} of {row['state'] / 1e6:.2f}",
            f"{row['arguments'] / 1e6:.1f}",
            f"{row['temporary'] / 1e6:.1f}",
        )
        for row in rows
        if not row["error"]
    ]
    heads = ["device", "preset", "precision", "compile s", "all-reduces"]
    heads += ["in place of state", "arguments", "temporary"]
    if cells:
        title = "training steps; MB per device"
        tables.console().print(tables.table(title, heads, cells, words=3))
    for row in rows:
        if row["error"]:
            print(f"{row['target']}, {row['step']['name']}: {row['error']}")
