"""The contract of a task kind: all that the commands ask about a task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from experiments.errors import UsageError
from experiments.options import Augment, Data, LabelledImages, Noise, TaskOptions
from experiments.spec import DataSpec

NO_TARGETS = {  # how a data set gets targets of a type
    "masks": "a folder with images/ and masks/ has them",
    "boxes": "a COCO file, annotations.json, has them",
    "text": "a folder of NAME.png beside NAME.gt.txt has it",
}
PRESETS_OF = {"masks": "segment-digits", "boxes": "detect-digits", "text": "text-lines"}


class TaskKind(ABC):
    """What is particular to one task; the methods here do what most tasks want.

    Attributes:
      options: the dataclass behind `--task`, whose name is this task's.
      models: names of `--model` that can learn it, the default first.
      data: the dataclass behind `--data`.
      augment: the dataclass behind `--augment`.
      target_type: what targets have to be: "labels", "masks", "boxes" or "text".
      cross_validates: None, or why its examples cannot be dealt to folds.
      extends_labels: whether a run gives its labels on to one that begins from it.
      bucketed: whether examples differ in width, and are padded by buckets.
      shown_from_file: whether an exported file tells what it answers in words.
      to_onnx: whether it can be exported to ONNX.
      answers_right_or_wrong: whether an answer is one of the classes.
      metrics: of its report, keys, labels, and which is better, "max", "min" or "".
      headlines: keys of those that come first.
      score: the metric whose differences to baselines are told, the mean of
        `example_scores`; "" has no baselines.
      rate: whether that metric, or what chooses a checkpoint, is between 0 and 1.
      baseline_metrics: keys of those that baselines have, which may be sure of a wrong
        class.
      tunes: whether anything is chosen by the validation examples' predictions.
      by_class: of the table by class, the title of its first column and the keys of
        the others.
    """

    options: type[TaskOptions]
    models: tuple[str, ...] = ("classifier",)
    data: type[Data] = LabelledImages
    augment: type[Noise] = Augment
    target_type = "labels"
    cross_validates: str | None = None
    extends_labels = False
    bucketed = False
    shown_from_file = False
    to_onnx = True
    answers_right_or_wrong = False
    metrics: tuple[tuple[str, str, str], ...] = ()
    headlines: tuple[str, ...] = ()
    by_class: tuple[str, tuple[str, ...]] | None = None
    score = ""
    rate = True
    tunes = False
    baseline_metrics: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of `--task`."""
        return self.options.name

    # Options and data

    def load_size(self, config) -> int | None:
        """Pixels that pictures are scaled to."""
        return config.data.size

    def prepare(self, config, dataset, known: Sequence[str]):
        """The data set as the task learns it."""
        return dataset

    def check_data(self, config, dataset) -> None:
        """Refuses a data set that the task cannot learn, with the remedy."""
        if dataset.target_type != self.target_type:
            raise UsageError(
                f"{dataset.name} has {dataset.target_type} as targets, but the task is "
                f"{self.name}; {self._hint(dataset)}"
            )

    def _hint(self, dataset) -> str:
        if dataset.target_type in PRESETS_OF:
            preset = PRESETS_OF[dataset.target_type]
            return f"use the preset {preset} with --data={dataset.name}"
        return NO_TARGETS[self.target_type]

    def spec(self, config, dataset) -> DataSpec:
        """What the model needs of the data, measured on the training split."""
        return DataSpec(
            dataset=dataset.name,
            classes=list(dataset.classes),
            image_shape=list(dataset.image_shape),
            **self.measure_inputs(config, dataset.splits["train"]),
            **self.measure_targets(dataset),
        )

    def measure_inputs(self, config, train) -> dict[str, Any]:
        """The fields of a `DataSpec` that normalise inputs."""
        import numpy as np

        from experiments.models import MODELS
        from lstm_jax import data

        # Features have a mean and a variance each, and no range to bring to [0, 1].
        pixels = train.inputs.dtype == np.uint8
        how = config.data.normalize if pixels else "standard"
        offset, scale = data.normalization(train.inputs, how, train.lengths)
        wanted = MODELS[config.model.name].pixel_statistics(config)
        if wanted:  # three: grey becomes the same in all channels
            offset, scale = np.asarray(wanted[0]), 1 / np.asarray(wanted[1])
        return dict(pixel_offset=offset.tolist(), pixel_scale=scale.tolist())

    def measure_targets(self, dataset) -> dict[str, Any]:
        """The fields of a `DataSpec` that tell of targets."""
        return dict(outputs=len(dataset.classes))

    # Training and evaluation

    @abstractmethod
    def objective(self, config, spec: DataSpec):
        """The loss, metrics and figures of a run, a `lstm_jax.tasks.Task`."""

    def sampler(self, config, split, seed: int) -> dict[str, Any]:
        """Options of `lstm_jax.data.train_batch` that tell the order of examples."""
        return {}

    def with_targets(self, batch: dict) -> dict:
        """A batch with its targets, inside a compiled step."""
        return batch

    def unseen_steps(self, config) -> int:
        """Steps at the end of a clip that are no input of the network."""
        return 0

    def widths(self, config, dataset, training: bool) -> tuple[int, ...]:
        """Widths that examples are padded to, where they differ."""
        return ()

    def eval_size(self, config, dataset) -> int:
        """Examples of an evaluation's batch: 500 pictures, or as many frames."""
        shape = dataset.image_shape
        return 500 if len(shape) != 4 else max(config.batch_size, 500 // shape[0])

    def align_targets(self, split, predictions):
        """Predictions and targets of a split that can be compared; none unknown."""
        return predictions, split.targets

    def save_outputs(self, experiment, predictions, directory: Path) -> None:
        """Writes what a run leaves besides its report."""
        save_table(experiment.dataset, predictions, directory)

    def baselines(self, config) -> dict[str, Any]:
        """What needs no network: `experiments.evaluation.baselines.Baseline`s by
        name."""
        return {}

    def relabelled(self, dataset, classes: Sequence[str]):
        """A data set with targets of other classes; None where not all are known."""
        return None

    def fewest(self, split, classes: Sequence[str]) -> dict[str, Any] | None:
        """`{"name", "examples"}` of the rarest class of a split, where it has any."""
        return None

    def tune(self, predictions, targets) -> dict[str, Any]:
        """What is chosen by validation examples that can be compared."""
        return {}

    def add_tuned(self, test: dict[str, Any], known, tuned: dict[str, Any]) -> None:
        """Adds to test metrics those by what `tune` chose, of what can be compared."""
        return None

    def example_scores(self, predictions, targets):
        """Of each example `[N]`, of what `align_targets` returns: see `score`."""
        raise NotImplementedError(f"{self.name} has no baselines")

    # Prediction

    @abstractmethod
    def predict(self, predictor, paths: Sequence[str | Path]) -> Iterator[dict]:
        """Answers, one a file, in plain values, each with its `path` or an `error`."""

    def save(self, spec: DataSpec, answers: list[dict], folder: Path) -> None:
        """Writes what no table holds to a folder; answers get the places."""
        return None

    columns: tuple[str, ...] = ("picture", "label", "")
    prints_at_once = False  # each answer on a line of its own, as it comes

    @abstractmethod
    def row(self, answer: dict) -> tuple[str, ...]:
        """An answer's cells of the table that predict prints."""

    # Of files for answers that no other task writes: an ending, and how to make it.
    formats: Mapping[str, Callable[[list[dict]], str]] = MappingProxyType({})

    @property
    def endings(self) -> tuple[str, ...]:
        """Of all files for its answers."""
        return ".csv", ".jsonl", *self.formats

    def stream_answer(self, task, output):
        """The answer to one frame `[…]` of a stream, from the network's output."""
        return task.predict(output[None])[0]

    def stream_line(self, spec: DataSpec, frame, before, now) -> str:
        """One frame's answer in words; `before` is the answer to the frame before."""
        import numpy as np

        if spec.classes:
            now = np.asarray(now)
            best = int(now.argmax())
            return f"{spec.classes[best]} {now[best]:.1%}"
        return ", ".join(f"{value:.4g}" for value in np.asarray(now).ravel())

    # Report

    def extra_metrics(self, evaluation) -> dict[str, Any]:
        """Metrics that a report has and a run has not, put into `evaluation.test`."""
        return {}

    def class_rows(self, test: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of the table by class, each with a "name"."""
        return test["per_class"]

    def figures(self, evaluation) -> list[Any]:
        """Pictures of a report besides those of the task."""
        return []

    @abstractmethod
    def worst(self, evaluation) -> list[Any]:
        """Blocks of a report that show the worst answers."""


class PerFileTask(TaskKind):
    """A task that answers to one picture or clip by what the network makes of it."""

    def predict(self, predictor, paths: Sequence[str | Path]) -> Iterator[dict]:
        """Answers, one a file: pictures in batches, clips one by one."""
        from experiments.prediction.predictor import predict_clips, predict_pictures

        read = predict_pictures if predictor.spec.pictures else predict_clips
        return read(predictor, paths)

    def predict_clip(self, predictor, path: Path) -> dict[str, Any]:
        """The answer to a clip.

        Raises:
          DataError: it cannot be read.
        """
        import numpy as np

        clip, length = predictor.read_clip(path)
        batch = dict(inputs=clip[None], lengths=np.asarray([length], np.int32))
        output = predictor(**batch)[0]
        return self.describe(predictor.spec, clip[:length], output, path)

    @abstractmethod
    def describe(self, spec: DataSpec, seen, output, path: Path) -> dict[str, Any]:
        """What a prediction says, in plain values.

        Args:
          spec: of the run.
          seen: what the network saw, without padding: `[H, W, C]`, of a clip `[T, …]`.
          output: a prediction of the task, without its batch.
          path: the file.
        """


def save_table(dataset, predictions, directory: Path) -> None:
    """Writes submission.csv: the answers to clips that have names, by class."""
    import numpy as np

    from experiments.run import record

    if len(dataset.image_shape) == 3 or not dataset.names or not dataset.classes:
        return
    rows, lengths = [], dataset.splits["test"].lengths
    for number, name in enumerate(dataset.names["test"]):
        steps = predictions[number]
        if steps.ndim == 2 and lengths is not None:
            steps = steps[: lengths[number]]
        for step, row in enumerate(np.atleast_2d(steps)):
            where = {"path": name} | ({"step": step} if steps.ndim == 2 else {})
            rows.append(where | dict(zip(dataset.classes, row.tolist(), strict=True)))
    record.write_table(directory / "submission.csv", rows)


def past_the_end(split):
    """Steps `[N, T]` of clips that are padding; None where all are as long."""
    import numpy as np

    if split.lengths is None:
        return None
    return np.arange(split.targets.shape[1]) >= split.lengths[:, None]
