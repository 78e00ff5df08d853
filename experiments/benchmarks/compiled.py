"""Compiles for TPUs and GPUs that are not here, and counts what is in the programs.

Each device has a process of its own, `python -m experiments.benchmarks.compiled
DEVICE`: a job a line comes in as JSON, its facts go out.
"""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.benchmarks import hlo, programs, targets
from lstm_jax import training


def compile_for(target: str, job: dict[str, Any]) -> dict[str, Any]:
    """Compiles a layer or a training step for a device that is not here.

    Args:
      target: "v5e" or "h200", say; "v5e:2x4" for a slice. The process must have
        `targets.environment(target)`.
      job: as of `compile_all`.

    Returns:
      "devices"; "seconds" of the compiler; "cpu_seconds", of tracing, lowering and
      compiling; bytes a device: "temporary", "arguments", "aliased" (of the arguments,
      given up to results that take their place), "output", "program", and "state" (of
      what a training step replaces, before the compiler pads it); "all_reduces"; and
      "loops", dicts of `hlo.Loop`.

    Raises:
      RuntimeError: there is no compiler, or it finds that the program cannot be.
    """
    kind = targets.platform(target)
    mesh = training.data_mesh(targets.devices(target))

    def on_mesh(x):
        sharding = x.sharding or NamedSharding(mesh, P())
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    with programs.traced_for(kind):
        if "step" in job:
            program = programs.step(mesh, **job["step"])
        else:
            program = programs.layer(**job["layer"])
        run = program.run if hasattr(program.run, "trace") else jax.jit(program.run)
        began = time.process_time()
        traced = run.trace(*jax.tree.map(on_mesh, program.arguments))
        lowered = traced.lower(lowering_platforms=(kind,))
    with tempfile.TemporaryDirectory() as thunks:
        own = {"xla_dump_to": thunks} if kind == "cuda" else {}
        since = time.perf_counter()
        compiled = lowered.compile(compiler_options=own | job.get("options", {}))
        seconds = time.perf_counter() - since
        cpu_seconds = time.process_time() - began
        text, memory = compiled.as_text(), compiled.memory_analysis()
        loops = hlo.loops(text, program.weights)
        # There is no text after XLA's passes over thunks where they did nothing.
        for path in sorted(Path(thunks).glob("*.thunk_sequence*.txt"), key=_after)[-1:]:
            loops = hlo.captured(path.read_text(), loops)
    return {
        "devices": mesh.size,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "temporary": memory.temp_size_in_bytes,
        "arguments": memory.argument_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "output": memory.output_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
        "state": program.state,
        "all_reduces": hlo.all_reduces(text),
        "loops": [dataclasses.asdict(loop) for loop in loops],
    }


def _after(path: Path) -> bool:
    return "after_thunk_passes" in path.name


def compile_all(jobs: Iterable[dict]) -> Iterator[dict]:
    """Compiles each job in a process of its device; this one needs no compiler.

    Args:
      jobs: of each, "target"; "layer" or "step", the arguments of that function of
        `experiments.benchmarks.programs`, but for the mesh; and at will "options" of
        XLA.

    Yields:
      Each job, with "error": None and what `compile_for` returns, or with a line that
      says why it was not compiled.
    """

    for target, group in itertools.groupby(jobs, lambda job: job["target"]):
        waiting = list(group)
        if not targets.compiler(kind := targets.platform(target)):
            hint = targets.how_to_install(kind)
            yield from (job | {"error": hint} for job in waiting)
            continue
        while waiting:
            for facts in _compiled_apart(target, list(waiting)):
                yield waiting.pop(0) | facts
            if waiting:  # a compiler can end its process
                yield waiting.pop(0) | {"error": "the compiler's process has died"}


def _compiled_apart(target: str, jobs: list[dict]) -> Iterator[dict]:
    with subprocess.Popen(
        [sys.executable, "-m", __name__, target],
        env=targets.environment(target),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # compilers are talkative
        text=True,
    ) as child:
        for job in jobs:
            try:
                print(json.dumps(job), file=child.stdin, flush=True)
            except BrokenPipeError:
                return
            line = child.stdout.readline()
            if not line:
                return
            yield json.loads(line)


def main(target: str) -> None:
    """Compiles the jobs of one device, for `compile_all`."""
    # What the compiler itself prints is not mixed with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            facts = {"error": None} | compile_for(target, json.loads(line))
        except Exception as error:  # whatever a compiler says is a result
            first = (str(error) or repr(error)).splitlines()[0]
            facts = {"error": f"{type(error).__name__}: {first[:300]}"}
        print(json.dumps(facts), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
