"""What TensorBoard reads is what metrics.jsonl says, also after a crash."""

import importlib.util
import io
import struct

import numpy as np
import pytest
from PIL import Image
from small_runs import SMALL, SMALL_FLAGS, SMALL_MODEL

from experiments import train
from experiments.choices import flat
from lstm_jax import data

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")

OPTIONS = SMALL | SMALL_MODEL | dict(steps=40, log_every=5, eval_every=10)


def events(file):
    """Records of an event file: length, its checksum, bytes, their checksum."""
    content, at = file.read_bytes(), 0
    while at < len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        yield event_pb2.Event.FromString(content[at + 12 : at + 12 + size])
        at += size + 16


def shown(directory):
    """{(split, name, step): values} that TensorBoard keeps.

    A file that begins a session hides what earlier files have from its step on.
    """
    found = {}
    for folder in (directory / "tensorboard").iterdir():
        for file in sorted(folder.iterdir()):
            for event in events(file):
                if event.HasField("session_log"):
                    hidden = [k for k in found if k[0] == folder.name]
                    for key in hidden:
                        if key[2] >= event.step:
                            del found[key]
                for value in event.summary.value:
                    key = (folder.name, value.tag, event.step)
                    found.setdefault(key, []).append(value)
    return found


def wanted(rows):
    return {
        (row["split"], name, row["step"]): np.float32(value)
        for row in rows
        for name, value in row.items()
        if name not in ("step", "split") and value is not None
    }


def check(run):
    found = shown(run.directory)
    assert all(len(values) == 1 for values in found.values())
    training = {
        key: np.float32(value.simple_value)
        for key, (value,) in found.items()
        if key[0] != "test"
    }
    assert training == wanted(run.history)
    steps = run.report["train"]["steps"]
    tested = flat(run.report["test"])
    assert found["test", "macro/f1", steps][0].simple_value == np.float32(
        tested["macro.f1"]
    )
    for title in run.figures:
        drawn = found["test", title, steps][0].image
        picture = Image.open(io.BytesIO(drawn.encoded_image_string))
        assert picture.size == (drawn.width, drawn.height)
        with Image.open(run.directory / f"{title}.png") as saved:
            np.testing.assert_array_equal(np.asarray(picture), np.asarray(saved))
        assert len(np.unique(np.asarray(picture))) > 20


@pytest.mark.slow
def test_a_crashed_run_and_a_finished_one_go_on(tmp_path, monkeypatch, drawn):
    real = data.train_rows

    def broken(*arguments, step, **rest):
        if step == 34:
            raise KeyError("a crash")
        return real(*arguments, step=step, **rest)

    options = OPTIONS | dict(run_dir=tmp_path, tensorboard=True)
    with monkeypatch.context() as patch:
        patch.setattr(data, "train_rows", broken)
        with pytest.raises(KeyError, match="a crash"):
            train("digits", **options)
    crashed = shown(tmp_path)
    assert ("train", "loss", 25) in crashed and ("validation", "loss", 20) in crashed
    run = train("digits", **options)
    check(run)
    assert len(list((tmp_path / "tensorboard" / "train").iterdir())) == 2
    # The finished run once more: its pictures take the place of the first.
    check(train("digits", **options))


def test_a_run_that_had_no_board_gets_it_whole(copied_run, drawn):
    directory, _ = copied_run
    assert not (directory / "tensorboard").exists()
    options = SMALL | SMALL_MODEL | dict(eval_every=10, run_dir=directory)
    check(train("digits", **options, tensorboard=True))


@pytest.mark.parametrize("package", ["tensorboardX", "wandb", "mlflow"])
def test_a_missing_package_is_told_before_anything_trains(
    package, command, monkeypatch, own_folder
):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == package else real(name, *rest),
    )
    flag = f"--{package.lower().removesuffix('x')}"
    code, _, err = command("train", "digits", *SMALL_FLAGS, flag)
    assert code == 2 and err.count("\n") == 1
    assert f"pip install {package}" in err
    assert not list(own_folder.iterdir())
