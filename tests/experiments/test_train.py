"""Training as a person starts it: from the command line, and from a notebook."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from small_runs import SMALL, SMALL_FLAGS, SMALL_MODEL

from experiments import train
from experiments.experiment import Experiment, load_data
from experiments.numbers import percent
from experiments.run.sealed import read_sealed

HEAVY = "jax jaxlib flax optax orbax tensorflow_datasets sklearn matplotlib numpy"


def test_a_run_leaves_its_whole_record(digits_run):
    directory = digits_run.directory
    names = {path.name for path in directory.iterdir()}
    assert names == set(
        "config.json metrics.jsonl metrics.csv curves.png confusion_matrix.png roc.png "
        "checkpoints report.json data_fingerprint.json".split()
    )
    report = read_sealed(directory / "report.json")
    assert report == json.loads(json.dumps(digits_run.report))
    test = report["test"]
    assert test["examples"] == 360 and 0 <= test["accuracy"] <= 1
    assert np.trace(test["confusion_matrix"]) == round(360 * test["accuracy"])
    assert test["loss"] < 3
    assert report["train"]["steps"] == 20 and report["train"]["images"] == 1293
    assert report["train"]["images_per_second"] > 0
    assert report["train"]["checkpoint"] in (10, 20)
    # What a support-vector machine reaches on digits is well known.
    assert report["baselines"]["svc"]["accuracy"] > 0.97
    assert report["baselines"]["nearest_neighbour"]["accuracy"] > 0.97
    assert report["environment"]["platform"] == "cpu"
    saved = json.loads((directory / "config.json").read_text())
    assert saved["preset"] == "digits"
    assert saved["config"]["model"]["features"] == 8
    assert saved["data"]["image_shape"] == [8, 8, 1]
    rows = [json.loads(line) for line in open(directory / "metrics.jsonl")]
    assert rows == digits_run.history
    assert [(r["step"], r["split"]) for r in rows] == [
        (10, "validation"),
        (20, "train"),
        (20, "validation"),
    ]
    assert rows[1]["learning_rate"] < 4e-3 and rows[1]["gradient_norm"] > 0
    table = list(csv.DictReader(open(directory / "metrics.csv")))
    assert [float(r["loss"]) for r in table] == [r["loss"] for r in rows]


def test_the_number_of_parameters_is_counted_by_hand(digits_run):
    # Rows: F = 8, D = 8; a head on D.
    layer = 4 * 8 * (8 + 8 + 1)
    assert digits_run.report["model"]["parameters"] == layer + 8 * 10 + 10


def test_a_notebook_gets_figures_and_answers(digits_run, tmp_path):
    from PIL import Image

    assert isinstance(digits_run.curves(), Figure)
    assert isinstance(digits_run.confusion(), Figure)
    assert "accuracy" in repr(digits_run)
    path = tmp_path / "one.png"
    Image.new("L", (30, 20), 128).save(path)
    (answer,) = digits_run.predict(path)
    assert answer["label"] in "0123456789"
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_the_test_accuracy_is_that_of_the_returned_params(digits_run):
    import jax

    dataset = load_data(digits_run.config)
    about = Experiment(digits_run.config, dataset=dataset).spec
    apply = Experiment(digits_run.config, about).outputs
    test = dataset.splits["test"]
    labels = np.asarray(jax.jit(apply)(digits_run.params, test.inputs)).argmax(-1)
    accuracy = float((labels == test.targets).mean())
    assert accuracy == pytest.approx(digits_run.report["test"]["accuracy"])


@pytest.mark.process
def test_the_command_line_without_a_preset_and_again(run_python, own_folder):
    # Its programs are those of `digits_run`, and compiled.
    done = run_python("-m", "experiments.train", *SMALL_FLAGS, "--eval-every=10")
    assert done.returncode == 0, done.stderr
    report = json.loads((own_folder / "runs/digits/report.json").read_text())
    assert percent(report["test"]["accuracy"]) in done.stdout
    assert done.stdout.splitlines()[-2:] == [
        "next: python -m experiments.report runs/digits",
        "      python -m experiments.predict runs/digits FILES…",
    ]
    assert "1,293 training, 144 validation and 360 test" in done.stdout
    assert "short run: warm-up is limited to 10 steps" in done.stdout
    for noise in ("Traceback", "Warning", "Event loop", "Task was destroyed"):
        assert noise not in done.stderr


@pytest.mark.slow
@pytest.mark.optimized  # what compiles too quickly is not kept
def test_a_second_start_finds_its_programs_compiled(run_python, own_folder):
    def kept():
        found = [path.name for path in Path("data/compiled").glob("*/*-cache")]
        # Others take about as long as it takes to be kept at all.
        return [name for name in found if name.startswith(("jit_many", "jit_eval"))]

    # Told of no folder, it has its own.
    environment = dict(LSTM_JAX_DATA=str(own_folder / "data"))
    environment["JAX_COMPILATION_CACHE_DIR"] = ""
    command, runs = ("-m", "experiments.train", *SMALL_FLAGS), []
    for overwrite in ((), ("--overwrite",)):
        done = run_python(*command, *overwrite, **environment)
        assert done.returncode == 0, done.stderr
        runs.append(kept())
    assert len(runs[0]) >= 2 and set(runs[1]) == set(runs[0])


def test_profile_tells_the_loop_from_the_step(own_folder):
    options = SMALL | SMALL_MODEL | dict(steps=2, profile=True, steps_per_execution=2)
    found = train("digits", **options).report["profile"]
    assert 0 < found["step_alone_ms"] and 0 < found["whole_loop_ms"]
    assert 0 <= found["waiting"] < 1 and found["steps_per_execution"] == 2
    for name in ("reading_ms", "moving_ms", "dispatching_ms"):
        assert found[name] > 0
    assert list(own_folder.glob("runs/digits/profile/**/*.xplane.pb"))


@pytest.mark.slow
def test_all_augmentation_at_once_trains(own_folder):
    augment = dict(
        translate=1,
        rotate=10,
        zoom=0.1,
        crop=0.8,
        flip=0.5,
        color_jitter=0.2,
        rand_augment=5.0,
        cutout=2,
        erase=0.2,
        noise=4.0,
        mixup=0.2,
        cutmix=1.0,
    )
    options = SMALL | SMALL_MODEL | {f"augment__{k}": v for k, v in augment.items()}
    run = train("digits", log_every=1, **options)
    plain = train("digits", log_every=1, run_dir="plain", **SMALL | SMALL_MODEL)
    losses = [[r["loss"] for r in each.history] for each in (run, plain)]
    assert np.isfinite(losses).all() and losses[0] != losses[1]


def test_mixup_weighs_the_losses_of_both_targets():
    import jax
    import jax.numpy as jnp

    from experiments.config import override, preset
    from lstm_jax import training
    from lstm_jax.keys import fold_in

    options = SMALL_MODEL | dict(augment__translate=0, model__dropout=0.0)
    config = override(preset("digits"), options | dict(augment__mixup=0.4))
    dataset = load_data(config)
    about = Experiment(config, dataset=dataset).spec
    task = Experiment(config, about).task
    params = Experiment(config, about).init(jax.random.key(0))
    split = dataset.splits["train"]
    batch = dict(inputs=split.inputs[:6], targets=split.targets[:6])
    batch["mask"] = jnp.ones(6)
    keys = jax.random.split(jax.random.key(1), 6)
    loss_of = jax.jit(Experiment(config, about).loss)
    (loss, count), _ = loss_of(params, batch, keys)

    folded = fold_in(fold_in(keys, 0), 8)
    images, weights, partners = training.mixup(batch["inputs"], folded, 0.4)
    outputs = jax.jit(Experiment(config, about).outputs)(params, images)
    wanted = 0.0
    for i in range(6):
        for target, weight in (
            (batch["targets"][i], weights[i]),
            (batch["targets"][partners[i]], 1 - weights[i]),
        ):
            one = dict(targets=jnp.array([target]), mask=jnp.ones(1))
            wanted += weight * task.loss(outputs[i : i + 1], one)[0]
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)  # float32 sums
    np.testing.assert_allclose(count, 6, rtol=1e-6)


def test_the_same_line_after_the_end_only_tests_again(command, copied_run):
    directory, flags = copied_run
    before = (directory / "metrics.jsonl").read_bytes()
    old = json.loads((directory / "report.json").read_text())
    code, out, _ = command("train", "digits", *flags)
    assert code == 0 and "resuming at step 20 of 20" in out
    assert (directory / "metrics.jsonl").read_bytes() == before
    report = json.loads((directory / "report.json").read_text())
    assert report["test"] == old["test"]
    # --no-baselines is no other configuration
    assert list(report["baselines"]) == ["majority"]


def test_overwrite_starts_anew(command, copied_run):
    directory, flags = copied_run
    (directory / "mine.txt").write_text("")
    code, out, _ = command("train", *flags, "--overwrite", "--seed=1")
    assert code == 0 and "resuming" not in out
    assert not (directory / "mine.txt").exists()
    saved = json.loads((directory / "config.json").read_text())
    assert saved["config"]["seed"] == 1


def test_regression_reports_errors_in_degrees(command, own_folder, drawn):
    code, out, _ = command("train", "digits-angle", *SMALL_FLAGS)
    directory = own_folder / "runs/digits-angle"
    assert code == 0 and "mean absolute error (degrees)" in out and "R²" in out
    test = json.loads((directory / "report.json").read_text())["test"]
    # Angles are uniform on -45 … 45: always saying 0 is 22.5 degrees off.
    assert 10 < test["mae"] < 30 and test["r2"] < 1
    for name in ("predictions.png", "residuals.png", "curves.png"):
        assert (directory / name).stat().st_size > 5000


def test_options_go_through_the_whole_run(command, own_folder):
    """A flag of each part; none is left behind on the way."""
    code, out, err = command(
        "train",
        "digits",
        *SMALL_FLAGS,
        *"--data.noise-rows=4 --data.size=10 --data.normalize=symmetric".split(),
        *"--model.cell=rnn --model.layers=2 --model.order=columns".split(),
        *"--model.dropout=0.1 --model.init=torch --steps-per-execution=1".split(),
        *"--optimizer=rmsprop --optimizer.schedule=step --test-checkpoint=last".split(),
        *"--precision=bfloat16 --task.label-smoothing=0.1 --run-dir=x/y".split(),
    )
    assert code == 0, err
    assert "images of 14x10x1" in out
    report = json.loads((own_folder / "x/y/report.json").read_text())
    assert report["train"]["checkpoint"] == 20
    layers = 8 * (14 + 8 + 1) + 8 * (8 + 8 + 1)
    assert report["model"]["parameters"] >= layers + 8 * 10 + 10


@pytest.mark.parametrize("name", ["train", "predict", "benchmark"])
def test_help_is_instant_for_it_imports_nothing_heavy(run_python, name):
    heavy = HEAVY.split() if name != "benchmark" else HEAVY.replace("numpy", "").split()
    done = run_python(
        "-c",
        f"""
import runpy, sys
sys.argv = ["{name}", "--help"]
try:
    runpy.run_module("experiments.{name}", run_name="__main__")
except SystemExit as stop:
    print("code", stop.code, [x for x in {heavy} if x in sys.modules])
""",
    )
    assert done.stdout.splitlines()[-1] == "code 0 []", done.stdout + done.stderr
    if name == "train":
        from experiments.presets import PRESETS

        for preset, (line, _) in PRESETS.items():
            assert preset in done.stdout and line in done.stdout


def test_the_name_of_a_command_is_its_function_however_it_is_imported(run_python):
    code = """
import sys, types
import experiments.train, experiments.predict
from experiments import train, predict
import experiments
assert "tyro" not in sys.modules  # a notebook may have none
assert isinstance(train, types.FunctionType) and train.__name__ == "train"
assert isinstance(predict, types.FunctionType) and predict.__name__ == "predict"
assert experiments.train is train
import experiments.train as again
assert again is train
try:
    experiments.trian
except AttributeError as error:
    print(error)
"""
    done = run_python("-c", code)
    assert done.stdout == "module 'experiments' has no attribute 'trian'\n", done.stderr


def test_a_function_call_takes_the_words_of_the_command_line(own_folder):
    options = SMALL | SMALL_MODEL | dict(steps=np.int64(2), eval_every=1)
    run = train("digits", run_dir=own_folder / "a", **options)
    assert run.config.steps == 2 and type(run.config.steps) is int
    assert run.config.run_dir == str(own_folder / "a")
    assert [row["step"] for row in run.history] == [1, 2, 2]
