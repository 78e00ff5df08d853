"""What MLflow and Weights & Biases hold of a run is what its folder says."""

import json

import pytest
from small_runs import SMALL, SMALL_MODEL

from experiments import train
from experiments.choices import flat, to_dict
from experiments.run.loggers.logger import measured
from lstm_jax import data

pytestmark = pytest.mark.slow  # their imports alone take seconds
OPTIONS = SMALL | SMALL_MODEL | dict(log_every=5, eval_every=10)


@pytest.fixture
def resumed_run(tmp_path, monkeypatch):
    """`flag -> run` that crashed after step 15, and was resumed from step 10."""
    real = data.train_rows

    def broken(*arguments, step, **rest):
        if step == 18:
            raise KeyError("a crash")
        return real(*arguments, step=step, **rest)

    def run(flag):
        options = OPTIONS | {"run_dir": tmp_path / "run", flag: True}
        with monkeypatch.context() as patch:
            patch.setattr(data, "train_rows", broken)
            with pytest.raises(KeyError, match="a crash"):
                train("digits", **options)
        return train("digits", **options)

    return run


def wanted(run):
    """{(name, step): value} of all rows."""
    return {
        (f"{row['split']}/{name}", row["step"]): value
        for row in run.history
        for name, value in measured(row).items()
        if name != "images_per_second"  # of the clock
    }


def scores(run):
    return {f"test/{k}": value for k, value in measured(run.report["test"]).items()}


def options_of(run):
    return flat(to_dict(run.config))


def pictures(run):
    return {path.name for path in run.directory.glob("*.png")}


def test_mlflow(resumed_run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    run, client = resumed_run("mlflow"), mlflow.MlflowClient()
    place = client.get_experiment_by_name("lstm_jax").experiment_id
    (found,) = client.search_runs([place])
    assert found.info.status == "FINISHED" and found.info.run_name == "run"
    assert found.data.params == {k: str(v) for k, v in options_of(run).items()}
    points = {
        (name, point.step): point.value
        for name in found.data.metrics
        for point in client.get_metric_history(found.info.run_id, name)
        if not name.startswith("test/") and "images_per_second" not in name
    }
    assert points == wanted(run)
    assert scores(run).items() <= found.data.metrics.items()
    saved = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert saved == pictures(run) != set()


def test_wandb(resumed_run, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = resumed_run("wandb")
    files = sorted(run.directory.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1
    points, images, config, summary = {}, set(), {}, {}
    for record in (record for file in files for record in records(file)):
        row = values(record.history.item)
        for name, value in row.items():
            if name.endswith("/_type"):
                images.add(f"{name.removesuffix('/_type')}.png")
            elif name.startswith(("train/", "validation/")):
                points[name, row["step"]] = value
        config |= values(record.run.config.update)
        summary |= values(record.summary.update)
    points = {k: v for k, v in points.items() if "images_per_second" not in k[0]}
    assert points == wanted(run)
    assert options_of(run).items() <= config.items()
    assert scores(run).items() <= summary.items()
    assert images == pictures(run) != set()


def values(items):
    return {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for item in items
    }


def records(file):
    """Records of a .wandb file: a log as of LevelDB, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = file.read_bytes(), 7, b""
    while at < len(content):
        left = 2**15 - at % 2**15  # of a block
        if left < 7:
            at += left
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""
