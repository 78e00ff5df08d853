"""From a configuration to a model, a task and a data set; shared by all commands."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import record
from experiments.config import UsageError
from experiments.options import Config, Model
from lstm_jax import (
    Cell,
    conv_gru,
    conv_lstm,
    data,
    gru,
    initializers,
    lstm,
    readout,
    rnn,
    st_lstm,
    stack,
    tasks,
    training,
)
from lstm_jax.models import (
    EncoderForecaster,
    FrameEncoder,
    FrameForecaster,
    ResNet,
    SequenceClassifier,
    load_resnet,
    resnet,
    sequences,
)

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
}


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


def load_data(config: Config) -> data.Dataset:
    """The data set of a run; of a fold its split, with noise below where asked for."""
    options = config.data
    dataset = data.load(
        options.source,
        data_dir=options.dir,
        manual_dir=options.manual_dir,
        size=options.size,
        validation=options.validation,
        frames=options.frames,
        sampling=options.sampling,
        seed=options.split_seed,
    )
    if config.fold is not None:
        share = dict(validation=options.validation, seed=options.split_seed)
        dataset = data.take_fold(dataset, config.folds, config.fold, **share)
    if options.limit is not None:
        dataset = data.limited(dataset, options.limit, options.split_seed)
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
    if name == "forecasting":
        _check_forecast(config, dataset)
    else:
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
    offset, scale = data.normalization(train.inputs, how, train.lengths)
    if _depth(config.model):  # three of each: grey becomes the same in all channels
        offset = np.asarray(resnet.PIXEL_MEAN)
        scale = 1 / np.asarray(resnet.PIXEL_STD)
    spread = float(train.targets.std()) if regression else 1.0
    return Facts(
        dataset=dataset.name,
        classes=list(dataset.classes),
        image_shape=list(dataset.image_shape),
        outputs=train.targets.shape[1] if regression else len(dataset.classes),
        pixel_offset=offset.tolist(),
        pixel_scale=scale.tolist(),
        target_offset=float(train.targets.mean()) if regression else 0.0,
        target_scale=spread or 1.0,
    )


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


def cell(options: Model, steps: int) -> Cell:
    """One layer's cell, for sequences of so many steps."""
    if options.init == "torch":
        kernel = recurrent = bias = initializers.torch(options.features)
    else:
        kernel = getattr(initializers, options.init)()
        recurrent = getattr(initializers, options.recurrent_init)()
        bias = initializers.zeros()
    inits = dict(kernel_init=kernel, recurrent_init=recurrent, bias_init=bias)
    features, window = options.features, (options.kernel,) * 2
    forget = options.forget_bias
    if forget == "chrono":
        forget = initializers.chrono(max(steps, 2))
    elif forget == "uniform_gate":
        forget = initializers.uniform_gate()
    if options.cell == "lstm":
        return lstm(features, forget_bias=forget, **inits)
    if options.cell == "conv_lstm":
        return conv_lstm(features, window, forget_bias=forget, **inits)
    if options.cell == "conv_gru":
        return conv_gru(features, window, **inits)
    if options.cell == "gru":
        return gru(features, **inits)
    return rnn(features, activation=ACTIVATIONS[options.activation], **inits)


def order(options: Model, image_shape: tuple[int, ...]) -> sequences.Order:
    """How a picture, or a clip, becomes a sequence."""
    spatial = options.cell.startswith("conv") or options.encoder != "none"
    if len(image_shape) != 3:
        if spatial and len(image_shape) == 2:
            raise UsageError(
                f"steps are vectors of {image_shape[-1]} features; use "
                "--model.cell=lstm and --model.encoder=none"
            )
        if options.cell.startswith("conv") and options.encoder != "none":
            raise UsageError(
                f"--model.encoder={options.encoder} gives a vector for each frame, but "
                f"--model.cell={options.cell} wants pictures; use --model.cell=lstm"
            )
        return sequences.frames() if spatial else sequences.flat_frames()
    if spatial:
        raise UsageError(
            f"--model.cell={options.cell} and --model.encoder={options.encoder} read "
            "clips, but these are pictures; use --model.cell=lstm, --model.encoder=none"
        )
    h, w, _ = image_shape
    if options.order == "both" and h != w:
        raise UsageError(
            f"pictures are {h}x{w}, but --model.order=both reads rows and columns side "
            "by side and needs a square: add --data.size=32, or --model.order=rows"
        )
    if options.order == "patches":
        if h % options.patch or w % options.patch:
            raise UsageError(
                f"pictures are {h}x{w}, which --model.patch={options.patch} does not "
                "divide; choose another, or resize with --data.size"
            )
        return sequences.patches(options.patch)
    named = {"both": sequences.both_axes}
    return named.get(options.order, getattr(sequences, options.order, None))()


def _depth(options: Model) -> int | None:
    """Of the encoder that is a ResNet: 18 of "resnet18"."""
    name = options.encoder
    return int(name[6:]) if name.startswith("resnet") else None


def encoder(config: Config):
    """What single frames go through, a Flax module or None."""
    if depth := _depth(config.model):
        half = config.precision == "bfloat16"
        return ResNet(depth, dtype=jnp.bfloat16 if half else None)
    return FrameEncoder() if config.model.encoder == "cnn" else None


def model(config: Config, about: Facts):
    """The network of a run, a Flax module."""
    options = config.model
    dtype = jnp.bfloat16 if config.precision == "bfloat16" else None
    shared = dict(engine=options.engine, dtype=dtype)
    if options.kind == "reader":
        reading = order(options, tuple(about.image_shape))
        blank = jax.ShapeDtypeStruct((1, *about.image_shape), jnp.float32)
        steps = jax.eval_shape(reading.read, blank).shape[1]
        return SequenceClassifier(
            order=reading,
            cells=(cell(options, steps),) * options.layers,
            outputs=about.outputs,
            bidirectional=options.bidirectional,
            pooling=options.pooling,
            per_step=options.per_step,
            encoder=encoder(config),
            dropout=options.dropout,
            truncate=options.truncate,
            **shared,
        )
    shared |= dict(
        patch=options.patch, remat=None if options.remat == "none" else options.remat
    )
    frames, *_, channels = about.image_shape
    if options.kind == "encoder_forecaster":
        cells = (cell(options, frames),) * options.layers
        return EncoderForecaster(cells=cells, horizon=config.task.horizon, **shared)
    if options.kind == "stacked":
        inner = stack(*(cell(options, frames),) * options.layers)
    else:
        inner = st_lstm(
            options.features,
            (options.kernel,) * 2,
            layers=options.layers,
            decouple=options.kind == "predrnn_v2",
        )
    return FrameForecaster(
        cell=readout(inner, channels * options.patch**2, bias=False),
        inputs=frames - config.task.horizon,
        **shared,
    )


def apply_fn(config: Config, about: Facts):
    """`(params, uint8 pictures or clips [B, ...], keys=None) -> outputs`."""
    forward = forward_fn(config, about)
    return lambda params, inputs, keys=None: forward(params, dict(inputs=inputs), keys)[
        0
    ]


def forward_fn(config: Config, about: Facts):
    """`(params, batch, keys=None) -> (outputs, extra loss [B] or None)`.

    `batch` holds uint8 `inputs`, or features, and where there are any `lengths`.
    """
    network = model(config, about)
    offset = np.asarray(about.pixel_offset, np.float32)
    scale = np.asarray(about.pixel_scale, np.float32)
    given = about.image_shape[0] - config.task.horizon

    def forward(params: Any, batch: dict, keys: jax.Array | None = None):
        inputs = batch["inputs"].astype(jnp.float32)
        if config.model.kind == "reader":
            inputs, lengths = (inputs - offset) * scale, batch.get("lengths")
            options = dict(lengths=lengths, keys=keys)
            return network.apply({"params": params}, inputs, **options), None
        clips = inputs / 255
        if config.model.kind == "encoder_forecaster":
            return network.apply({"params": params}, clips[:, :given]), None
        sampling = None
        if keys is not None and config.task.feedback != "free":
            sampling = _sampling(config.task.feedback, batch["progress"][0])
        outputs, sown = network.apply(
            {"params": params}, clips, sampling=sampling, keys=keys, mutable=["losses"]
        )
        found = sown.get("losses", {}).get("decoupling")
        return outputs, None if found is None else config.task.decoupling * found[0]

    return forward


def _sampling(feedback: str, progress: jax.Array):
    """Odds that an own answer is read among the given frames, and the later ones.

    `progress` is the share of the run that is over. Reversed: Wang et al. 2021,
    eq. 9, whose three phases are here those of half a run.
    """
    late = jnp.clip(2 * progress, 0, 1)
    if feedback == "scheduled":
        return 0.0, late
    middle = jnp.clip(4 * progress - 1, 0, 1)  # of the second quarter
    early = jnp.where(progress < 0.5, 0.5 * jnp.exp(-5 * middle), 0)
    return early, 0.5 + 0.5 * middle


def augment(config: Config):
    """`(images [B, H, W, C], keys [B]) -> (images, mixup)`, for training pictures.

    `mixup` is None, or `(weights [B], partners [B])` of the pairs.
    """
    o, t = config.augment, training
    changes = [
        (t.shift, o.shift),
        (t.rotate, o.rotate),
        (t.crop, o.crop),
        (t.flip, o.flip),
        (t.cutout, o.cutout),
        (t.noise, o.noise),
    ]

    def change(images: jax.Array, keys: jax.Array):
        shape = images.shape
        if len(shape) == 5:  # all frames of a clip alike: as channels of one picture
            images = jnp.moveaxis(images, 1, 3).reshape(shape[0], *shape[2:4], -1)
            images, pairs = of_pictures(images, keys)
            images = images.reshape(shape[0], *shape[2:4], shape[1], shape[4])
            return jnp.moveaxis(images, 3, 1), pairs
        return of_pictures(images, keys)

    def of_pictures(images: jax.Array, keys: jax.Array):
        for number, (function, amount) in enumerate(changes):
            images = function(images, _fold(keys, number), amount)
        if not o.mixup:
            return images, None
        images, *pairs = t.mixup(images, _fold(keys, len(changes)), o.mixup)
        return images, pairs

    return change


def _fold(keys: jax.Array, number: int) -> jax.Array:
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def loss_fn(config: Config, about: Facts, goal: tasks.Task):
    """`(params, batch, keys [B]) -> ((loss, count), metrics)`, augmented."""
    change, forward = augment(config), forward_fn(config, about)
    ready, rates = _with_targets(config), _rates(config)

    def loss(params: Any, batch: dict, keys: jax.Array):
        params = training.freeze(params, rates)
        inputs, pairs = batch["inputs"], None
        if len(about.image_shape) > 2:
            inputs, pairs = change(inputs, _fold(keys, 0))
        batch = ready(batch | {"inputs": inputs})
        outputs, extra = forward(params, batch, _fold(keys, 1))
        metrics = goal.metrics(outputs, batch)
        if pairs is not None:
            weight, partner = pairs
            other, mask = batch["targets"][partner], batch["mask"]
            ours = goal.loss(outputs, batch | dict(mask=mask * weight))
            theirs = goal.loss(
                outputs, batch | dict(targets=other, mask=mask * (1 - weight))
            )
            return (ours[0] + theirs[0], ours[1] + theirs[1]), metrics
        total, count = goal.loss(outputs, batch)
        if extra is not None:
            total += (extra * batch["mask"]).sum()
        return (total, count), metrics

    return loss


def eval_fn(config: Config, about: Facts, goal: tasks.Task):
    """`(params, batch) -> (metrics, predictions)`."""
    forward, ready = forward_fn(config, about), _with_targets(config)

    def evaluate(params: Any, batch: dict):
        batch = ready(batch)
        outputs, _ = forward(params, batch)
        return goal.metrics(outputs, batch), goal.predict(outputs)

    return evaluate


def _with_targets(config: Config):
    """The batch with what is predicted as its targets: of a forecast, the clip."""
    if config.task.name == "forecasting":
        return lambda b: b | {"targets": b["inputs"].astype(jnp.float32) / 255}
    return lambda batch: batch


def judged(config: Config, split: data.Split, predictions: np.ndarray):
    """Predictions of a split, and what they are judged by; without what is unknown."""
    targets, lengths = split.targets, split.lengths
    if config.task.name == "forecasting":
        return predictions, split.inputs
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
        film = tasks.gif_bytes(clip[:-horizon], clip[-horizon:], predictions[0])
        record.write_bytes(directory / "forecast.gif", film)
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


def eval_size(config: Config, dataset: data.Dataset, devices: int) -> int:
    """Examples of an evaluation's batch: 500 pictures, or as many frames."""
    shape = dataset.image_shape
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
    if config.feed == "auto":
        return dataset.splits["train"].inputs.nbytes <= 512 * 2**20
    return config.feed == "resident"


def schedule(config: Config, steps: int) -> optax.Schedule:
    """The learning rate of a run of `steps`, its warm-up half of them at most."""
    o = config.optimizer
    warmup = 0 if o.schedule == "one_cycle" else o.warmup_steps  # it has its own
    return training.make_schedule(
        o.schedule,
        o.learning_rate,
        steps,
        warmup_steps=min(warmup, steps // 2),
        decay_rate=o.decay_rate,
        cycles=o.cycles,
    )


def optimizer(config: Config, rate: optax.Schedule) -> optax.GradientTransformation:
    """The update rule of a run."""
    o = config.optimizer
    return training.make_optimizer(
        o.name,
        rate,
        momentum=o.momentum,
        nesterov=o.nesterov,
        weight_decay=o.weight_decay,
        clip=o.clip or None,
        clip_by=o.clip_by,
        plateau=o.schedule == "plateau",
        rates=_rates(config),
        average=o.ema,
    )


def _rates(config: Config) -> dict[str, float]:
    """Factors of the learning rate by pattern; 0 where frozen."""
    rates = {}
    for part in filter(None, config.optimizer.rates.split(",")):
        pattern, _, factor = part.rpartition("=")
        try:
            rates[pattern] = float(factor)
        except ValueError:
            pattern = ""
        if not pattern or not 0 <= rates[pattern] < float("inf"):
            raise UsageError(
                f"optimizer.rates: {part!r} is no PATTERN=FACTOR, such as encoder=0.1"
            )
    if config.optimizer.freeze:
        rates[config.optimizer.freeze] = 0.0
    return rates


def observe(config: Config, goal: tasks.Task):
    """What lowers the learning rate after validations that are no better; or None."""
    if config.optimizer.schedule != "plateau":
        return None
    sign = -1 if goal.mode == "max" else 1
    options = dict(
        factor=config.optimizer.decay_rate,
        patience=config.optimizer.patience,
        min_delta=config.min_delta,
    )
    return lambda state, means: training.observe(
        state, sign * means.get(goal.monitor, float("nan")), **options
    )


def initializer(
    config: Config, about: Facts, *, pretrained: bool = False
) -> Callable[[jax.Array], Any]:
    """(key) -> initial params of the network.

    Args:
      config, about: as for `model`.
      pretrained: whether params that a file has come from there.
    """
    shape = about.image_shape
    if config.model.kind == "encoder_forecaster":
        shape = (shape[0] - config.task.horizon, *shape[1:])
    network = model(config, about)
    found = {}
    if pretrained and config.model.encoder_weights:
        weights = load_resnet(config.model.encoder_weights, _depth(config.model))
        found = {"encoder": weights}

    @jax.jit  # of the network's answers nothing is computed
    def init(key):
        return network.init(key, jnp.zeros((1, *shape), jnp.float32))["params"]

    return lambda key: init(key) | found


def init_params(
    config: Config, about: Facts, key: jax.Array, *, pretrained: bool = False
) -> Any:
    """Initial params of the network, as `initializer` has it."""
    return initializer(config, about, pretrained=pretrained)(key)
