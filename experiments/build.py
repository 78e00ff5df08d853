"""From a configuration to a data set, a task and the size of a run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments import locating, reading, record
from experiments.config import FINDERS, UsageError
from experiments.options import Config
from lstm_jax import data, figures, tasks
from lstm_jax.models import resnet
from lstm_jax.targets import VOID

# What the targets of a task are.
ANSWERS = {"segmentation": "masks", "detection": "boxes", "recognition": "text"}


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a trained model must remember of its data, in plain values."""

    dataset: str
    classes: list[str]
    image_shape: list[int]
    outputs: int
    pixel_offset: list[float]
    pixel_scale: list[float]
    target_offset: float = 0.0
    target_scale: float = 1.0


def reads(config: Config) -> bool:
    """Whether lines of text are read."""
    return config.task.name == "recognition"


def widths(
    config: Config, dataset: data.Dataset, training: bool = True
) -> tuple[int, ...]:
    """Widths that lines of text are padded to; () where there are none.

    Those that suit the training lines, and one more where others are wider. To test,
    half as many: a program takes as long to compile as some thousand lines to read.
    """
    if not reads(config):
        return ()
    count = config.data.buckets if training else (config.data.buckets + 1) // 2
    found = data.bucket_widths(dataset.splits["train"].lengths, count)
    splits = (*dataset.splits.values(), *(dataset.more or {}).values())
    widest = data.bucket_widths(np.asarray([s.lengths.max() for s in splits]), 1)
    return found if widest[0] <= found[-1] else found + widest


def training_widths(config: Config, dataset: data.Dataset) -> tuple[int, ...]:
    """Those of `widths` that the training lines need; () where there are none."""
    found, lengths = widths(config, dataset), dataset.splits["train"].lengths
    return found[: data.bucket_of(lengths.max(), found) + 1] if found else ()


def load_data(config: Config, known: Sequence[str] = ()) -> data.Dataset:
    """The data set of a run; of a fold its split, with noise below where asked for.

    Args:
      config: of the run.
      known: of lines of text, characters that have a label already, in their order;
        others get the labels after them.
    """
    options = config.data
    dataset = data.load(
        options.source,
        data_dir=options.dir,
        manual_dir=options.manual_dir,
        size=reading.height(config) if reads(config) else options.size,
        validation=options.validation,
        frames=options.frames,
        sampling=options.sampling,
        seed=options.split_seed,
        target_type=ANSWERS.get(config.task.name, "labels"),
    )
    if config.fold is not None:
        share = dict(validation=options.validation, seed=options.split_seed)
        dataset = data.select_fold(dataset, config.folds, config.fold, **share)
    if options.limit is not None:
        dataset = data.subset(dataset, options.limit, options.split_seed)
    if reads(config) and dataset.target_type == "text":
        return reading.readable(config, dataset, known)
    if not options.noise_rows:
        return dataset
    if len(dataset.image_shape) != 3:
        raise UsageError("data.noise_rows goes below pictures; these are clips")
    rng = np.random.default_rng(options.split_seed)

    def noisy(split: data.Split) -> data.Split:
        n, _, w, c = split.inputs.shape
        noise = rng.integers(0, 256, (n, options.noise_rows, w, c), np.uint8)
        return split._replace(inputs=np.concatenate([split.inputs, noise], axis=1))

    return dataset._replace(splits={k: noisy(s) for k, s in dataset.splits.items()})


def facts(config: Config, dataset: data.Dataset) -> Facts:
    """Measures on the training split what the model will need anywhere."""
    train, name = dataset.splits["train"], config.task.name
    _check_answers(config, dataset)
    if name == "forecasting":
        _check_forecast(config, dataset)
    elif name not in ANSWERS:
        whole = np.issubdtype(train.targets.dtype, np.integer)
        if whole and not dataset.classes:
            raise UsageError(
                f"the clips of {dataset.name} have no labels; they can be forecast, as "
                f"by `experiments.train moving-digits --data={dataset.name}`"
            )
        fits = "regression"
        if dataset.classes:
            fits = "classification" if whole else "multilabel"
        if name != fits:
            kind = {"classification": "classes", "regression": "numbers"}
            raise UsageError(
                f"{dataset.name} has {kind.get(fits, 'labels of 0 and 1')} as targets, "
                f"but the task is {name}; use --task.name={fits}"
            )
        if fits == "multilabel" and config.model.per_step != (train.targets.ndim == 3):
            per = "step" if train.targets.ndim == 3 else "clip"
            raise UsageError(
                f"{dataset.name} has labels for every {per}; use "
                f"--model.per-step={train.targets.ndim == 3}"
            )
    regression = name == "regression"
    # Features have a mean and a variance each, and no range to be brought to [0, 1].
    how = config.data.normalize if train.inputs.dtype == np.uint8 else "standard"
    inputs = train.inputs.swapaxes(1, 2) if reads(config) else train.inputs
    if how == "line":
        offset, scale = np.zeros(1), np.ones(1)
    else:
        offset, scale = data.normalization(inputs, how, train.lengths)
    if (
        config.model.resnet_depth
    ):  # three of each: grey becomes the same in all channels
        offset = np.asarray(resnet.PIXEL_MEAN)
        scale = 1 / np.asarray(resnet.PIXEL_STD)
    spread = float(train.targets.std()) if regression else 1.0
    outputs = train.targets.shape[1] if regression else len(dataset.classes)
    return Facts(
        dataset=dataset.name,
        classes=list(dataset.classes),
        image_shape=list(dataset.image_shape),
        outputs=outputs + reads(config),  # and the blank
        pixel_offset=offset.tolist(),
        pixel_scale=scale.tolist(),
        target_offset=float(train.targets.mean()) if regression else 0.0,
        target_scale=spread or 1.0,
    )


def _check_answers(config: Config, dataset: data.Dataset) -> None:
    name, has = config.task.name, dataset.target_type
    wanted = ANSWERS.get(name, "labels")
    if name == "forecasting" and len(dataset.image_shape) == 4:
        return
    if has != wanted:
        tasks_of = {"masks": "segment-digits", "boxes": "detect-digits"}
        tasks_of["text"] = "text-lines"
        hint = f"use the preset {tasks_of[has]} with --data={dataset.name}"
        if has == "labels":
            hint = {
                "masks": "a folder with images/ and masks/ has them",
                "boxes": "a COCO file, annotations.json, has them",
                "text": "a folder of NAME.png beside NAME.gt.txt has it",
            }[wanted]
        raise UsageError(
            f"{dataset.name} has {has} as targets, but the task is {name}; {hint}"
        )
    if name not in FINDERS:
        return
    h, w = dataset.image_shape[-3:-1]
    times = 2 ** (network_stages(config) - 1)
    if h % times or w % times:
        raise UsageError(
            f"pictures are {h}x{w}, but the network halves them "
            f"{network_stages(config) - 1} times; resize them, such as "
            f"--data.size={max(times, round(max(h, w) / times) * times)}"
        )
    if config.model.kind == "emitter":
        most = max(s.targets.shape[-2] for s in dataset.splits.values())
        if config.model.boxes <= most:
            raise UsageError(
                f"a picture of {dataset.name} holds up to {most} boxes; use "
                f"--model.boxes={most + 1}, for them and the stop"
            )
        if len(dataset.image_shape) == 4:
            raise UsageError(
                f"{dataset.name} holds clips, and --model.kind=emitter reads "
                "pictures; use the preset detect-moving-digits"
            )


def network_stages(config: Config) -> int:
    """Maps of a network that finds, each half as large as the one before."""
    dense = config.task.name == "detection" and (
        config.model.kind == "bottleneck" or config.model.feedforward
    )
    return 4 if dense else 3


def _check_forecast(config: Config, dataset: data.Dataset) -> None:
    shape = dataset.image_shape
    if len(shape) != 4:
        raise UsageError(
            f"{dataset.name} holds examples of shape {tuple(shape)}; forecasting wants "
            "clips of frames, such as moving_digits or a folder of class/clip.mp4"
        )
    frames, h, w, _ = shape
    if frames <= config.task.horizon:
        raise UsageError(
            f"clips have {frames} frames; of these task.horizon={config.task.horizon} "
            "are to be predicted, which leaves none to read: lower it, or raise "
            "--data.frames"
        )
    if h % config.model.patch or w % config.model.patch:
        raise UsageError(
            f"frames are {h}x{w}, which --model.patch={config.model.patch} does not "
            "divide; choose another, or resize with --data.size"
        )
    lengths = dataset.splits["train"].lengths
    if lengths is not None and (lengths < frames).any():
        raise UsageError(
            f"{int((lengths < frames).sum())} clips are shorter than {frames} frames, "
            "which a forecast cannot judge; lower --data.frames, or leave them out"
        )


def task(config: Config, about: Facts) -> tasks.Task:
    """The loss, metrics and pictures of a run."""
    if config.task.name == "forecasting":
        return tasks.forecasting(config.task.horizon, loss=config.task.loss)
    if config.task.name == "multilabel":
        return tasks.multilabel(about.classes)
    if config.task.name == "segmentation":
        return tasks.segmentation(about.classes, dice_weight=config.task.dice)
    if reads(config):
        return tasks.text_recognition(about.classes, beams=config.task.beams or None)
    if config.task.name == "detection":
        emits = config.model.kind == "emitter" and not config.model.feedforward
        size = tuple(about.image_shape[-3:-1])
        return tasks.detection(about.classes, size, emits=emits)
    if config.task.name == "classification":
        return tasks.classification(
            about.classes, label_smoothing=config.task.label_smoothing
        )
    return tasks.regression(
        about.outputs,
        loss=config.task.loss,
        unit=config.task.unit,
        offset=about.target_offset,
        scale=about.target_scale,
    )


def judged(config: Config, split: data.Split, predictions: np.ndarray):
    """Predictions of a split, and what they are judged by; without what is unknown."""
    targets, lengths = split.targets, split.lengths
    if config.task.name == "forecasting":
        return predictions, split.inputs
    if reads(config):
        return predictions, targets
    if config.task.name in FINDERS:
        if lengths is not None:
            past = np.arange(targets.shape[1]) >= lengths[:, None]
            predictions, targets = predictions.copy(), targets.copy()
            if config.task.name == "segmentation":
                targets[past] = VOID
            else:
                targets[past, :, 4] = predictions[past, :, 4] = -1
        return predictions, targets
    if config.task.name == "multilabel" and targets.ndim == 3 and lengths is not None:
        past = np.arange(targets.shape[1]) >= lengths[:, None]
        return predictions, np.where(past[..., None], np.nan, targets)
    if config.task.name == "classification" and (targets < 0).any():
        known = targets >= 0
        return predictions[known], targets[known]
    return predictions, targets


def leave(config: Config, dataset: data.Dataset, predictions, directory: Path):
    """Files besides the report: a film of a forecast; a table of answers to clips."""
    test = dataset.splits["test"]
    if config.task.name == "forecasting":
        clip, horizon = test.inputs[0], config.task.horizon
        film = figures.forecast_gif(clip[:-horizon], clip[-horizon:], predictions[0])
        record.write_bytes(directory / "forecast.gif", film)
    elif reads(config):
        reading.leave(config, dataset, predictions, directory)
    elif config.task.name in FINDERS:
        locating.leave(config, dataset, *judged(config, test, predictions), directory)
    elif len(dataset.image_shape) != 3 and dataset.names and dataset.classes:
        rows = []
        for number, name in enumerate(dataset.names["test"]):
            steps = predictions[number]
            if steps.ndim == 2 and test.lengths is not None:
                steps = steps[: test.lengths[number]]
            for step, row in enumerate(np.atleast_2d(steps)):
                where = {"path": name} | ({"step": step} if steps.ndim == 2 else {})
                rows.append(
                    where | dict(zip(dataset.classes, row.tolist(), strict=True))
                )
        record.write_table(directory / "submission.csv", rows)


def batches(config: Config, dataset: data.Dataset, share: tuple[int, int]):
    """`step -> batch` of training, of one process among several."""
    split = dataset.splits["train"]
    size, options = config.batch_size, dict(seed=config.seed, share=share)
    if reads(config):
        return data.line_batches(split, size, widths=widths(config, dataset), **options)
    if resident(config, dataset):
        return lambda at: data.train_rows(len(split.inputs), size, step=at, **options)
    return lambda at: data.train_batch(split, size, step=at, **options)


def eval_size(config: Config, dataset: data.Dataset, devices: int) -> int:
    """Examples of an evaluation's batch: 500 pictures, or as many frames."""
    shape = dataset.image_shape
    if reads(config):
        return -(-64 // devices) * devices
    most = 500 if len(shape) != 4 else max(config.batch_size, 500 // shape[0])
    return -(-most // devices) * devices


def arrays(split: data.Split) -> dict[str, np.ndarray]:
    """What a split has, by name."""
    return {name: a for name, a in split._asdict().items() if a is not None}


def length(config: Config, examples: int) -> tuple[int, int]:
    """Steps of a run on so many training examples, and from validation to validation.

    Here, and nowhere else, epochs become steps.
    """
    per_epoch = data.steps_per_epoch(examples, config.batch_size)
    steps = config.steps or max(1, round(config.epochs * per_epoch))
    return steps, config.eval_every or max(per_epoch, -(-steps // 20))


def resident(config: Config, dataset: data.Dataset) -> bool:
    """Whether the training pictures are kept on the devices."""
    if reads(config):  # of widths that differ from batch to batch
        return False
    if config.feed == "auto":
        return dataset.splits["train"].inputs.nbytes <= 512 * 2**20
    return config.feed == "resident"
