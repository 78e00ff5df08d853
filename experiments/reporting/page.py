"""Renders a report as a self-contained HTML page, and as text for a terminal.

A report is a list of `Section`s, which contain blocks; `html` and `show` render them.
"""

import base64
import html as escaping
import io
from typing import Any, NamedTuple

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from experiments.numbers import number
from experiments.run.display import Display

DPI = 160  # of figures: legible on a phone, small enough for e-mail


class Words(NamedTuple):
    """A paragraph; `tone` is "plain", "quiet" or "warning"."""

    text: str
    tone: str = "plain"


class Code(NamedTuple):
    """A command or code."""

    text: str


class Tiles(NamedTuple):
    """Headline numbers: (name, value, note)."""

    items: tuple[tuple[str, str, str], ...]


class Table(NamedTuple):
    """A table of text; if `numbers`, all but the first column are right-aligned."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: bool = True


class Picture(NamedTuple):
    """A Matplotlib figure and its caption; a photo is not inverted in dark mode."""

    figure: Any
    words: str
    photo: bool = False


class Fold(NamedTuple):
    """Collapsed blocks, left out in a terminal."""

    title: str
    blocks: tuple[Any, ...]


class Section(NamedTuple):
    """A heading and its blocks."""

    title: str
    blocks: tuple[Any, ...]


def size(count: int | None) -> str:
    """A number of bytes as text, in binary units; a dash for None."""
    if count is None:
        return "–"
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count:,} bytes"


def value(report: dict[str, Any], name: str) -> Any:
    """`report["macro"]["f1"]` for the name "macro.f1"; None if it is missing."""
    for part in name.split("."):
        report = report.get(part) if isinstance(report, dict) else None
    return report


def between(interval: tuple[float, float] | None, name: str = "") -> str:
    """An interval of the metric `name` as text; "" for None."""
    if not interval:
        return ""
    low, high = (number(end, name) for end in interval)
    return f"{low} to {high}"


def plural(count: int, word: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")


STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2933; --quiet: #5b6770;
  --line: #d9dee3; --panel: #f4f6f8; --accent: #0072b2; --warn: #fdf1e3;
  --warn-line: #d55e00; }
@media (prefers-color-scheme: dark) { :root { --paper: #15191d; --ink: #e4e8ec;
  --quiet: #9aa7b2; --line: #343c44; --panel: #1f252b; --accent: #6cb8e6;
  --warn: #33261a; --warn-line: #e08a4a; }
  img.chart { filter: invert(0.9) hue-rotate(180deg) brightness(1.2); } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 66rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  background: var(--paper); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 0.4rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 0.8rem; padding-top: 0.7rem;
  border-top: 1px solid var(--line); }
p { margin: 0.6rem 0; max-width: 46rem; overflow-wrap: anywhere; }
p.quiet, figcaption { color: var(--quiet); font-size: 0.9rem; }
p.warning { background: var(--warn); border-left: 4px solid var(--warn-line);
  padding: 0.6rem 0.9rem; border-radius: 0 6px 6px 0; }
nav { margin: 0.8rem 0 0; font-size: 0.95rem; }
nav a { display: inline-block; padding: 0.25rem 0.9rem 0.25rem 0; }
a { color: var(--accent); text-underline-offset: 0.2em; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; margin: 0.6rem 0; font-size: 0.93rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 1.1rem 0.3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
td { overflow-wrap: anywhere; min-width: 6rem; }
td:first-child { overflow-wrap: break-word; min-width: 0; }
th { color: var(--quiet); font-weight: 600; white-space: nowrap; }
table.numbers th:not(:first-child), table.numbers td:not(:first-child) {
  text-align: right; white-space: nowrap; padding: 0.3rem 0 0.3rem 1.4rem;
  min-width: 0; }
pre { background: var(--panel); padding: 0.7rem 0.9rem; border-radius: 6px;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.88rem; margin: 0.6rem 0;
  font-family: ui-monospace, Menlo, Consolas, monospace; }
.tiles { display: grid; gap: 0.7rem; margin: 1.1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
.tiles div { background: var(--panel); border-radius: 8px; padding: 0.7rem 0.9rem; }
.tiles b { display: block; font-size: 1.55rem; line-height: 1.25;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.tiles span { color: var(--quiet); font-size: 0.88rem; display: block; }
figure { margin: 1rem 0 1.4rem; position: relative; }
figure label { display: block; }
figure input { position: absolute; opacity: 0; }
figure img { display: block; height: auto; max-width: 100%; border-radius: 6px; }
figure input:checked + img { max-width: none; }
figure input:focus-visible + img { outline: 2px solid var(--accent); }
figcaption i { display: none; }
@media (max-width: 60rem) { figcaption i { display: inline; }
  figure img { cursor: zoom-in; } figure input:checked + img { cursor: zoom-out; } }
figure img.photo { background: #ffffff; }
details { margin: 0.8rem 0; }
summary { cursor: pointer; color: var(--accent); padding: 0.3rem 0; }
@media print { details:not([open]) > *:not(summary) { display: block; } }
"""

# The page loads nothing, even if a name should contain HTML.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html(title: str, lead: tuple[Any, ...], sections: list[Section]) -> str:
    """The HTML page: title, lead, links to the sections, and the sections."""
    links = body = ""
    for section in sections:
        name = "".join(c if c.isalnum() else "-" for c in section.title.lower())
        blocks = "".join(map(_block, section.blocks))
        links += f'<a href="#{name}">{_safe(section.title)}</a>'
        heading = f"<h2>{_safe(section.title)}</h2>"
        body += f'<section id="{name}">{heading}{blocks}</section>\n'
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="color-scheme" content="light dark">
<title>{_safe(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header><h1>{_safe(title)}</h1>
{"".join(map(_block, lead))}
<nav>{links}</nav></header>
<main>
{body}</main>
</body>
</html>
"""


def _safe(text: Any) -> str:
    return escaping.escape(str(text), quote=True)


def _block(block: Any) -> str:
    match block:
        case Words(text, tone):
            return f'<p class="{tone}">{_safe(text)}</p>\n'
        case Code(text):
            return f"<pre>{_safe(text)}</pre>\n"
        case Tiles(items):
            cells = "".join(
                f"<div><span>{_safe(name)}</span><b>{_safe(value)}</b>"
                f"<span>{_safe(beside)}</span></div>"
                for name, value, beside in items
            )
            return f'<div class="tiles">{cells}</div>\n'
        case Fold(title, blocks):
            inside = "".join(map(_block, blocks))
            return f"<details><summary>{_safe(title)}</summary>\n{inside}</details>\n"
        case Table():
            return _table(block)
        case Picture():
            return _picture(block)
    raise TypeError(f"a page has no {type(block).__name__}")


def _table(block: Table) -> str:
    head = "".join(f'<th scope="col">{_safe(cell)}</th>' for cell in block.header)
    rows = "".join(
        f"<tr>{''.join(f'<td>{_safe(cell)}</td>' for cell in row)}</tr>\n"
        for row in block.rows
    )
    kind = ' class="numbers"' if block.numbers else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>\n"
    )


def _picture(block: Picture) -> str:
    """An image as wide as the window at most; a tap shows it in full, with scrolling.

    A checkbox does that, since the page has no script.
    """
    from lstm_jax.figures.fonts import missing_note

    buffer = io.BytesIO()
    block.figure.savefig(buffer, format="png", dpi=DPI)
    content = base64.b64encode(buffer.getvalue()).decode()
    shape = f"width: {block.figure.get_figwidth() * 92:.0f}px"
    kind = "photo" if block.photo else "chart"
    caption = " ".join(filter(None, (block.words, missing_note(block.figure))))
    return (
        '<figure><label class="scroll"><input type="checkbox" aria-label="enlarge">'
        f'<img class="{kind}" style="{shape}" alt="{_safe(block.words)}" '
        f'src="data:image/png;base64,{content}"></label>'
        f"<figcaption>{_safe(caption)} <i>Tap to enlarge.</i></figcaption></figure>\n"
    )


def show(title: str, lead: tuple[Any, ...], sections: list[Section]) -> None:
    """Prints the report in a terminal, without figures and collapsed blocks."""
    display = Display()
    for section in (Section(title, lead), *sections):
        drawn = [b for b in section.blocks if not isinstance(b, Picture | Fold)]
        if drawn or section.title == title:
            display.note(Text(f"\n{section.title}", style="bold"))
        for block in drawn:
            _print(display, block)


def _print(display: Display, block: Any) -> None:
    if isinstance(block, Words):
        styles = {"quiet": "dim", "warning": "bold yellow"}
        display.note(Text(block.text, style=styles.get(block.tone, "")))
    elif isinstance(block, Code):
        display.note(block.text)
    elif isinstance(block, Tiles):
        width = max(len(name) for name, *_ in block.items)
        for name, value, beside in block.items:
            display.note(f"{name:<{width}}  {value}  {beside}".rstrip())
    else:
        table = RichTable(box=box.SIMPLE_HEAD, show_header=any(block.header))
        for column, name in enumerate(block.header):
            right = block.numbers and column
            options = dict(justify="right") if right else dict(overflow="fold")
            table.add_column(Text(name), **options)
        for row in block.rows:
            table.add_row(*map(Text, row))
        display.note(table)
