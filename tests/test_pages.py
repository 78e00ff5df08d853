"""The commands in README and pages have flags and values that the programs take."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from experiments import cli, flags

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(
    r"^ *(?:chrt -r 10 )?python -m experiments\.(?!benchmarks)(.+)$", re.MULTILINE
)
PLACEHOLDERS = {"PRESET", "--help", "RUN"}


def commands(text: str) -> list[list[str]]:
    """The words after `python -m experiments.`, in blocks of code and in prose."""
    spans = re.findall(r"`([^`]+)`", text.replace("```", ""))
    lines = [" ".join(span.split()) for span in spans]
    lines += re.sub(r"\\\n\s*", "", text).split("\n")
    found = COMMAND.findall("\n".join(line for line in lines if "`" not in line))
    words = [shlex.split(line, comments=True) for line in found if "…" not in line]
    return [line for line in words if not PLACEHOLDERS & {*line}]


def understands(words: list[str]) -> str:
    """Reads a command line without running it; the mistake, if there is one."""
    command, *arguments = words
    module = importlib.import_module(f"experiments.{command}")
    try:
        if command == "train":
            flags.parse(arguments)
        elif command == "sweep":
            module.parse(arguments)
        else:
            module.main(arguments)  # see `parsed_only`
    except (ValueError, SystemExit) as error:
        return str(error)
    return ""


@pytest.fixture
def parsed_only(monkeypatch):
    """Commands other than `train` and `sweep` read their options and do nothing."""
    run = cli.run

    def parse(name, options, command, arguments, **how):
        return run(name, options, lambda options: None, arguments, **how)

    monkeypatch.setattr(cli, "run", parse)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=f"{page.name}: {shlex.join(words)}")
        for page in PAGES
        for words in commands(page.read_text())
    ],
)
def test_a_command_of_a_page_is_understood(words, parsed_only):
    assert not understands(words)


def test_commands_are_found_in_blocks_and_in_prose():
    text = (
        "Run `python -m experiments.sweep\n--trials=3` or\n\n"
        "```bash\npython -m experiments.train digits \\\n  --seed=1 # comment\n```\n"
    )
    assert commands(text) == [["sweep", "--trials=3"], ["train", "digits", "--seed=1"]]


def test_what_a_command_does_not_take_is_noticed(parsed_only):
    assert understands(["train", "--epoch=3"])
    assert understands(["predict", "runs/digits", "a.png", "--no-such"])
    assert not understands(["predict", "runs/digits", "a.png"])
