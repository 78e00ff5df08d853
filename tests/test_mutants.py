"""The list of faults fits the code: each fragment is there, and each test."""

from pathlib import Path

import run_mutants
from run_mutants import ROOT

MUTANTS = run_mutants.load()


def test_every_fault_can_be_applied():
    assert len(MUTANTS) >= 28
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    for mutant in MUTANTS:
        assert mutant.applied(ROOT) != (ROOT / mutant.file).read_text(), mutant.name
        assert "\n" not in mutant.old + mutant.new, mutant.name


def test_every_responsible_test_is_there():
    for mutant in MUTANTS:
        assert mutant.tests, mutant.name
        for test in mutant.tests:
            path, _, function = test.partition("::")
            assert Path(path).name.startswith("test_"), mutant.name
            text = (ROOT / path).read_text()
            assert f"def {function}" in text, f"{mutant.name}: {test} is not there"
