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
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from experiments.benchmarks import hlo, targets


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program for one device, or for each device of a slice; sizes in bytes."""

    devices: int
    seconds: float
    """Of the compiler."""
    cpu_seconds: float
    """From the function to the program: tracing, lowering and compiling."""
    temporary: int
    arguments: int
    aliased: int
    """Of the arguments, given up to results that take their place."""
    output: int
    program: int
    all_reduces: int
    loops: tuple[hlo.Loop, ...]
    state: int = 0
    """Of what a training step replaces, before the compiler pads it."""


def compile_for(
    target: str,
    f: Callable,
    *args: Any,
    options: dict[str, Any] | None = None,
    weights: Collection[tuple[int, ...]] = (),
    dump: str | None = None,
) -> Compiled:
    """Compiles `f(*args)` for a device that is not here.

    Args:
      target: "v5e" or "h200", say; "v5e:2x4" for a slice. The process must have
        `targets.environment(target)`.
      f: a function, jitted or not.
      *args: trees of `jax.ShapeDtypeStruct`; on every device where they do not say.
      options: of XLA, by name.
      weights: shapes of arrays to look for in the loops.
      dump: the folder of that environment, if it has one: bundles are counted, too.

    Raises:
      RuntimeError: there is no compiler, or it finds that the program cannot be.
    """
    import jax
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from experiments.benchmarks.programs import traced_for
    from lstm_jax import training

    kind = targets.platform(target)
    mesh = training.data_mesh(targets.devices(target))

    def on_mesh(x):
        sharding = x.sharding or NamedSharding(mesh, P())
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    f = f if hasattr(f, "trace") else jax.jit(f)
    began = time.process_time()
    with traced_for(kind):
        traced = f.trace(*jax.tree.map(on_mesh, args))
        lowered = traced.lower(lowering_platforms=(kind,))
    for path in Path(dump).iterdir() if dump else ():
        path.unlink()
    with tempfile.TemporaryDirectory() as thunks:
        own = {"xla_dump_to": thunks} if kind == "cuda" else {}
        since = time.perf_counter()
        compiled = lowered.compile(compiler_options=own | (options or {}))
        seconds = time.perf_counter() - since
        cpu_seconds = time.process_time() - began
        text, memory = compiled.as_text(), compiled.memory_analysis()
        loops = hlo.loops(text, weights)
        # There is no text after XLA's passes over thunks where they did nothing.
        for path in sorted(Path(thunks).glob("*.thunk_sequence*.txt"), key=_after)[-1:]:
            loops = hlo.captured(path.read_text(), loops)
    if dump:
        loops = hlo.bundles(Path(dump), loops)
    return Compiled(
        devices=mesh.size,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        temporary=memory.temp_size_in_bytes,
        arguments=memory.argument_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        output=memory.output_size_in_bytes,
        program=memory.generated_code_size_in_bytes,
        all_reduces=hlo.all_reduces(text),
        loops=tuple(loops),
    )


def compile_all(jobs: Iterable[dict]) -> Iterator[dict]:
    """Compiles each job in a process of its device; this one needs no compiler.

    Args:
      jobs: of each, "target"; "layer" or "step", the arguments of that function of
        `experiments.benchmarks.programs`, but for the mesh; and at will "options" of
        XLA and "bundles", whether to count them.

    Yields:
      Each job, with "error": None and the fields of `Compiled`, or with a line that
      says why it was not compiled.
    """

    def process(job):
        return job["target"], job.get("bundles", False)

    for (target, bundles), group in itertools.groupby(jobs, process):
        waiting = list(group)
        if not targets.compiler(kind := targets.platform(target)):
            hint = targets.how_to_install(kind)
            yield from (job | {"error": hint} for job in waiting)
            continue
        while waiting:
            for facts in _compiled_apart(target, bundles, list(waiting)):
                yield waiting.pop(0) | facts
            if waiting:  # a compiler can end its process
                yield waiting.pop(0) | {"error": "the compiler's process has died"}


def _after(path: Path) -> bool:
    return "after_thunk_passes" in path.name


def _compiled_apart(target: str, bundles: bool, jobs: list[dict]) -> Iterator[dict]:
    with tempfile.TemporaryDirectory() as folder:
        dump = folder if bundles else None
        with subprocess.Popen(
            [sys.executable, "-m", __name__, target, *([dump] if dump else [])],
            env=targets.environment(target, dump),
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


def _compile_job(target: str, dump: str | None, job: dict) -> dict:
    from experiments.benchmarks import programs
    from lstm_jax import training

    try:
        with programs.traced_for(targets.platform(target)):
            if "step" in job:
                mesh = training.data_mesh(targets.devices(target))
                program = programs.step(mesh, **job["step"])
            else:
                program = programs.layer(**job["layer"])
        found = compile_for(
            target,
            program.run,
            *program.arguments,
            options=job.get("options"),
            weights=program.weights,
            dump=dump,
        )
    except Exception as error:  # whatever a compiler says is a result
        first = (str(error) or repr(error)).splitlines()[0]
        return {"error": f"{type(error).__name__}: {first[:300]}"}
    facts = dataclasses.asdict(dataclasses.replace(found, state=program.state))
    for loop in facts["loops"]:
        del loop["body"]
    return {"error": None} | facts


def main(arguments: list[str]) -> None:
    """Compiles the jobs of one device, for `compile_all`."""
    target, dump = (*arguments, None)[:2]
    # What the compiler itself prints is not mixed with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(_compile_job(target, dump, json.loads(line))), file=answers)
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
