"""`train PRESET --help`: what has an effect, in groups of a screen, at once."""

import ast
import importlib
import inspect
import itertools
import re
import subprocess
import sys

import pytest

from experiments.config import options, override, preset
from experiments.errors import UsageError
from experiments.flags import _ELSEWHERE, parse
from experiments.presets import PRESETS

SCREEN = 24  # lines of a terminal
COMMANDS = importlib.import_module("experiments.benchmark")._COMMANDS
HEAVY = "jax numpy flax optax orbax matplotlib rich tyro sklearn lstm_jax".split()


def shown(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        parse([*arguments, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def groups(text):
    """Lines of each group by its title, without the blank ones around it."""
    found, title = {}, ""
    for line in text.splitlines():
        if line and line[0] != " " and line.endswith(":"):
            title = line.removesuffix(":")
        found.setdefault(title, []).append(line)
    return {
        title: "\n".join(lines).strip().split("\n") for title, lines in found.items()
    }


def test_the_help_of_a_preset_is_a_screen_for_each_group(capsys):
    text = shown(capsys, "detect-digits")
    found = groups(text)
    assert {"training", "data", "task=detection", "model=recurrent_detector"} <= set(
        found
    )
    for title, lines in itertools.islice(found.items(), 1, None):
        assert len(lines) <= SCREEN, title


@pytest.mark.parametrize("name", PRESETS)
def test_it_lists_the_options_of_the_preset_and_no_others(name, capsys):
    text = shown(capsys, name)
    flags = {word.rstrip(",") for word in text.split() if word.startswith("--")}
    flags -= {"--help", "--no-compilation-cache", "--no-baselines", "--lr", "--data"}
    flags = {flag for flag in flags if ".no-" not in flag} - {"--check-data"}
    known = {f"--{option.name.replace('_', '-')}" for option in options(preset(name))}
    assert flags == known


def test_a_choice_brings_its_own_options(capsys):
    words = "--optimizer=sgd --optimizer.schedule=restarts --model.cell=rnn".split()
    text = shown(capsys, "digits", *words)
    for flag in ("optimizer.momentum", "optimizer.schedule.cycles"):
        assert f"--{flag}" in text
        assert f"--{flag}" not in shown(capsys, "digits")
    assert "--model.cell.activation" in text and "--model.cell.forget-bias" not in text


def test_what_two_kinds_share_keeps_its_value():
    config = override(preset("segment-digits"), {"model": "unet"})
    assert config.model.features == preset("segment-digits").model.features == 64
    back = override(config, {"task": "classification"})
    assert (back.model.name, back.model.features) == ("classifier", 64)
    assert back.data.source == "digits_masks" and back.augment.flip == 0


def test_short_flags():
    name, config = parse(["--lr=0.5", "--data", "fashion_mnist", "--no-baselines"])
    assert name == "digits" and config.optimizer.learning_rate == 0.5
    assert config.data.source == "fashion_mnist" and not config.baselines


@pytest.mark.parametrize("name", PRESETS)
def test_the_help_fits_80_columns(name, capsys):
    text = shown(capsys, name)
    assert [line for line in text.splitlines() if len(line) > 80] == []
    for preset_name, (description, _) in PRESETS.items():
        assert f"  {preset_name} " in text and f" {description}\n" in text


@pytest.mark.parametrize(
    "words",
    [
        *(["predict"], ["report"], ["export"], ["sweep"], ["benchmark"]),
        *(["benchmark", name] for name in COMMANDS),
    ],
    ids=" ".join,
)
def test_the_help_of_other_commands_fits_80_columns(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command, *rest = words
    with pytest.raises(SystemExit):
        importlib.import_module(f"experiments.{command}").main([*rest, "--help"])
    usage, *lines = capsys.readouterr().out.splitlines()
    assert usage.startswith("usage:")  # tyro does not wrap it
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("name", ["predict", "report", "export", "benchmarks.options"])
def test_help_texts_that_tyro_prints_are_one_line(name):
    """Tyro breaks a text where its source does, and again at the terminal's width."""
    source = inspect.getsource(importlib.import_module(f"experiments.{name}"))
    texts = [
        string.value.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
        for field, string in itertools.pairwise(node.body)
        if isinstance(field, ast.AnnAssign) and isinstance(string, ast.Expr)
    ]
    assert len(texts) >= 2
    assert [text for text in texts if "\n" in text] == []


def test_short_flags_are_listed(capsys):
    text = shown(capsys, "digits")
    # Python 3.13 writes the type of a flag once, older versions after each name.
    assert re.search(r"\n  --lr( FLOAT)?, --optimizer.learning-rate FLOAT\n", text)
    assert re.search(r"\n  --data( STR)?, --data.source STR\n", text)


@pytest.mark.parametrize(
    "given, meant",
    [
        ("--hidden=64", "--model.features"),
        ("--hidden-size=64", "--model.features"),
        ("--batch=32", "--batch-size"),
        ("--learning-rate=0.1", "--optimizer.learning-rate"),
        ("--epoch=3", "--epochs"),
        ("--num-layers=3", "--model.layers"),
        ("--layer=3", "--model.layers"),
        ("--dropout=0.1", "--model.dropout"),
        ("--gpu", "--accelerator=gpu"),
        ("--fp16", "--precision=bfloat16"),
        ("--img-size=64", "--data.size"),
        ("--patience=5", "--early-stopping-patience"),
        ("--weight-decy=0.1", "--optimizer.weight-decay"),
        ("--warmup-steps=5", "--optimizer.schedule.warmup-steps"),
    ],
)
def test_flags_of_other_libraries_get_a_suggestion(given, meant):
    with pytest.raises(UsageError, match=f"did you mean {meant}\\?$"):
        parse(["digits", given])


def test_a_suggestion_is_a_flag_of_the_preset():
    with pytest.raises(UsageError, match="^unknown option --beam-size$"):
        parse(["digits", "--beam-size=3"])
    with pytest.raises(UsageError, match="did you mean --task.beam-width"):
        parse(["text-lines", "--beam-size=3"])


@pytest.mark.parametrize("option", _ELSEWHERE)
def test_the_options_that_are_suggested_exist(option):
    known = [o.name for name in ("digits", "text-lines") for o in options(preset(name))]
    assert option.partition("=")[0] in known


def test_help_waits_for_nothing_heavy():
    code = f"""
import sys
from experiments.train import main
try:
    main(["detect-digits", "--help"])
except SystemExit:
    print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
