"""Loads a trained run from its folder, or from a file of its weights.

This file imports nothing heavy, so that `predict --help` is instant.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.choices import to_dict
from experiments.config import Config, check_run, from_dict, read_run
from experiments.errors import UsageError
from experiments.run.sealed import read_sealed

WEIGHTS = Path(__file__).parents[1] / "weights"


def located(run: str | Path) -> Path:
    """The path of a run; a name such as "text-lines" stands for installed weights."""
    path = Path(run).expanduser()
    installed = WEIGHTS / f"{run}.safetensors"
    return path if path.exists() or not installed.is_file() else installed


def load_run(run: str | Path):
    """`(experiment, params)` of a trained run, from the checkpoint it was tested with.

    Args:
      run: its folder, a .safetensors file of its weights, or the name of installed
        weights, such as "text-lines".

    Raises:
      UsageError: there is no run, or the folder holds several.
    """
    from experiments.experiment import Experiment
    from experiments.spec import DataSpec
    from lstm_jax import training

    run = located(run)
    saved = saved_run(run)
    if saved is None:
        raise UsageError(
            f"{run} holds no run (no config.json); train one first with "
            "`python -m experiments.train`, then give its folder"
        )
    config = from_dict(saved["config"], run, strict=run.is_dir())
    if config.folds and config.fold is None:
        raise UsageError(
            f"{run} holds {config.folds} folds, each a run; give the folder of one "
            f"fold, such as {Path(run, 'fold-0')}"
        )
    experiment = Experiment(config, DataSpec(**saved["data"]))
    if run.is_file():
        return experiment, _weights(run, experiment)
    with checkpoints_of(run, experiment.task) as checkpoints:
        step = chosen_step(run, checkpoints, config)
        state = checkpoints.restore(experiment.state_shapes(), step)
    return experiment, training.weights(state)


def chosen_step(run: Path, checkpoints: Any, config: Config) -> int | None:
    """The step of the checkpoint to use: the best one or the latest one.

    Raises:
      UsageError: the run was tested with another checkpoint, which is missing or
        damaged.
    """
    from experiments.run.record import parse_rows

    step = checkpoints.best_step() if config.tests_best else checkpoints.latest_step()
    report = read_sealed(run / "report.json")
    ended = step if report is None else report["train"]["checkpoint"]
    if step not in (None, ended):
        raise UsageError(
            f"{run} ended with checkpoint {ended}, which is missing or damaged; rerun "
            "the training command, which says whether it can be restored"
        )
    if step is not None:
        content = checkpoints.file("metrics.jsonl")
        check_best(checkpoints, config, parse_rows(content, run / "metrics.jsonl"))
    return step


def check_best(checkpoints: Any, config: Config, rows: Iterable[dict]) -> None:
    """Checks that the best checkpoint still exists, if the run uses it.

    Args:
      checkpoints: the checkpoints of the run.
      config: the configuration of the run.
      rows: rows of metrics.jsonl, up to the latest checkpoint.

    Raises:
      UsageError: the best of the validations in `rows` has no checkpoint.
    """
    best = checkpoints.best_of(row for row in rows if row["split"] == "validation")
    if not config.tests_best or best in (None, checkpoints.best_step()):
        return
    raise UsageError(
        f"checkpoint {best} in {checkpoints.directory}, the best on validation, is "
        "damaged or missing. Use the last checkpoint, by training with "
        "--test-checkpoint=last, or train again with --overwrite"
    )


def rows_of(run: Path, checkpoints: Any) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, verified with the copy in its checkpoint.

    Raises:
      UsageError: the file does not begin with that copy.
    """
    from experiments.run.record import MetricsLog

    log = MetricsLog(run)
    if not log.content().startswith(checkpoints.file(log.path.name)):
        raise UsageError(
            f"{log.path} is damaged or missing; rerun the training command, which "
            "restores it from the latest checkpoint"
        )
    return log.rows()


def checkpoints_of(run: Path, task: Any):
    """The checkpoints of a run; the task's monitor selects the best one."""
    from lstm_jax import training

    folder = run / "checkpoints"
    return training.Checkpoints(folder, monitor=task.monitor, mode=task.mode)


def saved_run(run: str | Path) -> dict[str, Any] | None:
    """The content of config.json for a run's folder or a .safetensors file.

    Returns:
      A dict as `read_run` returns it; None if there is no run.

    Raises:
      UsageError: the file is damaged, or holds weights without a configuration.
    """
    path = located(run)
    if not path.is_file():
        return read_run(path)
    from lstm_jax import interop
    from lstm_jax.models import kraken

    try:
        if kraken.is_krakens(path):
            return _of_kraken(path)
        words = interop.read_safetensors_metadata(path).get("run")
        saved = json.loads(words) if words else None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {error}") from error
    if not isinstance(saved, dict) or {"config", "data"} - saved.keys():
        raise UsageError(
            f"{path} does not say which network its weights belong to; export it "
            "again with `python -m experiments.export RUN --format=safetensors`"
        )
    return check_run(saved, path, strict=False)


def _of_kraken(path: Path) -> dict[str, Any]:
    """The content of config.json that corresponds to a kraken recognition model."""
    from experiments import presets
    from experiments.config import override
    from experiments.models import model_kind
    from lstm_jax.models import kraken

    spec, alphabet = kraken.describe_kraken(path)
    options = {
        "data": path.name,
        "data.normalize": "inverted",
        "model.spec": str(spec),
        "model.pad": kraken.MARGIN,
    }
    config = override(presets.PRESETS["text-lines"][1], options)
    about = dict(
        dataset=path.name,
        classes=list(alphabet),
        image_shape=[model_kind(config).height(config), kraken.MARGIN, 1],
        outputs=1 + len(alphabet),
        pixel_offset=[255.0],
        pixel_scale=[-1 / 255],
    )
    return {"config": to_dict(config), "data": about}


def read_weights(path: Path) -> dict[str, Any]:
    """Params by path in this library's layout, from its .safetensors or kraken's."""
    from lstm_jax import interop, training
    from lstm_jax.models import kraken

    if kraken.is_krakens(path):
        return training.flatten_params(kraken.load_kraken(path).params)
    return interop.read_safetensors(path)


def _weights(path: Path, experiment: Any):
    """Params of a network from a .safetensors file; checks names and shapes."""
    import jax

    from lstm_jax import training
    from lstm_jax.interop.entries import check

    shapes = jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
    try:
        found = read_weights(path)
        wanted = {
            name: leaf.shape for name, leaf in training.flatten_params(shapes).items()
        }
        check(str(path), found, wanted)
    except (ValueError, NotImplementedError) as error:
        raise UsageError(str(error)) from error
    return jax.tree.unflatten(jax.tree.structure(shapes), [found[n] for n in wanted])
