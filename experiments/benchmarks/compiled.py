"""Compiles for TPUs and GPUs without these devices, and analyses the programs.

Each target has its own process, `python -m experiments.benchmarks.compiled TARGET`,
which reads jobs and writes results as lines of JSON.
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
    """Compiles a layer or a training step for a target device.

    Args:
      target: such as "v5e" or "h200"; "v5e:2x4" for a slice. The process must have
        `targets.environment(target)`.
      job: as in `compile_all`.

    Returns:
      "devices"; "seconds" of compilation; "cpu_seconds" of tracing, lowering and
      compilation; bytes per device: "temporary", "arguments", "aliased" (donated
      arguments), "output", "program", and "state" (the training state, without
      padding); "all_reduces"; and "loops", dicts of `hlo.Loop`.

    Raises:
      RuntimeError: there is no compiler, or it rejects the program.
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
        # XLA writes no text after its thunk passes if they change nothing.
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
    """Compiles jobs, each in a process of its target.

    Args:
      jobs: dicts of "target"; "layer" or "step", the arguments of that function of
        `experiments.benchmarks.programs` without the mesh; optionally "options" of XLA.

    Yields:
      Each job with "error": None and the result of `compile_for`, or with "error": a
      line with the reason.
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
            if waiting:  # a compiler can crash its process
                yield waiting.pop(0) | {"error": "the compiler's process crashed"}


def _compiled_apart(target: str, jobs: list[dict]) -> Iterator[dict]:
    with subprocess.Popen(
        [sys.executable, "-m", __name__, target],
        env=targets.environment(target),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # log messages of the compiler
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
    """Compiles the jobs of one target, for `compile_all`."""
    # Messages of the compiler are kept out of the results.
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            facts = {"error": None} | compile_for(target, json.loads(line))
        except Exception as error:  # an error of the compiler is a result
            first = (str(error) or repr(error)).splitlines()[0]
            facts = {"error": f"{type(error).__name__}: {first[:300]}"}
        print(json.dumps(facts), file=results, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
