"""Nothing that a file or a model holds changes the terminal, or stops the output."""

import importlib
import io
import json

import pytest

from experiments.errors import UsageError, explain
from experiments.flags import parse
from experiments.prediction import output
from experiments.run.display import Display
from experiments.tasks import TASKS
from experiments.terminal import printable

BAD = "\x1b]0;title\x07 caf\udce9 \x9b31m"
SAFE = r"\x1b]0;title\x07 caf\udce9 \x9b31m"
ROW = {"path": f"{BAD}.png", "label": BAD, "confidence": 0.5, "probabilities": {}}


def test_control_characters_and_surrogates_are_escaped():
    assert printable(BAD) == SAFE
    assert printable("ä 日本\t\n👩\u200d🔬") == "ä 日本\t\n👩\u200d🔬"


def test_notes_and_errors_are_printable():
    stream = io.StringIO()
    Display(stream).note(f"skipped {BAD}")
    assert stream.getvalue() == f"skipped {SAFE}\n"
    try:
        parse(["digits", f"--steps={BAD}"])
    except UsageError as error:
        assert "\x1b" not in explain(error)


@pytest.mark.parametrize("show", ["show", "show_line"])
def test_predictions_are_printable(show, capsys):
    kind, rows = TASKS["classification"], [ROW, {"path": "x", "error": f"{BAD}: bad"}]
    if show == "show":
        output.show(kind, rows)
    else:
        for row in rows:
            output.show_line(kind, row)
    out, err = capsys.readouterr()
    assert SAFE in out and SAFE in err and "\x1b" not in out + err


@pytest.mark.parametrize("suffix", output.ENDINGS)
def test_predictions_are_written_whatever_the_name(suffix, tmp_path):
    output.write(TASKS["classification"], [ROW], tmp_path / f"x{suffix}")
    text = (tmp_path / f"x{suffix}").read_text()
    assert r"caf\udce9" in text
    if suffix == ".jsonl":
        assert json.loads(text)["label"] == BAD


@pytest.mark.parametrize(
    "arguments",
    [
        ["digits", "--steps=1", "--steps=2"],
        ["digits", "--steps", "1", "--steps=2"],
        ["digits", "--data=a", "--data.source=b"],
        ["digits", "--lr=1", "--optimizer.learning-rate=2"],
        ["digits", "--overwrite", "--overwrite"],
    ],
)
def test_a_flag_is_given_once(arguments):
    with pytest.raises(UsageError, match="is given 2 times; give it once"):
        parse(arguments)


def test_a_flag_of_another_command_is_given_once(capsys):
    arguments = ["run", "x.png", "--out=a.csv", "--out=b.csv"]
    predict = importlib.import_module("experiments.predict")
    assert predict.main(arguments) == 2
    assert capsys.readouterr().err == "error: --out is given 2 times; give it once\n"
