"""Cross-validation: every example out of fold once, resumed, and each fold alone."""

import csv
import importlib
import json
import shutil
import signal

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics, model_selection
from small_runs import SMALL

from experiments import predict, train
from experiments.config import override, preset
from experiments.errors import UsageError
from experiments.experiment import load_data
from experiments.models import classifier
from experiments.options import Augment
from experiments.run.folder import directory_of
from experiments.run.sealed import read_sealed
from lstm_jax import data

OPTIONS = SMALL | dict(
    folds=3,
    data__split_seed=5,
    data__normalize="symmetric",  # of no fold its own: one program for all
    eval_every=10,
    model=classifier.Options(features=8),
    augment=Augment(),
    optimizer__schedule__warmup_steps=0,
)
FLAGS = (
    "--accelerator=cpu --steps=20 --batch-size=16 --no-baselines --folds=3 "
    "--data.split-seed=5 --data.normalize=symmetric "
    "--eval-every=10 --model.features=8 --model.layers=1 --model.order=rows "
    "--model.no-bidirectional --model.pooling=last --model.dropout=0 "
    "--augment.translate=0 --optimizer.schedule.warmup-steps=0"
).split()


def table(directory):
    with open(directory / "out_of_fold.csv", newline="") as file:
        return list(csv.DictReader(file))


def column(rows, name, kind=float):
    return np.asarray([kind(row[name]) for row in rows])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train("digits", run_dir=tmp_path_factory.mktemp("cv"), **OPTIONS)


@pytest.fixture(scope="module")
def pool(prepared_data):
    splits = data.load("digits", seed=5).splits
    return np.concatenate([splits[name].targets for name in ("train", "validation")])


def test_every_example_is_out_of_fold_once(whole, pool):
    rows = table(whole.directory)
    assert column(rows, "index", int).tolist() == list(range(len(pool)))
    np.testing.assert_array_equal(column(rows, "target", int), pool)
    splitter = model_selection.StratifiedKFold(3, shuffle=True, random_state=5)
    wanted = np.empty(len(pool), int)
    for k, (_, held) in enumerate(splitter.split(pool, pool)):
        wanted[held] = k
    np.testing.assert_array_equal(column(rows, "fold", int), wanted)
    assert "path" not in rows[0] and "group" not in rows[0]


def test_the_report_of_a_fold_is_that_of_a_run(whole):
    for run in whole.runs:
        assert run.report["splits"].keys() == {"train", "validation", "test"}
        assert run.report["metric"]["name"] == "accuracy"
        assert run.report["baselines"]["majority"]["trivial"]
        assert isinstance(run.report["diagnosis"], list)


def test_what_is_pooled_is_what_the_table_says(whole, pool):
    rows = table(whole.directory)
    chances = np.stack([column(rows, f"p_{k}") for k in range(10)], -1)
    np.testing.assert_array_equal(column(rows, "prediction", int), chances.argmax(-1))
    report = read_sealed(whole.directory / "folds.json")
    assert report == whole.report
    pooled = report["pooled"]
    assert pooled["accuracy"] == np.mean(chances.argmax(-1) == pool)
    # scikit-learn scales rows to a sum of one; ours are off by float32's rounding
    wanted = metrics.log_loss(pool, chances / chances.sum(-1, keepdims=True))
    assert pooled["loss"] == pytest.approx(wanted, rel=1e-6)
    assert pooled["examples"] == len(pool)
    assert sum(map(sum, pooled["confusion_matrix"])) == len(pool)
    assert set(whole.figures) == {"confusion_matrix", "roc"}
    for name in whole.figures:
        assert (whole.directory / f"{name}.png").exists()


def test_each_fold_and_their_spread(whole, pool):
    rows, scores = table(whole.directory), []
    assert len(whole.runs) == 3
    for k, run in enumerate(whole.runs):
        assert run.directory == whole.directory / f"fold-{k}"
        own = [row for row in rows if int(row["fold"]) == k]
        right = np.mean([row["target"] == row["prediction"] for row in own])
        saved = json.loads((run.directory / "report.json").read_text())
        assert saved["test"]["accuracy"] == right == run.report["test"]["accuracy"]
        assert saved["data"]["examples"]["test"] == len(own)
        assert sum(saved["data"]["examples"].values()) == len(pool)
        assert any("360 examples, is not used" in x for x in saved["data"]["notes"])
        assert set(run.figures) == {"confusion_matrix", "roc", "curves"}
        assert run.history[-1]["step"] == 20
        scores.append(saved["test"])
    spread = whole.report["metrics"]
    for name, values in {
        "accuracy": [score["accuracy"] for score in scores],
        "macro.f1": [score["macro"]["f1"] for score in scores],
        "loss": [score["loss"] for score in scores],
    }.items():
        assert spread[name]["values"] == values
        assert spread[name]["mean"] == pytest.approx(np.mean(values), rel=1e-12)
        assert spread[name]["sd"] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert len(set(spread["loss"]["values"])) == 3


def test_a_fold_alone_is_the_same_to_the_bit(whole, tmp_path):
    alone = train("digits", fold=1, run_dir=tmp_path / "one", **OPTIONS)
    for a, b in zip(
        jax.tree.leaves(whole.runs[1].params),
        jax.tree.leaves(alone.params),
        strict=True,
    ):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert alone.report["test"] == whole.runs[1].report["test"]
    split = load_data(alone.config).splits["test"]
    rows = [row for row in table(whole.directory) if row["fold"] == "1"]
    np.testing.assert_array_equal(split.targets, column(rows, "target", int))


def test_a_fold_answers_and_all_of_them_say_which(whole, tmp_path, command):
    picture = tmp_path / "x.png"
    Image.new("L", (8, 8), 90).save(picture)
    (answer,) = predict(whole.directory / "fold-2", picture)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    code, _, err = command("predict", whole.directory, picture)
    assert code == 2 and "holds 3 folds" in err and "fold-0" in err


@pytest.mark.slow
def test_a_killed_fold_goes_on_and_a_finished_one_is_left(
    whole, tmp_path, monkeypatch, capsys
):
    main = importlib.import_module("experiments.train").main
    directory, calls = tmp_path / "cut", []
    flags = [*FLAGS, f"--run-dir={directory}"]
    real = data.train_rows

    def signalled(*arguments, step, **rest):
        calls.append(step)
        if calls.count(0) == 2 and step == 14:  # of the second fold
            signal.raise_signal(signal.SIGINT)
        return real(*arguments, step=step, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(data, "train_rows", signalled)
        assert main(["digits", *flags]) == 130
    assert not (directory / "folds.json").exists()
    files = {p: p.stat().st_mtime_ns for p in (directory / "fold-0").rglob("*")}
    capsys.readouterr()
    assert main(["digits", *flags]) == 0
    out = capsys.readouterr().out
    assert f"{directory}/fold-0: already finished" in out
    assert out.count("resuming at step") == 1 and out.count("step 20/20  val") == 2
    assert files == {p: p.stat().st_mtime_ns for p in (directory / "fold-0").rglob("*")}
    assert "mean ± sd" in out and "pooled" in out
    assert table(directory) == table(whole.directory)
    report = read_sealed(directory / "folds.json")
    assert report["metrics"] == whole.report["metrics"]


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(folds=1), "folds=1, but cross-validation wants 2 or more"),
        (dict(folds=3, fold=3), "numbered 0 to 2"),
        (dict(folds=3, fold=-1), "numbered 0 to 2"),
        (dict(folds=None, fold=0), "without folds"),
        (dict(folds=3, distributed=True), "give --fold=0, then --fold=1"),
    ],
)
def test_flags_that_make_no_sense(options, words):
    with pytest.raises(UsageError, match=words):
        train("digits", **OPTIONS | options)


def test_more_mistakes_of_the_command_line(whole, command, own_folder):
    code, _, err = command("train", "moving-digits", "--folds=3")
    assert code == 2 and "forecast" in err and err.count("\n") == 1
    code, _, err = command("train", "digits", *FLAGS, "--folds=200")
    assert code == 2 and "besides the test split" in err and err.count("\n") == 1
    there = f"--run-dir={whole.directory}"
    code, _, err = command("train", "digits", *FLAGS, "--folds=4", there)
    assert code == 2 and "folds was 3, is 4" in err
    code, _, err = command("train", "digits", *FLAGS, "--folds=None", there)
    assert code == 2 and "folds was 3, is None" in err
    assert not list(own_folder.iterdir())


def test_a_fold_in_the_way_is_told_before_any_is_trained(whole, tmp_path, command):
    shutil.copytree(whole.directory / "fold-2", tmp_path / "fold-2")
    flags = [*FLAGS, "--model.features=4", f"--run-dir={tmp_path}"]
    code, _, err = command("train", "digits", *flags)
    assert code == 2 and "model.features was 8, is 4" in err
    assert [path.name for path in tmp_path.iterdir()] == ["fold-2"]


def test_where_a_fold_goes_that_is_told_no_folder(own_folder):
    config = override(preset("digits"), OPTIONS | dict(fold=1))
    assert str(directory_of("digits", config)) == "runs/digits/fold-1"
    config = override(config, dict(fold=None))
    assert str(directory_of("digits", config)) == "runs/digits"


@pytest.mark.slow
def test_numbers_in_groups(tmp_path):
    """Pictures of a brightness, of 25 patients: a regression from a table."""
    rng, lines = np.random.default_rng(0), ["path,label,group"]
    for number in range(50):
        value = rng.integers(0, 256)
        Image.new("L", (5, 5), int(value)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{value + 0.5},patient {number // 2}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    done = train(
        "digits-angle",
        **SMALL | dict(steps=2, augment=Augment()),
        model=classifier.Options(features=4),
        data=tmp_path / "table.csv",
        folds=2,
        run_dir=tmp_path / "run",
    )
    rows = table(done.directory)
    folds = {}
    for row in rows:
        folds.setdefault(row["group"], set()).add(row["fold"])
        line = next(x for x in lines if x.startswith(f"{row['path']},"))
        assert float(line.split(",")[1]) == float(row["target"])
        assert line.split(",")[2] == row["group"]
    assert all(len(where) == 1 for where in folds.values())
    errors = column(rows, "prediction") - column(rows, "target")
    # of numbers to 256 in float32, written with all their digits
    assert done.report["pooled"]["mae"] == pytest.approx(
        np.abs(errors).mean(), rel=1e-6
    )
    assert done.report["pooled"]["rmse"] == pytest.approx(
        np.sqrt(np.mean(errors**2)), rel=1e-6
    )
    assert done.report["metrics"]["mae"]["sd"] > 0


@pytest.mark.slow
def test_labels_of_every_step(tmp_path):
    """Features of clips, of two labels a step: windows, a line for each known step."""
    rng, lines = np.random.default_rng(0), ["path,step,up,down"]
    for number in range(15):
        steps = 3 + number % 3
        np.save(tmp_path / f"{number}.npy", rng.normal(size=(steps, 2)).astype("f4"))
        for step in range(steps):
            value = number * step % 2
            lines.append(
                f"{number}.npy,{step},{value},{'' if step == 1 else 1 - value}"
            )
    (tmp_path / "table.csv").write_text("\n".join(lines))
    done = train(
        "features",
        **SMALL | dict(steps=2, batch_size=4),
        model__features=4,
        model__bidirectional=False,
        model__dropout=0.0,
        data=tmp_path / "table.csv",
        folds=2,
        run_dir=tmp_path / "run",
    )
    known = {tuple(line.split(",")[:2]): line.split(",")[2:] for line in lines[1:]}
    rows = table(done.directory)
    pool = {row["path"] for row in rows}
    assert {(row["path"], row["step"]) for row in rows} == {
        key for key in known if key[0] in pool
    }
    assert len(pool) == done.report["data"]["pool"] < 15
    truths, chances = [], []
    for row in rows:
        for label, value in zip(
            ("up", "down"), known[row["path"], row["step"]], strict=True
        ):
            assert row[f"target_{label}"] == (f"{float(value)}" if value else "")
            if value:
                truths.append(float(value))
                chances.append(float(row[f"p_{label}"]))
    truths, chances = np.asarray(truths), np.asarray(chances)
    assert done.report["pooled"]["known"] == len(truths)
    assert done.report["pooled"]["accuracy"] == np.mean((chances >= 0.5) == truths)
