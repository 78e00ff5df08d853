"""A run that resumes has the data that it began with, or says what changed."""

import shutil

import numpy as np
import pytest
from PIL import Image
from small_runs import SMALL, SMALL_FLAGS, SMALL_MODEL, draw

from experiments.config import read_run
from experiments.run.data_check import FILE
from experiments.run.sealed import read_sealed, write_sealed


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """90 images of three classes, all of one size in bytes."""
    folder = tmp_path_factory.mktemp("original") / "shapes"
    rng = np.random.default_rng(0)
    for label, kind in (("a", "across"), ("b", "down"), ("c", "across")):
        for number in range(30):
            path = folder / label / f"{number:02}.bmp"
            draw(path, kind, rng)
            if label == "c":
                pixels = 255 - np.asarray(Image.open(path))
                Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="module")
def trained(original, tmp_path_factory, prepared_data):
    """A finished run of 20 steps on a copy of the images: (run, images)."""
    from experiments import train

    home = tmp_path_factory.mktemp("home")
    images, run = home / "shapes", home / "run"
    shutil.copytree(original, images)
    train("digits", data=images, run_dir=run, **SMALL | SMALL_MODEL)
    return run, images


@pytest.fixture
def resume(trained, original, tmp_path, command):
    """The command again, after a function changed the folder of images."""
    run, images = trained

    def again(change, *flags, spoil=None):
        copy = tmp_path / "run"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        shutil.rmtree(images)
        shutil.copytree(original, images)
        change(images)
        if spoil:
            spoil(copy / FILE)
        flags = [*SMALL_FLAGS, f"--data={images}", f"--run-dir={copy}", *flags]
        return copy, *command("train", *flags)

    return again


def thirty_gone(folder):
    for path in sorted(folder.glob("*/0?.bmp")):
        path.unlink()


def renamed(folder):
    (folder / "a").rename(folder / "d")


def swapped(folder):
    (folder / "a").rename(folder / "x")
    (folder / "b").rename(folder / "a")
    (folder / "x").rename(folder / "b")


def edited(folder):
    pixels = np.asarray(Image.open(folder / "c" / "07.bmp")).copy()
    pixels[3, 3] = 77
    Image.fromarray(pixels).save(folder / "c" / "07.bmp")


def nothing(folder):
    pass


def test_unchanged_data_resume_without_a_word(resume, trained):
    before = (trained[0] / FILE).read_text()
    run, code, out, err = resume(nothing)
    assert code == 0 and "the data" not in out + err
    assert (run / FILE).read_text() == before
    assert len(before) < 4000


@pytest.mark.parametrize(
    "change, words",
    [
        (thirty_gone, "60 examples instead of 90"),
        (renamed, "class 'a' is now called 'd'"),
        (swapped, "'a' holds what was in 'b', 'b' holds what was in 'a'"),
        (edited, "the content of 'c' differs"),
    ],
)
def test_changed_data_are_refused_in_one_line(change, words, resume, trained):
    run, code, out, err = resume(change)
    assert code == 2 and words in err and "--data.allow-changed" in err
    assert "Traceback" not in err and len(err.strip().splitlines()) == 1
    for name in (FILE, "config.json", "metrics.jsonl", "report.json"):
        assert (run / name).read_bytes() == (trained[0] / name).read_bytes()


def test_allowed_changes_are_told_and_kept(resume, trained, command):
    run, code, out, err = resume(thirty_gone, "--data.allow-changed")
    assert code == 0, err
    told = " ".join(out.split())
    assert (
        "60 examples instead of 90" in told and "resuming on the changed data" in told
    )
    kept = read_sealed(run / FILE)
    assert kept["fingerprint"]["splits"]["test"]["examples"] == 12
    assert len(kept["changes"]) == 1 and "instead of 90" in kept["changes"][0]
    old, new = read_run(trained[0])["data"], read_run(run)["data"]
    assert old["pixel_offset"] == new["pixel_offset"]  # as the network was trained
    flags = [*SMALL_FLAGS, f"--data={trained[1]}", f"--run-dir={run}"]
    assert command("train", *flags)[0] == 0  # the data are those of the last time
    assert read_run(run)["data"]["pixel_offset"] == old["pixel_offset"]


def test_a_network_with_other_outputs_does_not_resume(resume):
    def one_more(folder):
        shutil.copytree(folder / "a", folder / "e")

    run, code, out, err = resume(one_more, "--data.allow-changed")
    assert code == 2 and "class 'e' is new" in err and "--init-from" in err


@pytest.mark.parametrize(
    "text", ["{{{", "[]", "null", '{"format": 1}', '{"x": ' * 9999]
)
def test_a_damaged_fingerprint_is_named(text, resume):
    _, code, out, err = resume(nothing, spoil=lambda path: path.write_text(text))
    assert code == 2 and FILE in err and "Delete it to resume without" in err
    assert "Traceback" not in err and len(err.strip().splitlines()) == 1


def test_an_edited_fingerprint_is_not_a_change_of_the_data(resume):
    def spoil(path):
        text = path.read_text()
        assert '"examples": 9' in text
        path.write_text(text.replace('"examples": 9', '"examples": 8', 1))

    _, code, out, err = resume(nothing, spoil=spoil)
    assert code == 2 and "checksum does not match. Delete it to resume" in err


def test_a_fingerprint_of_another_version_is_named(resume):
    def spoil(path):
        found = read_sealed(path)
        found["fingerprint"]["format"] = 0
        write_sealed(path, found)

    _, code, out, err = resume(nothing, spoil=spoil)
    assert code == 2 and "has format 0, and this version makes format 1" in err


def test_a_missing_fingerprint_is_told(resume):
    run, code, out, err = resume(nothing, spoil=lambda path: path.unlink())
    assert code == 0 and f"{FILE} is missing" in " ".join(out.split())
    assert (run / FILE).exists()
