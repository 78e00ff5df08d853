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
    """A data set by name, a folder of class/image.png, or a table.csv."""
    manual_dir: str | None = None
    """Folder with files that were downloaded by hand."""
    dir: str | None = None
    """Folder of prepared data; default ~/.cache/lstm_jax."""
    size: Count | None = None
    """Resize images to a square of this side, in pixels."""
    validation: Fraction = 0.1
    """Fraction of the training examples held out for validation."""
    split_seed: int = 0
    """Seed of the splits that a data set does not give."""
    group: str | None = None
    """What stays in one split, by a column or by the parentheses of a regular
    expression over file names."""
    limit: Count | None = None
    """Training examples to use at most, stratified by class."""
    allow_changed: bool = False
    """Resume a run although its data changed."""

    # Of pictures, which have no other way; see the subclasses.
    normalize: ClassVar[str] = "unit"
    frames: ClassVar[int | None] = None
    sampling: ClassVar[str] = "uniform"
    noise_rows: ClassVar[int] = 0


@dataclass(frozen=True)
class Clips(Data):
    """Where the clips come from."""

    frames: Count | None = None
    """Frames of a clip; default 16, or all steps of a feature file."""
    sampling: Literal["uniform", "start", "windows"] = "uniform"
    """Frames taken of a longer clip: evenly spaced, the first, or windows."""


@dataclass(frozen=True)
class Images(Clips):
    """Where the images or clips come from."""

    normalize: Literal["unit", "symmetric", "inverted", "standard"] = "standard"
    """To [0, 1]; [-1, 1]; [0, 1] with white at 0; mean 0 and variance 1."""


@dataclass(frozen=True)
class LabelledImages(Images):
    """Where the images or clips come from."""

    noise_rows: Size = 0
    """Rows of noise below each image, across which the network must remember."""


@dataclass(frozen=True)
class Lines(Data):
    """Where the lines of text come from."""

    normalize: Literal["unit", "symmetric", "inverted", "standard", "line"] = "standard"
    """To [0, 1]; [-1, 1]; [0, 1] with white at 0; mean 0 and variance 1; or each line
    by its own columns."""
    buckets: Count = 4
    """Widths that lines are padded to; each is compiled separately."""


# Augmentation, by what a task allows


@dataclass(frozen=True)
class Noise:
    """Random changes of training images, made on the device."""

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
    """Random changes of training lines, made on the device."""

    warp: Amount = 0.0
    """Largest stretch along both axes, as a fraction."""


@dataclass(frozen=True)
class Geometry(Noise):
    """Random changes of training images or clips, made on the device."""

    translate: Size = 0
    """Largest translation, in pixels."""
    rotate: Amount = 0.0
    """Largest rotation, in degrees."""
    crop: Share = 1.0
    """Smallest fraction of the area that a random crop keeps."""
    flip: Probability = 0.0
    """Probability of a horizontal flip."""
    cutout: Size = 0
    """Side of a black square, in pixels."""


@dataclass(frozen=True)
class Augment(Geometry):
    """Random changes of training images or clips, made on the device."""

    mixup: Amount = 0.0
    """Alpha of mixup of images and their targets; 0.2 is usual."""


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
    """The update rule, its schedule and its regularisation."""


@dataclass(frozen=True)
class _Optimizer(Optimizer):
    learning_rate: Amount = 2e-3
    """The highest rate; --lr for short."""
    schedule: Schedule = Cosine()
    """How the rate changes; plateau lowers it when validation stops improving."""
    weight_decay: Amount = 0.0
    """Decoupled; biases do not decay."""
    clip: Positive | None = 1.0
    """Limit of the gradients; None: no clipping."""
    clip_by: Literal["global_norm", "value", "adaptive"] = "global_norm"
    """What is limited."""
    ema: Fraction = 0.0
    """Decay of a moving average of the weights, which is evaluated in their place;
    0.999 is usual."""
    freeze: str = ""
    """Parameters that are not trained: a pattern in their paths, such as
    "layer_0/|head"."""
    lr_multipliers: str = ""
    """Factors of the learning rate by pattern: "encoder=0.1,head=2"."""

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
    """Length, batches and first weights."""

    seed: Size = 0
    """Of the first weights, the order of examples and all noise."""
    epochs: Positive | None = 20
    """Length of the run in passes over the training examples; or give steps."""
    steps: Count | None = None
    """Length of the run in updates; overrides epochs."""
    batch_size: Count = 64
    """Over all devices together."""
    grad_accum_steps: Count = 1
    """Parts that a batch is computed in, to need less memory."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the network's computation; parameters are float32."""
    init_from: str | None = None
    """A run's folder or a file of weights to begin with, as far as they fit."""


@dataclass(frozen=True)
class Validation:
    """Validation, checkpoints and the final test."""

    eval_every: Count | None = None
    """Steps between validations; default one epoch, 20 validations at most."""
    test_checkpoint: Literal["best", "last"] = "best"
    """Checkpoint that is tested: the best one by validation, or the last."""
    early_stopping_patience: Count | None = None
    """Validations without improvement before the run stops; the best is tested."""
    min_delta: Amount = 0.0
    """Smallest change that counts as an improvement."""
    folds: int | None = None
    """Cross-validation with this many folds, over all but the test examples."""
    fold: int | None = None
    """Train this fold only, from 0; default: all, one after another."""
    baselines: bool = False
    """Also fit scikit-learn's SVC and 1-nearest-neighbour on the same split."""


@dataclass(frozen=True)
class Devices:
    """Devices, processes and dispatch."""

    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """What to train on; auto takes the best there is."""
    parallel: Literal["jit", "pmap"] = "jit"
    """How a batch is shared among devices."""
    data_placement: Literal["auto", "resident", "stream"] = "auto"
    """Keep the training data on the devices, or send each batch; auto keeps up to
    512 MiB."""
    steps_per_execution: Count = 32
    """Updates per dispatch, at most; never more than half a second of them."""
    compilation_cache: bool = True
    """Keep compiled programs in ~/.cache/lstm_jax/compiled."""
    distributed: bool = False
    """Train in several processes; outside of TPU pods and Slurm, also give:"""
    coordinator: str | None = None
    """HOST:PORT of process 0."""
    processes: int | None = None
    """How many there are."""
    process_id: int | None = None
    """Number of this one, from 0."""


@dataclass(frozen=True)
class Output:
    """Where results go."""

    run_dir: str | None = None
    """Folder of the run; default runs/PRESET. An unfinished run is resumed."""
    overwrite: bool = False
    """Replace the run in that folder."""
    log_every: Count = 50
    """Steps between rows of metrics."""
    tensorboard: bool = False
    """Also log to TensorBoard, in RUN/tensorboard."""
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
