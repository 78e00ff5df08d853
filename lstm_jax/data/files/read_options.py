"""`ReadOptions`: what the loaders of files have in common."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from lstm_jax.data.files.csv_files import TableFormat

Progress = Callable[[int, int], None]


class ReadOptions(NamedTuple):
    """Options of `load` for your own files; a layout uses those that apply to it.

    Attributes:
      form: the user's options for tables.
      progress: called with (files read, all files); None: not called.
      Others: as in `load`.
    """

    size: int | None
    validation: float
    seed: int
    group: str | None = None
    min_per_class: int | None = None
    form: TableFormat = TableFormat()
    frames: int | None = None
    sampling: str = "uniform"
    alphabet: Sequence[str] | None = None
    arrays: str | None = None
    follow_outside: bool = False
    fit: str | None = None
    progress: Progress | None = None


def counted(results: Iterable, total: int, options: ReadOptions) -> Iterator:
    """Iterates over the results for `total` files, and tells `options.progress`."""
    tell = options.progress or (lambda done, total: None)
    tell(0, total)
    for done, result in enumerate(results, start=1):
        yield result
        tell(done, total)
