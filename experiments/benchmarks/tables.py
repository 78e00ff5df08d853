"""The tables that benchmarks print."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def table(
    title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1
) -> Table:
    """A table of text.

    Args:
      title: above the table.
      heads: of columns.
      rows: cells; missing ones at the end stay empty.
      words: number of left-aligned columns; the others are right-aligned.
    """
    found = Table(box=box.SIMPLE_HEAD, title_justify="left")
    found.title = Text(f"\n{title}", style="bold")
    for number, head in enumerate(heads):
        justify = "left" if number < words else "right"
        found.add_column(Text(head), justify=justify, no_wrap=True)
    for row in rows:
        found.add_row(*map(Text, row))
    return found


def number(value: float | None, form: str) -> str:
    """A formatted number; a dash for None."""
    return "–" if value is None else format(value, form)


def console() -> Console:
    """A console; in a file, rows are not wrapped."""
    found = Console()
    return found if found.is_terminal else Console(width=160)
