"""Bad input: one clear message, exit code 2, no traceback, nothing written."""

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from forced_devices import forced_devices
from small_runs import SMALL, SMALL_FLAGS, SMALL_MODEL, draw

from experiments import config as config_module
from experiments.errors import UsageError, explain
from experiments.run import record
from lstm_jax import data


def refused(result, *words):
    code, out, err = result
    assert code == 2, (code, out, err)
    assert "Traceback" not in out + err
    for word in words:
        assert word in err, err


MISTAKES = {
    "unknown preset": ("digit", "unknown preset 'digit'", "Did you mean digits?"),
    "unknown data set": ("--data=fashion_mnits", "no data set", "fashion_mnist"),
    "a folder that is not there": ("--data=./nowhere", "no such file or folder"),
    "steps of zero": ("--steps=0", "steps=0", "1 or more"),
    "negative batch": ("--batch-size=-4", "batch_size=-4", "1 or more"),
    "epochs of zero": ("--steps=None --epochs=0", "epochs=0", "more than 0"),
    "endless": ("--steps=None --epochs=inf", "epochs=inf", "finite"),
    "no end": ("--steps=None --epochs=None", "give epochs or steps"),
    "no size": ("--data.size=0", "data.size=0", "1 or more"),
    "no features": ("--model.features=0", "model.features=0", "1 or more"),
    "eval every": ("--eval-every=0", "eval_every=0", "1 or more"),
    "negative noise": ("--data.noise-rows=-1", "noise_rows=-1", "negative"),
    "rate is nan": ("--optimizer.learning-rate=nan", "learning_rate=nan", "finite"),
    "dropout of one": ("--model.dropout=1", "model.dropout=1", "[0, 1)"),
    "no validation": ("--data.validation=0", "validation", "between 0 and 1"),
    "batch too large": ("--batch-size=2000", "batch size 2000", "1293"),
    "patches": ("--model.order=patches --model.patch=3", "8x8", "--model.patch=3"),
    "accumulate": ("--grad-accum-steps=5", "batch size 16", "use 15 or 20"),
    "crop of nothing": ("--augment.crop=0", "augment.crop=0", "above 0"),
    "flip": ("--augment.flip=2", "augment.flip=2", "[0, 1]"),
    "cutmix": ("--augment.cutmix=1 --parallel=pmap", "cutmix", "--parallel=jit"),
    "RandAugment": ("--augment.rand-augment=11", "rand_augment=11", "[0, 10]"),
    "mixup": ("--augment.mixup=0.2 --parallel=pmap", "mixup", "--parallel=jit"),
    "one of many": ("--process-id=1", "process_id", "without distributed"),
    "which": ("--distributed --processes=2", "processes", "without coordinator"),
    "numbers": ("--data=digits_angle", "numbers", "--task=regression"),
    "classes": ("digits-angle --data=digits", "classes", "--task=classification"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_in_one_message(case, command, own_folder):
    line, *words = MISTAKES[case]
    arguments = line.split()
    name = [arguments.pop(0)] if not arguments[0].startswith("-") else []
    result = command("train", *name, *SMALL_FLAGS, *arguments)
    refused(result, "error: ", *words)
    error = result[2].partition("error: ")[2]  # a data set's progress may precede it
    assert len(error.splitlines()) == 1
    assert not list(own_folder.iterdir())


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--model.feature=8", ["--model.feature", "--model.features"]),
        ("--learning-rate=1", ["--optimizer.learning-rate"]),
        ("--learning_rate", ["--optimizer.learning-rate"]),
        ("--model.cell=lstn", ["--model.cell", "lstm"]),
        ("--model.engine=cuda", ["--model.engine", "auto"]),
        ("--steps=many", ["--steps", "many"]),
    ],
)
def test_a_wrong_flag_names_one_near_it(flag, words, command, own_folder):
    refused(command("train", "digits", flag), *words)
    assert not list(own_folder.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(stepz=5), "unknown option stepz; did you mean steps?"),
        (dict(features=5), "unknown option features; did you mean model.features?"),
        (dict(model__feature=5), "model.feature; did you mean model.features?"),
        (dict(steps__x=5), "unknown option steps.x"),
        (dict(model__cell="lstn"), "must be one of lstm, gru, rnn, conv_lstm"),
        (dict(model__order="row"), "did you mean 'rows'?"),
        (dict(steps="many"), "steps='many', but it must be int or None"),
        (dict(steps=2.5), "steps=2.5, but it must be int or None"),
        (dict(model=3), "model=3, expected a group of options"),
        (dict(optimizer__learning_rate=float("inf")), "must be finite"),
    ],
)
def test_a_wrong_argument_of_the_function_too(options, message, own_folder):
    from experiments import train

    with pytest.raises(UsageError) as caught:
        train("digits", **options)
    assert message in str(caught.value)
    assert not list(own_folder.iterdir())


def test_our_own_bugs_keep_their_traceback():
    try:
        np.zeros(3).reshape(2)
    except ValueError as error:
        assert "Traceback" in explain(error)
    try:
        config_module.preset("x")
    except ValueError as error:
        assert explain(error).startswith("error: unknown preset")


@pytest.mark.slow
def test_devices_that_are_not_there(run_python, own_folder):
    """The CPU alone, and eight of them."""
    flags = ["-m", "experiments.train", "--steps=2"]
    eight = forced_devices(8)
    with ThreadPoolExecutor(2) as pool:
        tpu = pool.submit(run_python, *flags, "--accelerator=tpu", JAX_PLATFORMS="")
        gpu = pool.submit(run_python, *flags, "--accelerator=gpu", JAX_PLATFORMS="")
        batch = pool.submit(
            run_python, *flags, "--accelerator=cpu", "--batch-size=30", **eight
        )
    for done, words in (
        (tpu.result(), ["accelerator=tpu", "cpu", 'pip install "jax[tpu]"']),
        (gpu.result(), ["accelerator=gpu", "cpu", 'pip install "jax[cuda']),
        (batch.result(), ["batch size 30", "8 devices", "24 or 32"]),
    ):
        if done.returncode == 0:
            continue  # this machine does have it
        refused((done.returncode, done.stdout, done.stderr), *words)
    assert batch.result().returncode == 2
    if tpu.result().returncode and gpu.result().returncode:
        assert not list(own_folder.iterdir())


def test_a_folder_with_another_run_is_refused_with_the_difference(command, copied_run):
    directory, flags = copied_run
    before = {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    wrong = ["--seed=3", "--model.dropout=0.9"]
    refused(
        command("train", *flags, *wrong),
        "seed was 0, is 3",
        "model.dropout was ",
        ", is 0.9",
        "--overwrite",
        "--run-dir",
    )
    # Nor does --overwrite delete it for a run that cannot begin.
    refused(command("train", *flags, "--overwrite", "--batch-size=2000"), "1293")
    assert before == {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_overwrite_refuses_a_folder_that_holds_no_run(command, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("years")
    flags = [*SMALL_FLAGS, f"--run-dir={folder}", "--overwrite"]
    refused(command("train", *flags), "holds files, but no run", "--run-dir")
    (folder / "config.json").write_text('{"name": "somebody else\'s"}')
    refused(command("train", *flags), "not from a run", "--run-dir")
    (folder / "config.json").write_text('{"name"')
    refused(command("train", *flags), "config.json cannot be read", "--run-dir")
    assert (folder / "chapter.tex").read_text() == "years"
    refused(
        command("train", *SMALL_FLAGS, f"--run-dir={folder / 'chapter.tex'}"),
        "chapter.tex is a file",
    )


def test_a_corrupt_latest_checkpoint_falls_back_and_ends_well(
    command, copied_run, digits_run
):
    import jax

    from experiments import train

    directory, flags = copied_run
    for path in (directory / "checkpoints" / "20" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:7])
    code, out, err = command("train", "digits", *flags)
    assert code == 0, err
    assert "checkpoint 20" in out and "corrupt" in out
    assert "resuming at step 10 of 20" in out
    again = train("digits", run_dir=directory, eval_every=10, **SMALL | SMALL_MODEL)
    for old, new in zip(
        jax.tree.leaves(digits_run.params), jax.tree.leaves(again.params), strict=True
    ):
        np.testing.assert_array_equal(old, new)
    assert [row["step"] for row in again.history] == [10, 20, 20]


def test_no_readable_checkpoint_at_all_is_told(command, copied_run):
    directory, flags = copied_run
    for path in (directory / "checkpoints").glob("*/state"):
        shutil.rmtree(path)
    refused(command("train", *flags), "no checkpoint", "can be read")


def test_a_diverged_run_stops_and_keeps_only_finite_checkpoints(
    command, own_folder, monkeypatch
):
    import jax

    from experiments import train

    real = data.train_rows

    def poisoned(*arguments, step, **options):
        batch = real(*arguments, step=step, **options)
        if step >= 13:
            batch["mask"] = np.full_like(batch["mask"], np.nan)
        return batch

    flags = [*SMALL_FLAGS, "--eval-every=5", "--log-every=1"]
    with monkeypatch.context() as patch:
        patch.setattr(data, "train_rows", poisoned)
        refused(
            command("train", *flags), "diverged", "step 14", "--optimizer.learning-rate"
        )
    steps = {path.name for path in (own_folder / "runs/digits/checkpoints").iterdir()}
    assert "10" in steps and "15" not in steps
    options = SMALL | SMALL_MODEL | dict(eval_every=5, log_every=1)
    run = train("digits", **options)  # goes on from the good one
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))
    steps = [row["step"] for row in run.history if row["split"] == "train"]
    assert steps == list(range(1, 21))


def test_an_absurd_learning_rate_diverges_with_advice(command, own_folder):
    result = command(
        "train",
        *SMALL_FLAGS,
        *"--optimizer.learning-rate=1e38 --optimizer=sgd".split(),
        *"--optimizer.clip=None --optimizer.schedule.warmup-steps=0".split(),
        "--log-every=1",
    )
    refused(result, "diverged", "at step", "--optimizer.clip=1")
    checkpoints = own_folder / "runs/digits/checkpoints"
    assert not checkpoints.exists() or not [
        path for path in checkpoints.iterdir() if path.name.isdecimal()
    ]


@pytest.mark.slow
def test_a_full_disk_is_told(command, own_folder, monkeypatch):
    import orbax.checkpoint as ocp

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", full)
        refused(command("train", *SMALL_FLAGS), "checkpoint", "disk is full")
    with monkeypatch.context() as patch:
        patch.setattr(record, "_sync", full)
        refused(command("train", *SMALL_FLAGS), "could not be written", "disk is full")
    assert not (own_folder / "runs/digits/report.json").exists()
    code, _, err = command("train", *SMALL_FLAGS)  # room was made
    assert code == 0, err


@pytest.mark.slow
def test_pictures_that_are_no_squares_want_another_order(command, tmp_path, own_folder):
    rng = np.random.default_rng(0)
    for label in ("across", "down"):
        for i in range(20):
            draw(tmp_path / "wide" / label / f"{i}.png", label, rng, size=(16, 8))
    flags = [*SMALL_FLAGS, f"--data={tmp_path / 'wide'}"]
    square = [*flags, "--model.order=both"]
    refused(command("train", *square), "8x16", "--data.size=32", "--model.order=rows")
    assert not list(own_folder.iterdir())
    code, out, err = command("train", *flags, "--model.order=columns", "--steps=2")
    assert code == 0, err
    assert "8x16x1" in out and (own_folder / "runs/wide/report.json").exists()


def test_a_data_set_of_the_same_folder_name_has_no_empty_run_name(
    tmp_path, photos, monkeypatch
):
    from experiments.config import override, preset
    from experiments.run.folder import directory_of as directory

    monkeypatch.chdir(photos)
    for source in (".", "../photos", str(photos) + "/"):
        config = override(preset("digits"), {"data": source})
        assert directory("digits", config).as_posix() == "runs/photos"
    config = override(preset("digits"), {"data": "emnist/balanced"})
    assert directory("digits", config).as_posix() == "runs/balanced"


def test_without_a_network_the_files_to_fetch_are_named(
    command, tmp_path, own_folder, monkeypatch
):
    from lstm_jax.data.tfds import preparing

    def refuse(address, timeout=None):
        raise OSError(f"no route to {address[0]}")

    monkeypatch.setattr(preparing.socket, "create_connection", refuse)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    result = command(
        "train",
        "mnist-rows",
        *"--accelerator=cpu --steps=2 --batch-size=16 --model.features=8".split(),
        f"--data.dir={tmp_path / 'empty'}",
    )
    refused(
        result,
        "train-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
        "--data.manual-dir=DIR",
    )
    assert not list(own_folder.iterdir())


def test_the_accelerator_is_checked_before_anything_is_read(command, monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_, **__: pytest.fail("read"))
    for kind, words in (
        ("tpu", 'pip install "jax[tpu]"'),
        ("gpu", 'install "jax[cuda'),
    ):
        told = f"accelerator={kind} cannot be used"
        refused(command("train", f"--accelerator={kind}"), told, words)
