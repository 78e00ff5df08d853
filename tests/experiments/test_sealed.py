"""A run's config.json and report.json: versioned, sealed, and never taken in part."""

import json
import shutil

import pytest

from experiments.config import from_dict, read_run
from experiments.errors import UsageError
from experiments.run.load_run import load_run
from experiments.run.sealed import read_sealed, write_sealed


def edited(directory, change):
    """config.json with a change, as another version would have written it."""
    path = directory / "config.json"
    saved = read_sealed(path)
    change(saved)
    write_sealed(path, saved)


def refused(result, *words):
    code, _, err = result
    assert code == 2 and len(err.strip().splitlines()) == 1, err
    assert all(word in err for word in words), err


def test_values_come_back(tmp_path):
    values = {"a": [1, 2.5, None, "é\ud800"], "b": {"3": True}}
    write_sealed(tmp_path / "a.json", values)
    assert read_sealed(tmp_path / "a.json") == values
    assert json.loads((tmp_path / "a.json").read_text())["format"] == 1
    assert read_sealed(tmp_path / "none.json") is None


def test_the_content_of_another_file_is_refused(copied_run, command):
    directory, flags = copied_run
    shutil.copy(directory / "config.json", directory / "report.json")
    refused(
        command("predict", directory, "a.png"),
        f"{directory}/report.json has the content of config.json. Delete it and rerun",
    )


@pytest.mark.parametrize(
    "content, words",
    [
        ("{{{", "cannot be read"),
        ("[" * 200_000, "cannot be read: nested too deeply"),
        ("[]", "not from a run"),
        ('{"preset": "digits"}', "it has no format number, and this version"),
        ('{"format": 7}', "has format 7, and this version reads format 1"),
        ('{"format": 1, "preset": "digits"}', "its checksum does not match"),
    ],
)
def test_another_file_is_one_line(copied_run, command, content, words):
    directory, flags = copied_run
    (directory / "config.json").write_text(content)
    for result in (command("train", *flags), command("predict", directory, "a.png")):
        refused(result, f"{directory}/config.json", words)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda s: s["config"]["model"].pop("pooling"), "has no model.pooling, which"),
        (lambda s: s["config"].pop("seed"), "has no seed, which"),
        (lambda s: s["config"]["model"].update(speed=3), "unknown option model.speed"),
        (
            lambda s: s["config"]["model"].update(features="a"),
            "model.features='a', but",
        ),
        (lambda s: s["config"]["model"].update(features=-1), "model.features=-1, but"),
        (lambda s: s["config"].update(data={}), " data.dir, "),
        (lambda s: s["config"].update(model=None), "does not name its task and its"),
        (lambda s: s["config"].update(optimizer=None), "optimizer=None, expected"),
        (lambda s: s.update(config=[]), "does not name its task and its model"),
        (lambda s: s.update(data={}), "has no data.classes, no data.dataset"),
        (lambda s: s.update(data=None), '"data" is None, but it must be an object'),
        (lambda s: s["data"].update(outputs="ten"), "has data.outputs of another kind"),
        (lambda s: s["data"].update(colour=1), "has an unknown data.colour"),
        (lambda s: s.pop("data"), "is not from a run"),
    ],
)
def test_a_configuration_of_another_version_is_named(
    copied_run, command, change, words
):
    directory, flags = copied_run
    edited(directory, change)
    for result in (command("train", *flags), command("predict", directory, "a.png")):
        refused(result, f"{directory}/config.json", words)


def test_weights_need_only_what_predictions_depend_on(digits_run):
    saved = read_run(digits_run.directory)["config"]
    del saved["seed"], saved["data"]["split_seed"]
    assert from_dict(saved, "a.safetensors", strict=False).model.features == 8
    del saved["model"]["pooling"]
    with pytest.raises(UsageError, match="a.safetensors .* has no model.pooling"):
        from_dict(saved, "a.safetensors", strict=False)


def test_a_lost_config_is_found_in_the_checkpoint(copied_run, command):
    directory, flags = copied_run
    path = directory / "config.json"
    whole = path.read_bytes()
    path.unlink()
    copy = directory / "checkpoints" / "20" / "config.json"
    refused(command("train", *flags), f"{path} is missing", f"Copy {copy}")
    path.write_bytes(whole.replace(b'"seed": 0', b'"seed": 1'))
    refused(command("train", *flags), "checksum does not match", f"Copy {copy} over it")
    shutil.copy(copy, path)
    assert path.read_bytes() == whole
    assert command("train", *flags)[0] == 0


def test_the_checkpoint_that_a_run_ended_with_is_used(copied_run, command):
    directory, flags = copied_run
    ended = read_sealed(directory / "report.json")["train"]["checkpoint"]
    load_run(directory)
    shutil.rmtree(directory / "checkpoints" / str(ended))
    with pytest.raises(UsageError, match=f"ended with checkpoint {ended}, which is"):
        load_run(directory)
    (directory / "report.json").write_text("{")
    refused(command("report", directory), "report.json cannot be read")
