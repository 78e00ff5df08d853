"""Mutation check: which tests notice a one-line fault? `make mutants [ONLY=NAME]`.

Applies each fault of `mutants.toml`, one at a time, to a copy of the checkout and runs
the tests that are responsible for it, up to the first that fails. In the end the tests
that have failed run without a fault, and must pass. The exit code is 1 if they do not,
if more than one fault survives, or if a run ends in any other way.
"""

import compileall
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TIMEOUT = 600  # seconds; a fault may make a loop that never ends
PYTEST = "-m pytest -q -rfE -p no:cacheprovider -p no:xdist -m".split()


class Mutant(NamedTuple):
    """One fault: `old`, which occurs once in `file`, becomes `new`."""

    name: str
    fault: str  # what is wrong with the new line
    file: str
    old: str
    new: str
    tests: list[str]  # files, or file::test

    def applied(self, root: Path) -> str:
        """The file's text with the fault.

          Raises:
            ValueError: if `old` does not occur exactly once.
        SyntaxError: if the result is no Python.
        """
        text = (root / self.file).read_text(encoding="utf-8")
        if (times := text.count(self.old)) != 1:
            raise ValueError(
                f"{self.name}: {self.old!r} occurs {times} times in {self.file}, want 1"
            )
        text = text.replace(self.old, self.new)
        compile(text, self.file, "exec")
        return text


def load() -> list[Mutant]:
    """All faults of `mutants.toml`."""
    table = tomllib.loads((ROOT / "tests/mutants.toml").read_text(encoding="utf-8"))
    return [Mutant(**entry) for entry in table["mutant"]]


def copy_checkout(target: Path) -> None:
    """Copies the files that git tracks or would track."""
    command = "git ls-files -z --cached --others --exclude-standard".split()
    names = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    for name in filter(None, os.fsdecode(names.stdout).split("\0")):
        if (ROOT / name).is_file():  # not deleted since
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def run_tests(
    root: Path, *arguments: str, timeout: float | None = None
) -> tuple[str, list[str], str]:
    """Runs pytest in a copy.

    Returns:
      "passed", "failed", "timed out" or "error"; the tests that failed; the output.
    """
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "xla"))
    env = os.environ | {"PYTHONPATH": str(root), "JAX_COMPILATION_CACHE_DIR": cache}
    command = [sys.executable, *PYTEST, "not slow", *arguments]
    options = dict(cwd=root, env=env, timeout=timeout, text=True)
    try:
        run = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
        )
    except subprocess.TimeoutExpired:
        return "timed out", [], ""
    # "FAILED file::test - message"; ERROR where a fixture has failed.
    lines = [line.partition(" ") for line in run.stdout.splitlines()]
    failed = [
        rest.strip().partition(" - ")[0]
        for word, _, rest in lines
        if word in ("FAILED", "ERROR") and "::" in rest
    ]
    if run.returncode == 1 and failed:
        return "failed", failed, run.stdout
    if run.returncode in (0, 1):  # 1 without a failure: a test took too long
        return "passed", [], run.stdout
    # Nothing was collected, a file could not be imported, an option is wrong.
    return "error", [], f"{run.stdout}pytest ended with exit code {run.returncode}"


def check(mutant: Mutant, clean: Path) -> tuple[str, list[str], str]:
    """What `run_tests` says of a copy with the fault, up to the first failure."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        root = Path(folder, "checkout")
        shutil.copytree(clean, root)
        path = root / mutant.file
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        path.write_text(mutant.applied(root), encoding="utf-8")
        return run_tests(root, "-x", *mutant.tests, timeout=TIMEOUT)


def main(names: list[str]) -> int:
    mutants = load()
    if unknown := set(names) - {mutant.name for mutant in mutants}:
        print(f"no such fault: {', '.join(unknown)}; see tests/mutants.toml")
        return 2
    mutants = [mutant for mutant in mutants if not names or mutant.name in names]
    workers = os.cpu_count() or 1
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as folder,
        ThreadPoolExecutor(workers) as pool,
    ):
        clean = Path(folder)
        copy_checkout(clean)
        for mutant in mutants:
            mutant.applied(clean)  # raises before anything is run
        for package in ("lstm_jax", "experiments"):  # bytecode for all copies
            compileall.compile_dir(clean / package, quiet=2)
        verdicts, catchers = [], {}
        found = pool.map(lambda mutant: check(mutant, clean), mutants)
        for mutant, (outcome, failed, output) in zip(mutants, found, strict=True):
            verdict, detail = "caught", outcome
            if outcome == "failed":
                detail = catchers[mutant.name] = failed[0]
            elif outcome == "passed":
                verdict, detail = "SURVIVED", " ".join(mutant.tests)
            elif outcome == "error":
                verdict, detail = "ERROR", output[-2000:]
            verdicts.append(verdict)
            print(f"{verdict:9}{mutant.name}: {mutant.fault}\n         {detail}")
            sys.stdout.flush()

        # A test that fails without the fault, too, has caught nothing.
        tests = sorted(set(catchers.values()))
        parts = [tests[start::workers] for start in range(workers)]
        runs = pool.map(lambda part: run_tests(clean, *part), filter(None, parts))
        broken = False
        for outcome, failed, output in runs:
            if outcome != "passed":
                broken = True
                print(f"without a fault: {outcome}\n{output[-2000:]}")
                print("\n".join(failed))
    caught = verdicts.count("caught")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime
    print(f"{caught} of {len(mutants)} faults caught; {seconds:.0f} CPU seconds")
    return int(broken or "ERROR" in verdicts or caught < len(mutants) - 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
