"""Pictures of how lines were read."""

from lstm_jax.look import BLUE, INK, figure, safe, tidy


def confusion_figure(report: dict):
    """The most frequent mistakes of a report, as bars: a Figure."""
    rows = report["confusions"][::-1]
    fig = figure(5.6, 1.6 + 0.26 * max(len(rows), 2))
    ax = fig.add_subplot()
    tidy(ax)
    names = [f"{_shown(row['true'])} → {_shown(row['read'])}" for row in rows]
    ax.barh(range(len(rows)), [row["count"] for row in rows], color=BLUE)
    ax.set_yticks(range(len(rows)), names)
    ax.set_xlabel("times", color=INK)
    cer = report["cer"]
    told = "no characters" if cer is None else f"{100 * cer:.2f} % of characters wrong"
    ax.set_title(f"True → read, {told}", loc="left", color=INK)
    return fig


def _shown(character: str) -> str:
    """A character that can be seen and that the default font has."""
    names = {"": "(none)", " ": "(space)"}
    if character in names:
        return names[character]
    seen = character.strip() and character.isprintable() and ord(character[0]) < 0x2000
    return safe(character) if seen else f"U+{ord(character[0]):04X}"
