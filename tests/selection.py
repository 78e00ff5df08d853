"""Which parameters of a test `make test` runs; `make test-all` runs all."""

from collections.abc import Iterable

import pytest


def slow_unless(quick: bool, *what) -> object:
    """One set of parameters, marked `slow` unless `quick`."""
    return pytest.param(*what, marks=() if quick else pytest.mark.slow)


def slow(*what) -> object:
    """One set of parameters, marked `slow`."""
    return slow_unless(False, *what)


def slow_but(names: Iterable, *quick) -> list:
    """All names, of which those that are not `quick` are marked `slow`."""
    names = list(names)
    if unknown := [name for name in quick if name not in names]:
        raise ValueError(f"slow_but: {unknown} are not among {names}")
    return [slow_unless(name in quick, name) for name in names]
