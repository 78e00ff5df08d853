"""The options of a run, as frozen dataclasses.

The options of tasks and models are in `experiments/tasks` and `experiments/models`.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from experiments.choices import (
    Amount,
    Choice,
    Count,
    Fraction,
    Magnitude,
    Positive,
    Probability,
    Seed,
    Share,
    Size,
    Steps,
)

# Data


@dataclass(frozen=True)
class Data:
    """The images, their preparation and their split."""

    # Flags shown as groups of their own, so that each fits a screen.
    help_groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "splits": ("validation", "split_seed", "group", "limit", "allow_changed")
    }

    source: str = "digits"
    """A data set by name, a folder of class/image.png, or a table.csv."""
    manual_dir: str | None = None
    """Folder with manually downloaded files of a data set."""
    dir: str | None = None
    """Cache of prepared data; default ~/.cache/lstm_jax."""
    size: Count | None = None
    """Resize images to a square of this side, in pixels."""
    validation: Fraction = 0.1
    """Fraction of the training examples held out for validation."""
    split_seed: Seed = 0
    """Seed of the random splits, for data sets without their own."""
    group: str | None = None
    """What stays in one split, such as a patient: a column of the table, or the first
    group of a regular expression over file names."""
    limit: Count | None = None
    """Maximum of training examples, stratified by class."""
    allow_changed: bool = False
    """Resume a run although its data changed."""
    follow_outside: bool = False
    """Load files that a table or COCO file names outside of its folder."""

    # Constants for data without these options; subclasses make them fields.
    normalize: ClassVar[str] = "unit"
    frames: ClassVar[int | None] = None
    sampling: ClassVar[str] = "uniform"
    noise_rows: ClassVar[int] = 0
    fit: ClassVar[str | None] = None
    min_per_class: ClassVar[int | None] = None
    columns: ClassVar[str | None] = None
    encoding: ClassVar[str | None] = None
    arrays: ClassVar[str | None] = None


@dataclass(frozen=True)
class Clips(Data):
    """The clips, their preparation and their split."""

    frames: Count | None = None
    """Frames per clip; default 16, or all steps of a feature file."""
    sampling: Literal["uniform", "start", "windows"] = "uniform"
    """Frames used of a longer clip: evenly spaced, the first ones, or windows."""


@dataclass(frozen=True)
class Images(Clips):
    """The images or clips, their preparation and their split."""

    normalize: Literal["unit", "symmetric", "inverted", "standard"] = "standard"
    """Scale to [0, 1]; [-1, 1]; [0, 1] with white at 0; mean 0 and variance 1."""
    fit: Literal["squash", "crop", "letterbox"] | None = None
    """Resizing of your own images: change the aspect ratio, cut the centre, or leave a
    border; default letterbox if aspect ratios differ, else squash."""


@dataclass(frozen=True)
class LabelledImages(Images):
    """The images or clips, their preparation and their split."""

    noise_rows: Size = 0
    """Rows of noise appended to each image, to test long-range memory."""
    min_per_class: Count | None = None
    """Leave out classes with fewer training examples, of your own files."""
    columns: str | None = None
    """Columns of a table by role: path:filename,label:class; or by number."""
    encoding: str | None = None
    """Encoding of a table, such as cp1251; default UTF-8 or UTF-16."""
    arrays: str | None = None
    """Names of arrays in a file by role: inputs:images,targets:labels."""


@dataclass(frozen=True)
class Lines(Data):
    """The lines of text, their preparation and their split."""

    normalize: Literal["unit", "symmetric", "inverted", "standard", "line"] = "standard"
    """Scale to [0, 1]; [-1, 1]; [0, 1] with white at 0; mean 0 and variance 1; or
    standardise each line by its own statistics."""
    buckets: Count = 4
    """Number of padded widths; each is compiled separately."""
    columns: str | None = None
    """Columns of a table by role: path:filename,label:class; or by number."""
    encoding: str | None = None
    """Encoding of a table, such as cp1251; default UTF-8 or UTF-16."""


# Augmentation


@dataclass(frozen=True)
class Noise:
    """Augmentation of training images, on the device."""

    noise: Amount = 0.0
    """Standard deviation of Gaussian noise; pixels are 0 to 255."""

    # Constants where an augmentation is not available; subclasses make them fields.
    translate: ClassVar[int] = 0
    rotate: ClassVar[float] = 0.0
    zoom: ClassVar[float] = 0.0
    crop: ClassVar[float] = 1.0
    flip: ClassVar[float] = 0.0
    cutout: ClassVar[int] = 0
    warp: ClassVar[float] = 0.0
    color_jitter: ClassVar[float] = 0.0
    rand_augment: ClassVar[float] = 0.0
    erase: ClassVar[float] = 0.0
    mixup: ClassVar[float] = 0.0
    cutmix: ClassVar[float] = 0.0


@dataclass(frozen=True)
class LineAugment(Noise):
    """Augmentation of training lines, on the device."""

    warp: Amount = 0.0
    """Maximum stretch along both axes, as a fraction."""


@dataclass(frozen=True)
class Joint(Noise):
    """Augmentation of training images or clips, and of their targets, on the device."""

    translate: Size = 0
    """Maximum translation, in pixels."""
    rotate: Amount = 0.0
    """Maximum rotation, in degrees."""
    zoom: Amount = 0.0
    """Maximum change of scale, as a fraction."""
    flip: Probability = 0.0
    """Probability of a horizontal flip."""
    color_jitter: Amount = 0.0
    """Maximum change of brightness, contrast and saturation, as a fraction."""


@dataclass(frozen=True)
class Geometry(Joint):
    """Augmentation of training images or clips, on the device."""

    crop: Share = 1.0
    """Minimum fraction of the area kept by a random crop."""
    cutout: Size = 0
    """Side of the black square of cutout, in pixels."""


@dataclass(frozen=True)
class Augment(Geometry):
    """Augmentation of training images or clips, on the device."""

    rand_augment: Magnitude = 0.0
    """Magnitude of RandAugment, up to 10; commonly 9, here 0 is off."""
    erase: Probability = 0.0
    """Probability of random erasing, of a rectangle by noise."""
    mixup: Amount = 0.0
    """Alpha of mixup of images and targets, commonly 0.2."""
    cutmix: Amount = 0.0
    """Alpha of CutMix, commonly 1; with mixup, each image gets one of the two."""


# Learning-rate schedules and optimizers


class Schedule(Choice):
    """The learning-rate schedule."""

    warmup_steps: ClassVar[int] = 0


@dataclass(frozen=True)
class _WithWarmup(Schedule):
    warmup_steps: Size = 0
    """Steps of linear warm-up."""


@dataclass(frozen=True)
class Constant(_WithWarmup):
    """Constant after the warm-up."""

    name = "constant"


@dataclass(frozen=True)
class Cosine(_WithWarmup):
    """Cosine decay to 0."""

    name = "cosine"


@dataclass(frozen=True)
class Exponential(_WithWarmup):
    """Exponential decay."""

    name = "exponential"
    decay_rate: Amount = 0.1
    """Final learning rate as a fraction of the peak."""


@dataclass(frozen=True)
class Step(_WithWarmup):
    """Decay at 50 % and 75 % of the steps."""

    name = "step"
    decay_rate: Amount = 0.1
    """Factor of each decay."""


@dataclass(frozen=True)
class OneCycle(Schedule):
    """One cycle: warm-up, then decay to almost 0."""

    name = "one_cycle"


@dataclass(frozen=True)
class Restarts(_WithWarmup):
    """Cosine decay with warm restarts."""

    name = "restarts"
    cycles: Count = 4
    """Number of cycles."""


@dataclass(frozen=True)
class Plateau(_WithWarmup):
    """Decay when the validation metric stops improving."""

    name = "plateau"
    decay_rate: Fraction = 0.1
    """Factor of each decay."""
    patience: Count = 3
    """Validations without improvement before the learning rate decays."""
    min_delta: Amount = 0.0
    """Smallest change that counts as an improvement."""


class Optimizer(Choice):
    """The update rule, its schedule and its regularisation."""


@dataclass(frozen=True)
class _Optimizer(Optimizer):
    learning_rate: Amount = 2e-3
    """Peak learning rate."""
    schedule: Schedule = Cosine()
    """Learning-rate schedule."""
    weight_decay: Amount = 0.0
    """Decoupled weight decay; not applied to biases."""
    clip: Positive | None = 1.0
    """Gradient clipping threshold; None: no clipping."""
    clip_by: Literal["global_norm", "value", "adaptive"] = "global_norm"
    """What to clip; adaptive: relative to the weights."""
    ema: Fraction = 0.0
    """Decay of a moving average of the weights, for evaluation; commonly 0.999."""
    freeze: str = ""
    """Pattern of parameter paths to freeze: "layer_0/|head"."""
    lr_multipliers: str = ""
    """Learning-rate factors by path: "encoder=0.1,head=2"."""

    # Constants where an optimizer has no such option; subclasses make them fields.
    momentum: ClassVar[float] = 0.0
    nesterov: ClassVar[bool] = False


@dataclass(frozen=True)
class SGD(_Optimizer):
    """Stochastic gradient descent."""

    name = "sgd"
    momentum: Fraction = 0.9
    """Momentum."""
    nesterov: bool = False
    """Nesterov momentum."""


@dataclass(frozen=True)
class Adam(_Optimizer):
    """Adam, with decoupled weight decay."""

    name = "adam"
    nesterov: bool = False
    """Nesterov momentum."""


@dataclass(frozen=True)
class AdamW(Adam):
    """AdamW; equal to adam here."""

    name = "adamw"


@dataclass(frozen=True)
class RMSProp(_Optimizer):
    """RMSprop."""

    name = "rmsprop"


@dataclass(frozen=True)
class Muon(_Optimizer):
    """Muon for matrices and kernels, Adam for the rest."""

    name = "muon"


# Task and model


class TaskOptions(Choice):
    """The task: its targets, loss and metrics."""


class ModelOptions(Choice):
    """The network."""


@dataclass(frozen=True)
class RecurrentOptions(ModelOptions):
    """Options shared by all networks."""

    engine: Literal["auto", "scan", "vjp", "cudnn"] = "auto"
    """Implementation of the time loop, as in lstm_jax.unroll."""


# A run


@dataclass(frozen=True)
class Training:
    """Length of training, batches and initial weights."""

    seed: Seed = 0
    """Random seed of initial weights, order of examples and noise."""
    epochs: Positive | None = 20
    """Number of passes over the training examples."""
    steps: Steps | None = None
    """Number of updates; overrides epochs."""
    batch_size: Count = 64
    """Global batch size, over all devices."""
    grad_accum_steps: Count = 1
    """Gradient accumulation: number of parts of a batch, to save memory."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """dtype of the computation; parameters are float32."""
    init_from: str | None = None
    """Initial weights: a run folder or a weights file, as far as shapes match."""


@dataclass(frozen=True)
class Validation:
    """Validation, checkpoints and the final test."""

    eval_every: Count | None = None
    """Steps between validations; default: each epoch, at most 20 times."""
    test_checkpoint: Literal["best", "last"] = "best"
    """Checkpoint to test: the best on validation, or the last."""
    early_stopping_patience: Count | None = None
    """Stop after this many validations without improvement; test the best."""
    min_delta: Amount = 0.0
    """Smallest change that counts as an improvement."""
    folds: int | None = None
    """k-fold cross-validation with this k; the test split is left out."""
    fold: int | None = None
    """Train only this fold, counted from 0; default: all in turn."""
    baselines: bool = True
    """Also fit a nearest neighbour and, for classes, a support-vector machine, in
    seconds: on at most 3,000 examples; HOG features for photographs."""


@dataclass(frozen=True)
class Devices:
    """Devices, processes and data placement."""

    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Device type; auto: TPU, then GPU, then CPU."""
    parallel: Literal["jit", "pmap"] = "jit"
    """How to parallelise over devices."""
    data_placement: Literal["auto", "resident", "stream"] = "auto"
    """Keep the training data in device memory, or transfer each batch; auto: up to
    512 MiB resident."""
    steps_per_execution: Count = 32
    """Maximum updates per dispatch; limited to half a second."""
    compilation_cache: bool = True
    """Cache compiled programs in ~/.cache/lstm_jax/compiled."""
    distributed: bool = False
    """Multi-process training; outside TPU pods and Slurm, also give:"""
    coordinator: str | None = None
    """HOST:PORT of process 0."""
    processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Index of this process, from 0."""


@dataclass(frozen=True)
class Output:
    """Outputs and loggers."""

    run_dir: str | None = None
    """Run folder; default runs/PRESET. An unfinished run is resumed."""
    overwrite: bool = False
    """Delete the run in this folder and start again."""
    log_every: Count = 50
    """Steps between rows of training metrics."""
    tensorboard: bool = False
    """Also log to TensorBoard, in RUN/tensorboard."""
    wandb: bool = False
    """Also log to Weights & Biases; see WANDB_PROJECT and WANDB_MODE."""
    mlflow: bool = False
    """Also log to MLflow; see MLFLOW_TRACKING_URI."""
    profile: bool = False
    """Measure how long a step waits for data and dispatch; write a trace."""


SECTIONS = (Training, Validation, Devices, Output)


@dataclass(frozen=True, kw_only=True)
class Config(Training, Validation, Devices, Output):
    """The configuration of a run."""

    task: TaskOptions
    data: Data = field(default_factory=LabelledImages)
    augment: Noise = field(default_factory=Augment)
    model: ModelOptions
    optimizer: Optimizer = field(default_factory=Adam)

    @property
    def tests_best(self) -> bool:
        """Whether the best checkpoint is tested and used for predictions."""
        stops = self.early_stopping_patience is not None
        return self.test_checkpoint == "best" or stops
