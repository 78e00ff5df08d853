"""`TaskKind`: the interface between the commands and a task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from experiments.errors import UsageError
from experiments.options import Augment, Data, LabelledImages, Noise, TaskOptions
from experiments.spec import DataSpec

NO_TARGETS = {  # the layout of data with targets of a type
    "masks": "use a folder with images/ and masks/",
    "boxes": "use a folder with a COCO file, annotations.json",
    "text": "use a folder of NAME.png and NAME.gt.txt files",
}
PRESETS_OF = {"masks": "segment-digits", "boxes": "detect-digits", "text": "text-lines"}


class TaskKind(ABC):
    """All that is specific to one task; the methods here are defaults.

    Attributes:
      options: the dataclass of `--task` options; its name is that of the task.
      models: names of supported `--model`s, the default first.
      data: the dataclass of `--data` options.
      augment: the dataclass of `--augment` options.
      target_type: required targets: "labels", "masks", "boxes" or "text".
      cross_validates: None, or the reason why cross-validation is not supported.
      extends_labels: whether `--init-from` keeps the labels of the earlier run and
        appends new classes.
      bucketed: whether examples differ in width and are padded to bucket widths.
      shown_from_file: whether `predict` supports an exported file.
      to_onnx: whether export to ONNX is supported.
      answers_right_or_wrong: whether a prediction is one class, right or wrong.
      metrics: of the report: key, label, and the better direction, "max", "min" or "".
      headlines: keys of the most important metrics.
      score: the metric whose difference to the baselines is reported, the mean of
        `example_scores`; "" if there are no baselines.
      rate: whether `score`, or the metric that chooses a checkpoint, is in [0, 1].
      baseline_metrics: keys of the metrics that baselines have.
      located: whether targets lie in the image, so that they move with it.
      tunes: whether validation predictions are used to choose anything.
      by_class: title of the first column and keys of the others, of the per-class
        table.
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
    located = False
    tunes = False
    baseline_metrics: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of `--task`."""
        return self.options.name

    # Options and data

    def check_options(self, options: TaskOptions) -> None:
        """Refuses options of the task that have no effect beside the others.

        Raises:
          UsageError: the message names the remedy.
        """
        return None

    def load_size(self, config) -> int | None:
        """Side in pixels to which images are resized; None: unchanged."""
        return config.data.size

    def prepare(self, config, dataset, known: Sequence[str]):
        """Prepares the data set for the task; `known` are fixed class names."""
        return dataset

    def check_data(self, config, dataset) -> None:
        """Checks that the data set fits the task.

        Raises:
          UsageError: it does not; the message names the remedy.
        """
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
        """The `DataSpec`, measured on the training split."""
        return DataSpec(
            dataset=dataset.name,
            classes=list(dataset.classes),
            image_shape=list(dataset.image_shape),
            depth=dataset.depth,
            fit=dataset.fit,
            **self.measure_inputs(config, dataset.splits["train"]),
            **self.measure_targets(dataset),
        )

    def measure_inputs(self, config, train) -> dict[str, Any]:
        """The fields of a `DataSpec` for the normalisation of inputs."""
        import numpy as np

        from experiments.models import model_kind
        from lstm_jax import data

        # Features have no common range; each is standardised.
        pixels = train.inputs.dtype == np.uint8
        how = config.data.normalize if pixels else "standard"
        offset, scale = data.normalization(train.inputs, how, train.lengths)
        wanted = model_kind(config).pixel_statistics(config)
        if wanted:  # for three channels; grey images are repeated
            offset, scale = np.asarray(wanted[0]), 1 / np.asarray(wanted[1])
        return dict(pixel_offset=offset.tolist(), pixel_scale=scale.tolist())

    def measure_targets(self, dataset) -> dict[str, Any]:
        """The fields of a `DataSpec` about targets."""
        return dict(outputs=len(dataset.classes))

    # Training and evaluation

    @abstractmethod
    def objective(self, config, spec: DataSpec):
        """The `lstm_jax.tasks.Task` of a run: loss, metrics and figures."""

    def sampler(self, config, split, seed: int) -> dict[str, Any]:
        """Options of `lstm_jax.data.train_batch` that tell the order of examples."""
        return {}

    def with_targets(self, batch: dict) -> dict:
        """Adds targets that are computed from the inputs, inside a compiled step."""
        return batch

    def moved_targets(self, targets: Any, affine: Any, size: tuple[int, int]) -> Any:
        """Targets `[B, ...]` that lie in the image, moved as the images are.

        Args:
          targets: of the task.
          affine: a `lstm_jax.training.Affine`.
          size: (H, W) of the images.
        """
        return targets

    def unseen_steps(self, config) -> int:
        """Steps at the end of a clip that the network does not see."""
        return 0

    def widths(self, config, dataset, training: bool) -> tuple[int, ...]:
        """Padded widths of examples; () if all have the same width."""
        return ()

    def eval_size(self, config, dataset) -> int:
        """Batch size of evaluation: 500 images, or about 500 frames."""
        shape = dataset.image_shape
        return 500 if len(shape) != 4 else max(config.batch_size, 500 // shape[0])

    def align_targets(self, split, predictions):
        """Predictions and targets of the examples whose target is known."""
        return predictions, split.targets

    def save_outputs(self, experiment, predictions, directory: Path) -> None:
        """Writes the predictions on the test split into the run folder."""
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
        """Predictions for files: a dict each, with its `path`, and `error` if any."""

    def save(self, spec: DataSpec, predictions: list[dict], folder: Path) -> None:
        """Writes images of predictions to a folder and adds their paths."""
        return None

    columns: tuple[str, ...] = ("image", "label", "")
    prints_at_once = False  # print each prediction as soon as it is made
    writes_files = False  # `save` writes files, so that --out may be a folder
    saves_when_asked = False  # `save` writes only if --out is a folder

    def check_out(self, out: Path, paths: Sequence[str | Path]) -> None:
        """Checks `--out` against the files to predict, before any prediction.

        Raises:
          UsageError: the predictions cannot be written there.
        """
        return None

    @abstractmethod
    def row(self, prediction: dict) -> tuple[str, ...]:
        """The cells of a prediction in the table that `predict` prints."""

    # Additional file formats for predictions: suffix, and function to the text.
    formats: Mapping[str, Callable[[list[dict]], str]] = MappingProxyType({})

    @property
    def endings(self) -> tuple[str, ...]:
        """Suffixes of all file formats for predictions."""
        return ".csv", ".jsonl", *self.formats

    def stream_output(self, task, output):
        """The prediction for one frame of a stream, from the network's output."""
        return task.predict(output[None])[0]

    def stream_line(self, spec: DataSpec, frame, before, now) -> str:
        """A prediction for one frame as text.

        Args:
          spec: of the data.
          frame: the input, `[H, W, C]`.
          before: the prediction for the previous frame, None for the first.
          now: the prediction for this frame.
        """
        import numpy as np

        if spec.classes:
            now = np.asarray(now)
            best = int(now.argmax())
            return f"{spec.classes[best]} {100 * now[best]:.1f} %"
        return ", ".join(f"{value:.4g}" for value in np.asarray(now).ravel())

    def decide(
        self, prediction: dict[str, Any], tuned: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Further entries of a prediction, by what `tune` chose."""
        return {}

    # Report

    def extra_metrics(self, evaluation) -> dict[str, Any]:
        """Metrics computed only for a report, to be added to `evaluation.test`."""
        return {}

    def class_rows(self, test: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of the per-class table, each with a "name"."""
        return test["per_class"]

    def figures(self, evaluation) -> list[Any]:
        """Figures of a report besides those of the task."""
        return []

    @abstractmethod
    def worst(self, evaluation) -> list[Any]:
        """Blocks of a report that show the worst predictions."""


class PerFileTask(TaskKind):
    """A task with one prediction for each image or clip."""

    def predict(self, predictor, paths: Sequence[str | Path]) -> Iterator[dict]:
        """Predictions for files: images in batches, clips one by one."""
        from experiments.prediction.predictor import predict_clips, predict_images

        read = predict_images if predictor.spec.is_image else predict_clips
        return read(predictor, paths)

    def predict_clip(self, predictor, path: Path) -> dict[str, Any]:
        """The prediction for a clip.

        Raises:
          DataError: it cannot be read.
        """
        import numpy as np

        clip, length = predictor.read_clip(path)
        batch = dict(inputs=clip[None], lengths=np.asarray([length], np.int32))
        output = predictor(**batch)[0]
        found = self.describe(predictor.spec, clip[:length], output, path)
        return found | self.decide(found, predictor.tuned)

    @abstractmethod
    def describe(self, spec: DataSpec, seen, output, path: Path) -> dict[str, Any]:
        """A prediction in plain values.

        Args:
          spec: of the run.
          seen: the network's input without padding: `[H, W, C]`, or `[T, …]` of a clip.
          output: the task's prediction for this example.
          path: the file.
        """


def save_table(dataset, predictions, directory: Path) -> None:
    """Writes submission.csv: the predictions for named clips, a column per class."""
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
    """Mask `[N, T]` of padded steps; None if all clips have the same length."""
    import numpy as np

    if split.lengths is None:
        return None
    return np.arange(split.targets.shape[1]) >= split.lengths[:, None]
