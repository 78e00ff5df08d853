"""What a run is made of, as frozen dataclasses; imports nothing heavy."""

from dataclasses import dataclass, field
from typing import Literal

from experiments.models import MODELS
from experiments.tasks import TASKS


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
    split_seed: int = 0
    """How examples are dealt out where no split is given; the same for all seeds."""
    limit: int | None = None
    """Train on so many examples only, drawn from each class in proportion."""
    normalize: Literal["unit", "symmetric", "inverted", "standard", "line"] = "standard"
    """To [0, 1], to [-1, 1], to [0, 1] with white at 0, or to mean 0 and variance 1 per
    channel; or of each line of text by its own columns."""
    frames: int | None = None
    """Frames of a clip; default 16, of files of features all."""
    sampling: Literal["spread", "start", "windows"] = "spread"
    """Which frames of a longer clip: spread over it, the first, or window by window."""
    buckets: int = 4
    """Widths that lines of text are padded to; each is compiled for itself."""
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
    warp: float = 0.0
    """Stretch lines of text along both axes by up to about this share."""
    mixup: float = 0.0
    """Alpha of mixing pictures, and their targets, in pairs; 0.2 is usual."""


@dataclass(frozen=True)
class Model:
    """The recurrent network."""

    kind: Literal[tuple(MODELS)] = "reader"
    """Read pictures and clips and answer; or predict the frames that follow: encoder
    and forecaster, stacked convolutional cells that read their own answers, PredRNN.
    Or find: by segmentation, a U-Net with a ReNet at its bottom, or with ConvLSTMs in
    its skips; by detection, an LSTM that emits boxes, or a bottleneck-ConvLSTM over
    frames with a box from every place. Or read lines of text: the network of a VGSL
    spec, or the CRNN."""
    spec: str = (
        "[1,32,0,1 Cr5,5,24,4,3 Gn3 Cr3,3,48,2,1 Gn6 Cr3,3,64,2,1 Gn8 S1(1x0)1,3 "
        "Cr1,1,80 Lbx96]"
    )
    """Of kind=vgsl: its layers, in Tesseract's or kraken's dialect; the output, as wide
    as the alphabet, is put to it."""
    margin: int = 0
    """Of kind=vgsl: columns of zeros before and after each line; kraken's networks want
    16 of them."""
    cell: Literal["lstm", "gru", "rnn", "conv_lstm", "conv_gru"] = "lstm"
    """Convolutional ones are for clips."""
    features: int = 128
    """Hidden width D of a layer (and direction); channels of a convolutional one, and
    of the coarsest map where something is to be found."""
    layers: int = 1
    kernel: int = 3
    """Side of convolutional cells' kernels."""
    encoder: Literal["none", "cnn", "resnet18", "resnet34", "resnet50"] = "none"
    """What a clip's frames go through, one by one, before the cells; a resnet has its
    pixels normalised as ImageNet's, whatever data.normalize says."""
    encoder_weights: str | None = None
    """A .safetensors file of the resnet's, by torchvision's or timm's names; default
    random ones. Once a run has begun, they are in its checkpoints."""
    per_step: bool = False
    """Answer every step of a clip, not the whole."""
    tbptt_steps: int | None = None
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
    """Of the input weights; torch is uniform, and for recurrent ones and biases too."""
    recurrent_init: Literal["orthogonal", "identity", "glorot", "he"] = "orthogonal"
    """identity with activation=relu is an IRNN."""
    forget_bias: float | Literal["chrono", "uniform_gate"] = 1.0
    """chrono spreads what is kept over up to the whole sequence."""
    feedforward: bool = False
    """Of segmentation and detection: convolutions of as many parameters in place of
    what is recurrent."""
    boxes: int = 8
    """Of kind=emitter: boxes to emit at most, one more than a picture holds."""
    activation: Literal["tanh", "relu", "leaky_relu"] = "tanh"
    """Of the vanilla rnn."""
    engine: Literal["auto", "scan", "vjp", "cudnn"] = "auto"
    """How the time loop runs, as in `lstm_jax.unroll`."""

    @property
    def resnet_depth(self) -> int | None:
        """18 of the encoder "resnet18"; None for one that is no ResNet."""
        name = self.encoder
        return int(name[6:]) if name.startswith("resnet") else None


@dataclass(frozen=True)
class Optimizer:
    """The update rule, its schedule and its brakes."""

    name: Literal["sgd", "adam", "adamw", "rmsprop", "muon"] = "adam"
    """muon makes updates of matrices and kernels orthogonal; the rest is Adam's."""
    learning_rate: float = 2e-3
    schedule: Literal[
        "constant",
        "cosine",
        "exponential",
        "step",
        "one_cycle",
        "restarts",
        "plateau",
    ] = "cosine"
    """plateau lowers the rate when validation no longer improves."""
    warmup_steps: int = 0
    decay_rate: float = 0.1
    """Of exponential over the whole run, of step at each step, of plateau each time."""
    cycles: int = 4
    """Of restarts."""
    patience: int = 3
    """Of plateau: validations without a better one before the rate falls."""
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    """Decoupled; biases never decay."""
    clip: float | None = 1.0
    clip_by: Literal["global_norm", "value", "adaptive"] = "global_norm"
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, which is then what is
    validated, tested and kept; 0.999 is usual."""
    freeze: str = ""
    """Parameters that stay as they are: a pattern found in their paths, such as
    encoder or "layer_0/|head"."""
    rates: str = ""
    """Factors of the learning rate by pattern, such as "encoder=0.1,head=2"."""


@dataclass(frozen=True)
class Task:
    """What is learned, and how it is judged."""

    name: Literal[tuple(TASKS)] = "classification"
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
    dice: float = 1.0
    """Weight of the Dice loss beside the cross-entropy of a segmentation."""
    beams: int = 0
    """Of recognition: the width of a beam search for the text; 0: the best path."""
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
    stop_after: int | None = None
    """End early after so many validations without a better one, and test the best."""
    min_delta: float = 0.0
    """What counts as better, for stop_after and the plateau schedule."""
    init_from: str | None = None
    """Begin with what fits of the weights of another run, by the folder's name."""
    tensorboard: bool = False
    """Also write the metrics and pictures for TensorBoard, to RUN/tensorboard."""
    folds: int | None = None
    """Cross-validate: so many runs, each tested on another part of the examples that
    are not the data set's test examples."""
    fold: int | None = None
    """Train this fold only, the first is 0; default all, one after another."""
    baselines: bool = False
    """Also fit scikit-learn's SVC and 1-nearest-neighbour on the same split."""
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    task: Task = field(default_factory=Task)

    @property
    def tests_best(self) -> bool:
        """Whether the best checkpoint is tested and kept for answers."""
        return self.select == "best" or self.stop_after is not None
