"""README, pages and help texts use the field's terms, in lines of readable width.

Code, tables, links and images are exempt.
"""

import importlib
import re
from pathlib import Path

import pytest

from experiments import flags
from experiments.config import preset
from experiments.presets import PRESETS

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
WIDTH = 100
# What to write instead, and the words and phrases, as regular expressions, that it
# replaces. Only what is never right in this project's English is listed.
REFUSED = {
    "image": "pictures?",
    "video, clip, animation": "films?|filmed",
    "detector, learning-rate range test": "finders?",
    "prediction": "answers? (for|to|by|of)|(is|are|be) answered",
    "diagnosis": "ails?|ailments?|in words what",
    "remedy, fix": "cures?|cured",
    "resume": "goes on from|typed again|go on from",
    "bit-identical": "to the same bits",
    "recompute": "makes? anew|made anew|anew",
    "return": "hand(s|ed|ing)? back",
    "ignored, used": "heed(s|ed|ing)?|unheeded",
    "baseline": "twins?",
    "your own": "a person's|of yours",
    "evaluate, score": "judge[sd]?|judging",
    "bidirectional": "(read|reads|lstms?|convlstms?) (them )?both ways",
    "direction of motion": "sets? out",
    "available": "at hand",
    "split, distribute": "deal(s|t) out|carved?",
    "compile-tested only": "not yet run on",
    "from scratch": "from nothing",
    "requires": r"(it|that|this|which) wants|wants (optuna|a gpu)",
    "is not": "is no (picture|flag)|are no (picture|flag)s",
    "so that": "lest",
}
REFUSALS = [
    (re.compile(rf"\b({words})\b", re.IGNORECASE), instead)
    for instead, words in REFUSED.items()
]
COMMANDS = [
    *([name] for name in ("predict", "report", "sweep", "export")),
    *(
        ["benchmark", name]
        for name in (
            "layers",
            "speed",
            "accuracy",
            "memory",
            "ablations",
            "compile",
            "text-recognition",
        )
    ),
]


def without_code(text: str) -> str:
    """A page whose blocks of code are blank lines."""
    return re.sub(
        r"^```.*?^```|^    .*?$",
        lambda code: "\n" * code[0].count("\n"),
        text,
        flags=re.DOTALL | re.MULTILINE,
    )


def refused(text: str) -> list[str]:
    """The refused words of a text, with what to write instead."""
    text = re.sub(r"\]\([^)]*\)|`[^`]*`", "]", " ".join(text.split()))
    return [
        f"{found[0]!r}: write {instead!r}"
        for pattern, instead in REFUSALS
        for found in pattern.finditer(text)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_use_the_fields_terms(page):
    assert not refused(without_code(page.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_has_lines_of_readable_width(page):
    lines = without_code(page.read_text()).split("\n")
    long = [
        f"{number}: {len(line)} characters"
        for number, line in enumerate(lines, 1)
        if len(line) > WIDTH and not re.match(r"\||<", line) and "](" not in line
    ]
    assert not long


def test_the_changelog_uses_the_fields_terms():
    assert not refused((ROOT / "CHANGELOG.md").read_text())


@pytest.mark.parametrize("name", PRESETS)
def test_the_help_of_train_uses_the_fields_terms(name, capsys):
    with pytest.raises(SystemExit):
        flags.read(preset(name), ["--help"], prog="train", description="")
    assert not refused(capsys.readouterr().out)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_other_commands_uses_the_fields_terms(words, capsys):
    command, *rest = words
    with pytest.raises(SystemExit):
        importlib.import_module(f"experiments.{command}").main([*rest, "--help"])
    text = re.sub(r"[─-╿]", " ", capsys.readouterr().out)
    assert len(text) > 200
    assert not refused(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Two films of a\nfinder", 2),
        ("the film.gif of `films/`", 1),
        ("in words\nwhat ails it", 2),
        ("A warm start needs twinned [pages](films.md)", 0),
    ],
)
def test_refused_words_are_found_over_line_ends_and_not_in_code(text, found):
    assert len(refused(text)) == found
