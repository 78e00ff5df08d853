"""What a run is made of, as frozen dataclasses, and the presets.

A preset is a whole configuration under a name; any flag changes one value of it.
This file imports nothing heavy, so that `--help` is instant.
"""

import dataclasses
import difflib
import json
import math
import os
import traceback
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Data:
    """Where the pictures come from."""

    source: str = "digits"
    """A data set by name, a folder of class/picture.png or class/clip.mp4, or a
    table.csv."""
    manual_dir: str | None = None
    """Folder with files fetched by hand, where there is no network."""
    dir: str | None = None
    """Folder for prepared data; default ~/.cache/lstm_jax."""
    size: int | None = None
    """Resize pictures to this many pixels square."""
    validation: float = 0.1
    """Share of the training pictures kept to choose the best checkpoint by."""
    normalize: Literal["unit", "symmetric", "standard"] = "standard"
    """To [0, 1], to [-1, 1], or to mean 0 and variance 1 per channel."""
    frames: int | None = None
    """Frames of a clip; default 16, of files of features all."""
    sampling: Literal["spread", "start", "windows"] = "spread"
    """Which frames of a longer clip: spread over it, the first, or window by window."""
    noise_rows: int = 0
    """Rows of noise below each picture: what came before must be remembered."""


@dataclass(frozen=True)
class Augment:
    """Random changes of each training picture, made on the device."""

    shift: int = 0
    """Move by up to this many pixels."""
    rotate: float = 0.0
    """Turn by up to this many degrees."""
    crop: float = 1.0
    """Least share of the picture's area that a random window keeps."""
    flip: float = 0.0
    """Probability of a flip, left to right."""
    cutout: int = 0
    """Side of a square that is blacked out, pixels."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise; pixels are 0 to 255."""
    mixup: float = 0.0
    """Alpha of mixing pictures, and their targets, in pairs; 0.2 is usual."""


@dataclass(frozen=True)
class Model:
    """The recurrent network."""

    kind: Literal[
        "reader", "encoder_forecaster", "stacked", "predrnn", "predrnn_v2"
    ] = "reader"
    """Read pictures and clips and answer; or predict the frames that follow: encoder
    and forecaster, stacked convolutional cells that read their own answers, PredRNN."""
    cell: Literal["lstm", "gru", "rnn", "conv_lstm", "conv_gru"] = "lstm"
    """Convolutional ones are for clips."""
    features: int = 128
    """Hidden width D of a layer (and direction); channels of a convolutional one."""
    layers: int = 1
    kernel: int = 3
    """Side of convolutional cells' kernels."""
    encoder: Literal["none", "cnn"] = "none"
    """What a clip's frames go through, one by one, before the cells."""
    per_step: bool = False
    """Answer every step of a clip, not the whole."""
    truncate: int | None = None
    """Readers: steps that a gradient goes back through, in pieces of so many."""
    remat: Literal["none", "step", "sqrt"] = "none"
    """Forecasters: keep less for the backward pass, and compute it again."""
    bidirectional: bool = False
    order: Literal["rows", "columns", "both", "pixels", "permuted", "patches"] = "rows"
    """How a picture becomes a sequence."""
    patch: int = 4
    """Side of a patch, for order=patches and for forecasters."""
    pooling: Literal["last", "mean", "max"] = "last"
    dropout: float = 0.0
    init: Literal["glorot", "he", "lecun", "torch"] = "glorot"
    """Of the input weights; recurrent ones are orthogonal, or uniform for torch."""
    forget_bias: float = 1.0
    activation: Literal["tanh", "relu", "leaky_relu"] = "tanh"
    """Of the vanilla rnn."""
    engine: Literal["auto", "scan", "vjp"] = "vjp"
    """How the time loop runs; vjp takes half of scan's memory."""


@dataclass(frozen=True)
class Optimizer:
    """The update rule, its schedule and its brakes."""

    name: Literal["sgd", "adam", "adamw", "rmsprop"] = "adam"
    learning_rate: float = 2e-3
    schedule: Literal["constant", "cosine", "exponential", "step"] = "cosine"
    warmup_steps: int = 0
    decay_rate: float = 0.1
    """Of the exponential and step schedules, over the whole run or at each step."""
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    """Decoupled; biases never decay."""
    clip: float | None = 1.0
    clip_by: Literal["global_norm", "value", "adaptive"] = "global_norm"


@dataclass(frozen=True)
class Task:
    """What is learned, and how it is judged."""

    name: Literal["classification", "regression", "forecasting", "multilabel"] = (
        "classification"
    )
    label_smoothing: float = 0.0
    loss: Literal["mse", "huber", "l1", "bce", "ssim"] = "mse"
    """Of a regression, mse or huber; of a forecast, all but huber."""
    horizon: int = 10
    """Frames to predict, the last of each clip."""
    feedback: Literal["free", "scheduled", "reverse"] = "free"
    """In training, forecasters read their own answers where frames are to come; or
    ever more of them, in place of true ones; reverse: ever fewer at the start, too."""
    decoupling: float = 0.1
    """Weight of PredRNN-V2's loss that keeps its memories apart."""
    unit: str = ""
    """Of a regression's targets, for labels."""


@dataclass(frozen=True)
class Config:
    """A run."""

    run_dir: str | None = None
    """Folder of the run; default runs/PRESET. An unfinished run there goes on."""
    overwrite: bool = False
    """Start anew in a folder that holds another run."""
    seed: int = 0
    epochs: float | None = 20
    """Length of the run in passes over the training pictures; or give steps."""
    steps: int | None = None
    """Length of the run in updates; overrides epochs."""
    batch_size: int = 64
    """Over all devices together."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after another, to need less memory."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    parallel: Literal["jit", "pmap"] = "jit"
    feed: Literal["auto", "resident", "stream"] = "auto"
    """Keep the training pictures on the devices, or send each batch there; auto keeps
    up to 512 MiB."""
    steps_per_dispatch: int = 32
    """Updates that the devices do in a row before they hear from the host again, at
    most; never more than half a second of them."""
    distributed: bool = False
    """One of many processes; TPU pods and Slurm say which, else the next three do."""
    coordinator: str | None = None
    """HOST:PORT of process 0."""
    processes: int | None = None
    process_id: int | None = None
    profile: bool = False
    """Say what share of a step waits for data or dispatch; write a trace."""
    compilation_cache: bool = True
    """Keep compiled programs for the next start, in ~/.cache/lstm_jax/compiled."""
    eval_every: int | None = None
    """Steps between validations and checkpoints; default one epoch, 20 at most."""
    log_every: int = 50
    select: Literal["best", "last"] = "best"
    """Which checkpoint is tested: the best on the validation pictures, or the last."""
    baselines: bool = False
    """Also fit scikit-learn's SVC and 1-nearest-neighbour on the same split."""
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    task: Task = field(default_factory=Task)


def _digits(**options: Any) -> Config:
    return Config(
        epochs=100,
        # 144 validation pictures tell the last checkpoints apart by one or two digits.
        select="last",
        baselines=True,
        data=Data("digits"),
        augment=Augment(shift=1),
        model=Model(
            features=64,
            layers=2,
            order="both",
            bidirectional=True,
            pooling="mean",
            dropout=0.3,
        ),
        optimizer=Optimizer(learning_rate=4e-3, warmup_steps=50),
        task=Task(label_smoothing=0.1),
        **options,
    )


def _image(source: str, order: str, epochs: int, **model: Any) -> Config:
    return Config(
        epochs=epochs,
        batch_size=128,
        data=Data(source),
        model=Model(order=order, **model),
    )


def _moving(source: str, model: Model, **options: Any) -> Config:
    return Config(
        data=Data(source, validation=0.05, normalize="unit"),
        model=model,
        task=Task("forecasting"),
        **options,
    )


PRESETS: dict[str, tuple[str, Config]] = {
    "digits": (
        "1,797 scanned digits of 8x8, rows and columns at once, in a minute",
        _digits(),
    ),
    "digits-angle": (
        "by how many degrees a digit is turned: a regression",
        dataclasses.replace(
            _digits(),
            baselines=False,
            data=Data("digits_angle"),
            task=Task("regression", unit="degrees"),
        ),
    ),
    "mnist-rows": ("MNIST, row by row", _image("mnist", "rows", 12)),
    "mnist-pixels": (
        "MNIST, pixel by pixel: 784 steps",
        _image("mnist", "pixels", 50),
    ),
    "mnist-permuted": (
        "MNIST's pixels in one random order",
        _image("mnist", "permuted", 50),
    ),
    "fashion-rows": (
        "Fashion-MNIST, row by row",
        _image("fashion_mnist", "rows", 12),
    ),
    "cifar10-rows": ("CIFAR-10, row by row", _image("cifar10", "rows", 20)),
    "moving-digits": (
        "ten frames of two moving digits, the next ten to be predicted",
        _moving(
            "moving_digits",
            Model(kind="encoder_forecaster", cell="conv_lstm", features=48, layers=2),
            steps=1400,
            batch_size=4,
            eval_every=350,
        ),
    ),
    "moving-fashion": (
        "the same with Fashion-MNIST, as published: four ConvLSTMs of 128, for a GPU",
        _moving(
            "moving_digits/fashion_mnist",
            Model(
                kind="stacked",
                cell="conv_lstm",
                features=128,
                layers=4,
                kernel=5,
                engine="scan",
            ),
            epochs=200,
            batch_size=16,
            optimizer=Optimizer(learning_rate=5e-4),
        ),
    ),
    "moving-motion": (
        "which way a digit sets out, from a clip of it: a ConvLSTM classifier",
        Config(
            epochs=10,
            batch_size=16,
            data=Data("moving_digit/motion", size=32),
            model=Model(cell="conv_lstm", features=16, pooling="last"),
        ),
    ),
    "features": (
        "labels for every step, from files of features by a frozen network",
        Config(
            epochs=30,
            batch_size=16,
            data=Data("features.csv"),
            model=Model(features=64, bidirectional=True, dropout=0.2, per_step=True),
            task=Task("multilabel"),
        ),
    ),
    "cifar10-pixels": (
        "CIFAR-10, pixel by pixel: 1,024 steps",
        _image("cifar10", "pixels", 50),
    ),
}


class UsageError(ValueError):
    """A person's mistake, with a message that says what to do."""


def explain(error: BaseException) -> str:
    """One line for a mistake that our own code found; a traceback for any other."""
    frames = traceback.extract_tb(error.__traceback__)
    root = Path(__file__).parents[1]
    found_by_us = frames and any(
        Path(frames[-1].filename).is_relative_to(root / package)
        for package in ("lstm_jax", "experiments")
    )
    if found_by_us or isinstance(error, OSError):
        return f"error: {error}"
    return "".join(traceback.format_exception(error)).rstrip()


def preset(name: str) -> Config:
    """The configuration of that name."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"unknown preset {name!r}.{hint} There are: {', '.join(PRESETS)}."
        )
    return PRESETS[name][1]


def override(config: Any, options: dict[str, Any], prefix: str = "") -> Any:
    """Replaces values by name: `{"steps": 5, "model.features": 32}`.

    `__` stands for the dot where it cannot be written: `model__features=32`.
    """
    for dotted, value in options.items():
        head, _, rest = dotted.replace("__", ".").partition(".")
        old = getattr(config, head, None)
        if head not in {f.name for f in dataclasses.fields(config)} or (
            rest and not dataclasses.is_dataclass(old)
        ):
            wrong = f"{prefix}{head}.{rest}" if rest else prefix + head
            raise UsageError(f"unknown option {wrong}{_near_option(wrong)}")
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        elif type(value).__module__ == "numpy" and not getattr(value, "shape", ()):
            value = value.item()  # JSON knows no NumPy scalars
        if rest:
            value = override(old, {rest: value}, f"{prefix}{head}.")
        elif dataclasses.is_dataclass(old) and isinstance(value, str):
            value = override(old, {"source": value})  # data="digits"
        elif dataclasses.is_dataclass(old) and isinstance(value, dict):
            value = override(old, value, f"{prefix}{head}.")
        config = dataclasses.replace(config, **{head: value})
    return config


def _near_option(wrong: str) -> str:
    """`; did you mean model.features?` for "features", or for "model.feature"."""
    names = list(flat(dataclasses.asdict(Config())))
    near = [name for name in names if name.rpartition(".")[2] == wrong]
    near = near or difflib.get_close_matches(wrong, names, n=1)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"data": {"size": 8}}` as `{"data.size": 8}`."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _check_kinds(values: Any, prefix: str = "") -> None:
    """What tyro does for the command line, for `train(...)` called as a function."""
    for name, hint in get_type_hints(type(values)).items():
        value, name = getattr(values, name), prefix + name
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, hint):
                raise UsageError(f"{name}={value!r}, but it wants {hint.__name__}")
            _check_kinds(value, f"{name}.")
            continue
        if get_origin(hint) is Literal:
            choices = get_args(hint)
            if value not in choices:
                near = difflib.get_close_matches(str(value), choices, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise UsageError(
                    f"{name}={value!r}, but it must be one of "
                    f"{', '.join(choices)}{hint}"
                )
            continue
        kinds = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        exact = type(value) in kinds or (type(value) is int and float in kinds)
        if not exact:
            words = ["None" if kind is type(None) else kind.__name__ for kind in kinds]
            raise UsageError(f"{name}={value!r}, but it must be {' or '.join(words)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{name}={value}, but it must be finite")


def check(config: Config) -> Config:
    """Refuses values that no run can have."""
    _check_kinds(config)
    positive = {
        "batch_size": config.batch_size,
        "log_every": config.log_every,
        "accumulate": config.accumulate,
        "steps_per_dispatch": config.steps_per_dispatch,
        "model.features": config.model.features,
        "model.layers": config.model.layers,
        "model.patch": config.model.patch,
        "model.kernel": config.model.kernel,
        "task.horizon": config.task.horizon,
    }
    if config.eval_every is not None:
        positive["eval_every"] = config.eval_every
    if config.steps is not None:
        positive["steps"] = config.steps
    elif config.epochs is not None:
        positive["epochs"] = config.epochs
    else:
        raise UsageError("give epochs or steps: a run has to end")
    if config.data.size is not None:
        positive["data.size"] = config.data.size
    if config.model.truncate is not None:
        positive["model.truncate"] = config.model.truncate
    if config.data.frames is not None:
        positive["data.frames"] = config.data.frames
    for name, value in positive.items():
        if not value > 0:
            raise UsageError(f"{name}={value}, but it must be 1 or more")
    not_negative = {
        "seed": config.seed,
        "augment.shift": config.augment.shift,
        "augment.rotate": config.augment.rotate,
        "augment.cutout": config.augment.cutout,
        "augment.noise": config.augment.noise,
        "augment.mixup": config.augment.mixup,
        "data.noise_rows": config.data.noise_rows,
        "optimizer.learning_rate": config.optimizer.learning_rate,
        "optimizer.warmup_steps": config.optimizer.warmup_steps,
        "optimizer.weight_decay": config.optimizer.weight_decay,
        "optimizer.clip": config.optimizer.clip or 0.0,
        "task.decoupling": config.task.decoupling,
    }
    for name, value in not_negative.items():
        if value < 0:
            raise UsageError(f"{name}={value}, but it cannot be negative")
    fractions = {
        "model.dropout": config.model.dropout,
        "data.validation": config.data.validation,
        "task.label_smoothing": config.task.label_smoothing,
    }
    for name, value in fractions.items():
        if not 0 <= value < 1:
            raise UsageError(f"{name}={value}, but it must be in [0, 1)")
    if not 0 <= config.augment.flip <= 1:
        raise UsageError(f"augment.flip={config.augment.flip}: a probability, 0 to 1")
    if not 0 < config.augment.crop <= 1:
        raise UsageError(f"augment.crop={config.augment.crop}: a share, above 0, to 1")
    if config.augment.mixup and config.parallel == "pmap":
        raise UsageError(
            "augment.mixup pairs pictures of all devices, which --parallel=pmap keeps "
            "apart; use --parallel=jit"
        )
    forecasts = config.task.name == "forecasting"
    if forecasts and config.augment.mixup:
        raise UsageError("augment.mixup mixes targets, which a forecast does not have")
    if forecasts == (config.model.kind == "reader"):
        raise UsageError(
            f"task.name={config.task.name} and model.kind={config.model.kind} do not "
            "go together: forecasting wants encoder_forecaster, stacked, predrnn or "
            "predrnn_v2, which do nothing else"
        )
    if config.task.loss in ({"huber"} if forecasts else {"l1", "bce", "ssim"}):
        raise UsageError(f"task.loss={config.task.loss} is not for {config.task.name}")
    where = {
        "coordinator": config.coordinator,
        "processes": config.processes,
        "process_id": config.process_id,
    }
    given = [name for name, value in where.items() if value is not None]
    if given and not config.distributed:
        raise UsageError(f"{given[0]} is given without distributed")
    if given and len(given) < len(where):
        missing = next(name for name in where if name not in given)
        raise UsageError(f"{given[0]} is given without {missing}: give all three")
    return config


def from_dict(values: dict[str, Any]) -> Config:
    """The configuration that `dataclasses.asdict` turned into `values`."""
    return override(Config(), values)


def read_run(directory: Path) -> dict[str, Any] | None:
    """What `config.json` of a run holds: "preset", "config", "data"; None without it.

    Raises:
      UsageError: the file is damaged, or not that of a run.
    """
    path = Path(directory, "config.json")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict) or {"preset", "config", "data"} - values.keys():
        raise UsageError(f"{path} is not that of a run")
    return values


def parse(arguments: list[str]) -> tuple[str, Config]:
    """`[PRESET] [--flags]` of the command line, as `(preset name, Config)`.

    The preset is peeled off first, wherever a bare word leads, so that flags work
    without one; the flags are then parsed over its values.
    """
    import tyro

    arguments = list(arguments)
    name = "digits"
    if arguments and not arguments[0].startswith("-"):
        name = arguments.pop(0)
    base = preset(name)
    # `--data=photos` is short for `--data.source=photos`.
    known = {name.replace("_", "-") for name in flat(dataclasses.asdict(base))}
    for argument in arguments:
        flag = argument.partition("=")[0].removeprefix("--").replace("_", "-")
        full = [f"--{key}" for key in known if key.endswith(f".{flag}")]
        if argument.startswith("--") and full and flag not in known:
            if not _names_data(argument):
                raise UsageError(f"unknown option --{flag}; did you mean {full[0]}?")
    arguments = [
        "--data.source" + a.removeprefix("--data") if _names_data(a) else a
        for a in arguments
    ]
    listing = "\n".join(f"  {key:<16}{line}" for key, (line, _) in PRESETS.items())
    config = tyro.cli(
        Annotated[Config, tyro.conf.arg(name="")],
        args=arguments,
        default=base,
        prog="python -m experiments.train [PRESET]",
        description=f"Trains a recurrent network on images.\n\nPresets:\n{listing}",
    )
    return name, check(config)


def _names_data(argument: str) -> bool:
    return argument == "--data" or argument.startswith("--data=")
