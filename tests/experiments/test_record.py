"""The run record: whole files, plain rows, and lines for people."""

import errno
import io
import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.run import display, record
from experiments.run.display import Display, counted_diagnoses, summary_table
from experiments.run.record import (
    MetricsLog,
    RunError,
    environment,
    save_figure,
    write_json,
)
from experiments.tasks import TASKS


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def row(step, split="train", **values):
    return {"step": step, "split": split, **values}


# --- files ---


def test_write_json_takes_arrays_paths_and_scalars(tmp_path):
    path = tmp_path / "new" / "report.json"
    thing = {
        "a": np.float32(0.5),
        "b": jnp.arange(2),
        "c": (np.int64(3), None, True),
        "d": tmp_path,
        1: "é",
    }
    write_json(path, thing)
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "a": 0.5,
        "b": [0, 1],
        "c": [3, None, True],
        "d": str(tmp_path),
        "1": "é",
    }
    assert os.listdir(path.parent) == ["report.json"]


def test_write_json_names_the_entry_that_json_cannot_hold(tmp_path):
    path = tmp_path / "report.json"
    with pytest.raises(ValueError, match=r"report.json: a: b\[1\] is nan.*None"):
        write_json(path, {"a": {"b": [1.0, np.float32("nan")]}})
    with pytest.raises(TypeError, match="report.json: a is a set"):
        write_json(path, {"a": {1}})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr(record, "_sync", full_disk)
    with pytest.raises(RunError, match=r"report.json: .*disk is full.*MiB.*make room"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["report.json"]


def test_another_os_error_stays_what_it_is(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        write_json(tmp_path / "file" / "report.json", {})


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    code = """
import os, sys
from experiments.run import record
path = sys.argv[1]
record.write_json(path, {"a": 1})
record._sync = lambda _: os._exit(9)
record.write_json(path, {"a": 2})
"""
    path = tmp_path / "report.json"
    root = os.path.dirname(os.path.dirname(record.__file__))
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=root)
    assert done.returncode == 9
    assert json.loads(path.read_text()) == {"a": 1}


def test_save_figure(tmp_path):
    from matplotlib.figure import Figure
    from PIL import Image

    save_figure(tmp_path / "figures" / "a.png", Figure(figsize=(2, 1), dpi=100))
    with Image.open(tmp_path / "figures" / "a.png") as image:
        assert image.size == (200, 100)
    save_figure(tmp_path / "a.svg", Figure())
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()


# --- metrics ---


def test_rows_come_back_as_plain_numbers(tmp_path):
    log = MetricsLog(tmp_path / "run")
    assert log.rows() == []
    log.append(row(np.int32(1), loss=jnp.float32(0.5), accuracy=float("nan")))
    log.append(row(2, "validation", loss=0.25))
    assert log.rows() == [
        row(1, loss=0.5, accuracy=None),
        row(2, "validation", loss=0.25),
    ]
    assert len(log.path.read_text().splitlines()) == 2


def test_a_row_without_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'wants "step" and "split", got \[\'loss\'\]'):
        MetricsLog(tmp_path).append({"loss": 1.0})


def test_restore_drops_later_rows_and_names_damage(tmp_path):
    log = MetricsLog(tmp_path)
    for step in (10, 20):
        log.append(row(step, loss=1.0))
    saved = log.content()
    log.append(row(30, loss=1.0))
    with open(log.path, "a") as file:
        file.write('{"step": 40, "spl')
    assert [r["step"] for r in log.rows()] == [10, 20, 30]
    assert log.restore(saved) is None
    assert log.content() == saved
    assert log.restore(saved) is None
    log.path.write_bytes(saved[:20] + saved[25:])
    assert "metrics.jsonl was damaged: restored" in log.restore(saved)
    assert log.content() == saved
    log.path.unlink()
    assert "missing or empty: restored" in log.restore(saved)
    assert [r["step"] for r in log.rows()] == [10, 20]
    assert MetricsLog(tmp_path / "none").restore(b"") is None


@pytest.mark.parametrize(
    "torn", ['{"step": 40, "spl', '{"step": 40, "split": "train"}']
)
def test_append_does_not_join_a_torn_line(tmp_path, torn):
    log = MetricsLog(tmp_path)
    log.append(row(10))
    with open(log.path, "a") as file:
        file.write(torn)
    MetricsLog(tmp_path).append(row(20))
    assert [r["step"] for r in log.rows()] == [10, 20]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    log = MetricsLog(tmp_path)
    log.append(row(10))
    with open(log.path, "a") as file:
        file.write("\0\0\n")
    with pytest.raises(RunError, match="metrics.jsonl: line 2 is not a row"):
        log.rows()


def test_append_on_a_full_disk_leaves_no_torn_line(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path)
    log.append(row(10))

    class Full(io.FileIO):
        def write(self, data):
            super().write(data[:5])
            full_disk()

    monkeypatch.setattr(
        record, "open", lambda path, *_, **__: Full(path, "ab"), raising=False
    )
    with pytest.raises(RunError, match="metrics.jsonl: could not be written"):
        log.append(row(20))
    assert log.path.read_text() == '{"step": 10, "split": "train"}\n'


def test_write_csv_has_every_column(tmp_path):
    log = MetricsLog(tmp_path)
    log.append(row(1, loss=0.5, learning_rate=0.001))
    log.append(row(2, "validation", loss=0.25, accuracy=None, top5_accuracy=1.0))
    path = log.write_csv()
    assert path == tmp_path / "metrics.csv"
    assert path.read_text().splitlines() == [
        "step,split,loss,learning_rate,accuracy,top5_accuracy",
        "1,train,0.5,0.001,,",
        "2,validation,0.25,,,1.0",
    ]


# --- environment ---


def test_environment_is_plain_and_without_host_name():
    import platform

    import jax

    result = environment()
    assert result["jax"] == jax.__version__
    assert result["python"] == platform.python_version()
    assert result["device_count"] == len(jax.devices())
    assert result["platform"] == jax.devices()[0].platform
    json.dumps(result, allow_nan=False)
    assert platform.node() not in [str(value) for value in result.values()]
    assert {"jaxlib", "flax", "optax", "numpy", "lstm_jax", "git_commit"} <= set(result)


def test_git_commit_of_a_checkout(tmp_path, monkeypatch):
    file = tmp_path / "code.py"
    file.write_text("1\n")
    assert record._git_commit(file) is None

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True
        ).stdout.decode()

    git("init", "-q")
    assert record._git_commit(file) is None  # not tracked
    git("add", "code.py")
    git("commit", "-qm", "one")
    head = git("rev-parse", "HEAD").strip()
    assert record._git_commit(file) == head
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert record._git_commit(file) == head
    file.write_text("2\n")
    assert record._git_commit(file) == head + "-dirty"
    monkeypatch.setenv("PATH", "")
    assert record._git_commit(file) is None


# --- display ---


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def show(stream, clock):
    with Display(stream) as display:
        display.start(500, 0)
        metrics = {
            "split": "train",
            "loss": 0.43211,
            "accuracy": np.float32(0.88123),
            "learning_rate": 1e-3,
            "images_per_second": 3214.3,
        }
        display.update(50, metrics)
        clock[0] += 1.5
        display.update(100, metrics)
        display.update(100, {"split": "validation", "loss": 0.5, "mae": 12.34})
        clock[0] += 4000
        display.update(200, metrics)
        display.note("saved [/bold] é日")
        display.update(500, {"loss": 1e-5})


LINES = [
    "step 50/500  loss 0.4321  accuracy 88.1 %  3,214 images/s",
    "step 100/500  loss 0.4321  accuracy 88.1 %  3,214 images/s  0:12 left",
    "step 100/500  validation  loss 0.5000  mae 12.3400",
    "step 200/500  loss 0.4321  accuracy 88.1 %  3,214 images/s  2:13:23 left",
    "saved [/bold] é日",
    "step 500/500  loss 1e-05  0:00 left",
]


def test_plain_lines(clock):
    stream = io.StringIO()
    show(stream, clock)
    lines = stream.getvalue().splitlines()
    # 4001.5 s for 150 steps, 300 steps left: 8003 s
    assert lines == LINES


def test_a_poor_encoding_prints_question_marks(clock):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    show(stream, clock)
    assert b"saved [/bold] ??\n" in raw.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_terminal_gets_a_bar_and_lines_above_it(clock, monkeypatch, encoding):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    monkeypatch.setattr(Terminal, "encoding", encoding)
    show(stream, clock)
    text = stream.getvalue()
    assert ("━━━" in text) == (encoding == "utf-8")
    assert "compiling" in text and "3,214 images/s  0:12 left" in text
    assert "validation  loss 0.5000  mae 12.3400\n" in text
    assert ("saved [/bold] é日" if encoding == "utf-8" else "saved [/bold] ??") in text
    assert text.endswith("\x1b[?25h")  # the cursor is back


def test_a_notebook_and_a_dumb_terminal_get_plain_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    show(stream, clock)
    assert stream.getvalue().splitlines() == LINES
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    stream = Terminal()
    show(stream, clock)
    assert stream.getvalue().splitlines() == LINES


def test_a_resumed_run_times_only_its_own_steps(clock):
    stream = io.StringIO()
    display = Display(stream)
    display.start(500, 400)
    display.update(450, {"loss": 1.0})
    clock[0] += 10
    display.update(475, {"loss": 1.0})
    assert stream.getvalue().splitlines()[-1] == "step 475/500  loss 1.0000  0:10 left"
    display.stop()
    display.stop()


# --- summary ---


def rendered(report, task="classification"):
    stream, metrics = io.StringIO(), TASKS[task].metrics
    Console(file=stream, width=100).print(summary_table(report, metrics))
    return stream.getvalue()


def test_summary_of_a_classification():
    report = {
        "examples": 1234,
        "accuracy": 0.75,
        "top5_accuracy": 1.0,
        "loss": 0.5,
        "macro": {"f1": 0.7, "roc_auc": None},
        "classes": ["[b]cat", "dog"],
        "confusion_matrix": [[3, 1], [0, 5]],
        "per_class": [
            {"name": "[b]cat", "f1": 0.5, "support": 4},
            {"name": "dog", "f1": 1.0, "support": 5},
        ],
        "baselines": {"logistic regression": {"accuracy": 0.5}},
    }
    text = rendered(report)
    assert "Test set: 1,234 examples" in text
    line = next(line for line in text.splitlines() if line.strip().startswith("acc"))
    assert line.split() == ["accuracy", "75.0", "%", "50.0", "%"]
    assert "top-5 accuracy" in text and "F1, macro" in text and "ROC" not in text
    assert "lowest F1: [b]cat (0.500)" in text and "dog (" not in text
    assert "most frequent error: [b]cat predicted as dog, once" in text


def test_summary_of_a_regression():
    text = rendered(
        {"examples": 5, "unit": "degrees", "mae": 3.5, "rmse": 4.5, "r2": None},
        "regression",
    )
    assert "mean absolute error (degrees)" in text and "3.5000" in text
    assert "R²" not in text


def test_remarks_longer_than_the_table_stay_lines():
    names = ["ankle boot", "T-shirt/top", "sneaker"]
    rows = [{"name": name, "f1": 0.5, "support": 4} for name in names]
    report = {"loss": 0.5, "classes": names, "per_class": rows}
    report |= {"confusion_matrix": [[2, 2, 0], [2, 2, 0], [0, 2, 2]]}
    text = rendered(report)
    assert "ankle boot (0.500), T-shirt/top (0.500), sneaker" in text
    assert "most frequent error: ankle boot predicted as T-shirt/top, 2 times" in text


def test_the_best_of_a_line_is_bold():
    table = summary_table(
        {
            "accuracy": 0.9,
            "loss": 0.2,
            "baselines": {"b": {"accuracy": 0.8, "loss": 1}},
        },
        TASKS["classification"].metrics,
    )
    ours, theirs = (list(column.cells) for column in table.columns[1:])
    assert [str(cell.style) for cell in ours] == ["bold green", "bold green"]
    assert [str(cell.style) for cell in theirs] == ["", ""]


def test_problems_of_several_runs_are_counted():
    def report(*names):
        return {
            "diagnosis": [
                {"name": name, "words": f"{name} is bad", "suggestion": "--steps"}
                for name in names
            ]
        }

    assert counted_diagnoses([report("a"), report("b", "a"), report()], "seeds") == [
        "found in 2 of 3 seeds: a is bad\n  may help: --steps",
        "found in 1 of 3 seeds: b is bad\n  may help: --steps",
    ]
