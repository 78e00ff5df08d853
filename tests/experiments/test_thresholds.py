"""Labels are predicted by the thresholds that validation chose, also from files."""

import csv
import json
import shutil

import numpy as np
import pytest
from small_runs import SMALL

from experiments import predict, train
from experiments.export import export
from experiments.run.sealed import read_sealed, write_sealed
from experiments.tasks import TASKS

CUTS = [0.52, 0.47]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on features of two labels, whose thresholds are those of `CUTS`."""
    folder = tmp_path_factory.mktemp("labels")
    rng, lines = np.random.default_rng(0), ["path,up,down"]
    for number in range(24):
        np.save(folder / f"{number}.npy", rng.normal(size=(3, 2)).astype("f4"))
        lines.append(f"{number}.npy,{number % 2},{number % 3 % 2}")
    (folder / "table.csv").write_text("\n".join(lines))
    done = train(
        "features",
        **SMALL | dict(steps=2, batch_size=4, data=folder / "table.csv"),
        model__features=4,
        model__bidirectional=False,
        model__dropout=0.0,
        run_dir=folder / "run",
    )
    path = done.directory / "report.json"
    report = read_sealed(path)
    assert len(report["tuned"]["thresholds"]) == 2
    write_sealed(path, report | {"tuned": {"thresholds": CUTS}})
    return done.directory


def labels(prediction, cuts):
    pairs = zip(prediction["probabilities"].items(), cuts, strict=True)
    return [name for (name, p), cut in pairs if p >= cut]


@pytest.mark.parametrize("suffix", ["", ".safetensors", ".jaxexport"])
def test_thresholds_decide(run, suffix, tmp_path, command):
    files = sorted(run.parent.glob("*.npy"))
    source = export(run, tmp_path / f"model{suffix}") if suffix else run
    found = predict(source, *files)
    assert len(found) == 24
    assert [row["labels"] for row in found] == [labels(row, CUTS) for row in found]
    plain = [labels(row, [0.5, 0.5]) for row in found]
    assert plain != [row["labels"] for row in found]
    out = tmp_path / "found.csv"
    code, printed, _ = command("predict", source, *files, f"--out={out}")
    assert code == 0 and "none" in printed
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [json.loads(row["labels"]) for row in rows] == [r["labels"] for r in found]


def test_an_unfinished_run_decides_at_one_half(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "report.json").unlink()
    files = sorted(run.parent.glob("*.npy"))
    for row in predict(tmp_path / "run", *files):
        assert row["labels"] == labels(row, [0.5, 0.5])


def test_labels_of_each_step():
    kind = TASKS["multilabel"]
    steps = {"path": "a", "probabilities": {"x": [0.1, 0.7], "y": [0.3, 0.6]}}
    found = kind.decide(steps, {"thresholds": [0.7, 0.3]})
    assert found == {"labels": [["y"], ["x", "y"]]}
    assert kind.row(steps | found)[1] == "y, x"
    assert kind.decide(steps, {}) == {"labels": [[], ["x", "y"]]}
