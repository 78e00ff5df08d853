"""What a run is made of, as frozen dataclasses.

The options of a task and of a model are in their own files, in `experiments/tasks` and
`experiments/models`.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from experiments.choices import (
    Amount,
    Choice,
    Count,
    Fraction,
    Positive,
    Probability,
    Share,
    Size,
)

# Data, by what a task learns from


@dataclass(frozen=True)
class Data:
    """Where the images come from."""

    source: str = "digits"
    """A data set by name, a folder of class/picture.png or class/clip.mp4, or a
    table.csv."""
    manual_dir: str | None = None
    """Folder with files fetched by hand, where there is no network."""
    dir: str | None = None
    """Folder for prepared data; default ~/.cache/lstm_jax."""
    size: Count | None = None
    """Resize pictures to this many pixels square."""
    validation: Fraction = 0.1
    """Share of the training pictures kept to choose the best checkpoint by."""
    split_seed: int = 0
    """How examples are dealt out where no split is given; the same for all seeds."""
    limit: Count | None = None
    """Train on so many examples only, drawn from each class in proportion."""

    # Of pictures, which have no other way; see the subclasses.
    normalize: ClassVar[str] = "unit"
    frames: ClassVar[int | None] = None
    sampling: ClassVar[str] = "spread"
    noise_rows: ClassVar[int] = 0


@dataclass(frozen=True)
class Clips(Data):
    """Where the clips come from."""

    frames: Count | None = None
    """Frames of a clip; default 16, of files of features all."""
    sampling: Literal["spread", "start", "windows"] = "spread"
    """Which frames of a longer clip: spread over it, the first, or window by window."""


@dataclass(frozen=True)
class Images(Clips):
    """Where the images or clips come from."""

    normalize: Literal["unit", "symmetric", "inverted", "standard"] = "standard"
    """To [0, 1], to [-1, 1], to [0, 1] with white at 0, or to mean 0 and variance 1 per
    channel."""


@dataclass(frozen=True)
class LabelledImages(Images):
    """Where the images or clips come from."""

    noise_rows: Size = 0
    """Rows of noise below each picture: what came before must be remembered."""


@dataclass(frozen=True)
class Lines(Data):
    """Where the lines of text come from."""

    normalize: Literal["unit", "symmetric", "inverted", "standard", "line"] = "standard"
    """To [0, 1], to [-1, 1], to [0, 1] with white at 0, to mean 0 and variance 1; or
    each line by its own columns."""
    buckets: Count = 4
    """Widths that lines are padded to; each is compiled for itself."""


# Augmentation, by what a task allows


@dataclass(frozen=True)
class Noise:
    """Random changes of each training picture that leave everything in its place."""

    noise: Amount = 0.0
    """Standard deviation of Gaussian noise; pixels are 0 to 255."""

    # What moves or mixes pictures; see the subclasses.
    translate: ClassVar[int] = 0
    rotate: ClassVar[float] = 0.0
    crop: ClassVar[float] = 1.0
    flip: ClassVar[float] = 0.0
    cutout: ClassVar[int] = 0
    warp: ClassVar[float] = 0.0
    mixup: ClassVar[float] = 0.0


@dataclass(frozen=True)
class LineAugment(Noise):
    """Random changes of each training line, made on the device."""

    warp: Amount = 0.0
    """Stretch lines of text along both axes by up to about this share."""


@dataclass(frozen=True)
class Geometry(Noise):
    """Random changes of each training picture or clip, made on the device."""

    translate: Size = 0
    """Move by up to this many pixels."""
    rotate: Amount = 0.0
    """Turn by up to this many degrees."""
    crop: Share = 1.0
    """Least share of the picture's area that a random window keeps."""
    flip: Probability = 0.0
    """Probability of a flip, left to right."""
    cutout: Size = 0
    """Side of a square that is blacked out, pixels."""


@dataclass(frozen=True)
class Augment(Geometry):
    """Random changes of each training picture or clip, made on the device."""

    mixup: Amount = 0.0
    """Alpha of mixing pictures, and their targets, in pairs; 0.2 is usual."""


# Schedules and optimizers, by name


class Schedule(Choice):
    """The learning rate by step."""

    warmup_steps: ClassVar[int] = 0


@dataclass(frozen=True)
class _WithWarmup(Schedule):
    warmup_steps: Size = 0
    """Steps in which the learning rate rises."""


@dataclass(frozen=True)
class Constant(_WithWarmup):
    """The same after the warm-up."""

    name = "constant"


@dataclass(frozen=True)
class Cosine(_WithWarmup):
    """Down to 0 along half a cosine."""

    name = "cosine"


@dataclass(frozen=True)
class Exponential(_WithWarmup):
    """Down by a factor, evenly on a log scale."""

    name = "exponential"
    decay_rate: Amount = 0.1
    """Factor over the whole run."""


@dataclass(frozen=True)
class Step(_WithWarmup):
    """Down at one half and at three quarters."""

    name = "step"
    decay_rate: Amount = 0.1
    """Factor at each step down."""


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up, then down to almost 0."""

    name = "one_cycle"


@dataclass(frozen=True)
class Restarts(_WithWarmup):
    """Down along half a cosine, several times."""

    name = "restarts"
    cycles: Count = 4
    """How often the rate starts from the top."""


@dataclass(frozen=True)
class Plateau(_WithWarmup):
    """Down when validation no longer improves."""

    name = "plateau"
    decay_rate: Fraction = 0.1
    """Factor each time."""
    patience: Count = 3
    """Validations without a better one before the rate falls."""
    min_delta: Amount = 0.0
    """What counts as better."""


class Optimizer(Choice):
    """The update rule, its schedule and its brakes."""


@dataclass(frozen=True)
class _Optimizer(Optimizer):
    learning_rate: Amount = 2e-3
    schedule: Schedule = Cosine()
    """plateau lowers the rate when validation no longer improves."""
    weight_decay: Amount = 0.0
    """Decoupled; biases never decay."""
    clip: Positive | None = 1.0
    """Limit of the gradients, by the next flag; None: no clipping."""
    clip_by: Literal["global_norm", "value", "adaptive"] = "global_norm"
    ema: Fraction = 0.0
    """Decay of an exponential moving average of the weights, which is then what is
    validated, tested and kept; 0.999 is usual."""
    freeze: str = ""
    """Parameters that stay as they are: a pattern found in their paths, such as
    encoder or "layer_0/|head"."""
    lr_multipliers: str = ""
    """Factors of the learning rate by pattern, such as "encoder=0.1,head=2"."""

    # What only some heed.
    momentum: ClassVar[float] = 0.0
    nesterov: ClassVar[bool] = False


@dataclass(frozen=True)
class SGD(_Optimizer):
    """Stochastic gradient descent."""

    name = "sgd"
    momentum: Fraction = 0.9
    nesterov: bool = False


@dataclass(frozen=True)
class Adam(_Optimizer):
    """Adam, with decoupled weight decay."""

    name = "adam"
    nesterov: bool = False


@dataclass(frozen=True)
class AdamW(Adam):
    """The same."""

    name = "adamw"


@dataclass(frozen=True)
class RMSProp(_Optimizer):
    """RMSprop."""

    name = "rmsprop"


@dataclass(frozen=True)
class Muon(_Optimizer):
    """Updates of matrices and kernels are made orthogonal; the rest is Adam's."""

    name = "muon"


# Task and model: their own files


class TaskOptions(Choice):
    """What is learned, and how it is judged."""


class ModelOptions(Choice):
    """The network."""


@dataclass(frozen=True)
class RecurrentOptions(ModelOptions):
    """What all networks share."""

    engine: Literal["auto", "scan", "vjp", "cudnn"] = "auto"
    """How the time loop runs, as in `lstm_jax.unroll`."""


# A run


@dataclass(frozen=True)
class Training:
    """How long, and on what of it at a time."""

    seed: Size = 0
    epochs: Positive | None = 20
    """Length of the run in passes over the training pictures; or give steps."""
    steps: Count | None = None
    """Length of the run in updates; overrides epochs."""
    batch_size: Count = 64
    """Over all devices together."""
    grad_accum_steps: Count = 1
    """Parts that a batch is computed in, one after another, to need less memory."""
    precision: Literal["float32", "bfloat16"] = "float32"
    init_from: str | None = None
    """Begin with what fits of the weights of another run, by the folder's name."""


@dataclass(frozen=True)
class Validation:
    """When the network is judged, and on what."""

    eval_every: Count | None = None
    """Steps between validations and checkpoints; default one epoch, 20 at most."""
    test_checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint is tested: the best on the validation pictures, or the last."""
    early_stopping_patience: Count | None = None
    """End early after so many validations without a better one, and test the best."""
    min_delta: Amount = 0.0
    """What counts as better for early stopping."""
    folds: int | None = None
    """Cross-validate: so many runs, each tested on another part of the examples that
    are not the data set's test examples."""
    fold: int | None = None
    """Train this fold only, the first is 0; default all, one after another."""
    baselines: bool = False
    """Also fit scikit-learn's SVC and 1-nearest-neighbour on the same split."""


@dataclass(frozen=True)
class Devices:
    """Where it runs."""

    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    parallel: Literal["jit", "pmap"] = "jit"
    data_placement: Literal["auto", "resident", "stream"] = "auto"
    """Keep the training pictures on the devices, or send each batch there; auto keeps
    up to 512 MiB."""
    steps_per_execution: Count = 32
    """Updates that the devices do in a row before they hear from the host again, at
    most; never more than half a second of them."""
    compilation_cache: bool = True
    """Keep compiled programs for the next start, in ~/.cache/lstm_jax/compiled."""
    distributed: bool = False
    """One of many processes; TPU pods and Slurm say which, else the next three do."""
    coordinator: str | None = None
    """HOST:PORT of process 0."""
    processes: int | None = None
    process_id: int | None = None


@dataclass(frozen=True)
class Output:
    """What is written, and where."""

    run_dir: str | None = None
    """Folder of the run; default runs/PRESET. An unfinished run there goes on."""
    overwrite: bool = False
    """Start anew in a folder that holds another run."""
    log_every: Count = 50
    """Steps between rows of metrics."""
    tensorboard: bool = False
    """Also write the metrics and pictures for TensorBoard, to RUN/tensorboard."""
    wandb: bool = False
    """Also log to Weights & Biases, where WANDB_PROJECT and WANDB_MODE say."""
    mlflow: bool = False
    """Also log to MLflow, where MLFLOW_TRACKING_URI says."""
    profile: bool = False
    """Say what share of a step waits for data or dispatch; write a trace."""


SECTIONS = (Training, Validation, Devices, Output)


@dataclass(frozen=True, kw_only=True)
class Config(Training, Validation, Devices, Output):
    """A run."""

    task: TaskOptions
    data: Data = field(default_factory=LabelledImages)
    augment: Noise = field(default_factory=Augment)
    model: ModelOptions
    optimizer: Optimizer = field(default_factory=Adam)

    @property
    def tests_best(self) -> bool:
        """Whether the best checkpoint is tested and kept for answers."""
        stops = self.early_stopping_patience is not None
        return self.test_checkpoint == "best" or stops
