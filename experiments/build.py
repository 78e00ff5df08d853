"""From a configuration to a model, a task and a data set; shared by all commands."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.config import Config, Model, UsageError
from lstm_jax import Cell, data, initializers, lstm, rnn, tasks, training
from lstm_jax.models import SequenceClassifier, sequences

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
    """The data set of a run, with noise below each picture where asked for."""
    options = config.data
    dataset = data.load(
        options.source,
        data_dir=options.dir,
        manual_dir=options.manual_dir,
        size=options.size,
        validation=options.validation,
        # A named set is split the same for all seeds.
        seed=config.seed if Path(options.source).expanduser().exists() else 0,
    )
    if not options.noise_rows:
        return dataset
    rng = np.random.default_rng(config.seed)

    def noisy(split: data.Split) -> data.Split:
        n, _, w, c = split.inputs.shape
        noise = rng.integers(0, 256, (n, options.noise_rows, w, c), np.uint8)
        return split._replace(inputs=np.concatenate([split.inputs, noise], axis=1))

    return dataset._replace(splits={k: noisy(s) for k, s in dataset.splits.items()})


def facts(config: Config, dataset: data.Dataset) -> Facts:
    """Measures on the training split what the model will need anywhere."""
    train = dataset.splits["train"]
    regression = config.task.name == "regression"
    if regression == bool(dataset.classes):
        kind = "classes" if dataset.classes else "numbers"
        other = "classification" if dataset.classes else "regression"
        raise UsageError(
            f"{dataset.name} has {kind} as targets, but the task is "
            f"{config.task.name}; use --task.name={other}"
        )
    offset, scale = data.normalization(train.inputs, config.data.normalize)
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


def task(config: Config, about: Facts) -> tasks.Task:
    """The loss, metrics and pictures of a run."""
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


def cell(options: Model) -> Cell:
    """One layer's cell."""
    if options.init == "torch":
        kernel = recurrent = bias = initializers.torch(options.features)
    else:
        kernel = getattr(initializers, options.init)()
        recurrent, bias = initializers.orthogonal(), initializers.zeros()
    inits = dict(kernel_init=kernel, recurrent_init=recurrent, bias_init=bias)
    if options.cell == "lstm":
        return lstm(options.features, forget_bias=options.forget_bias, **inits)
    return rnn(options.features, activation=ACTIVATIONS[options.activation], **inits)


def order(options: Model, image_shape: tuple[int, int, int]) -> sequences.Order:
    """How a picture becomes a sequence."""
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


def model(config: Config, about: Facts) -> SequenceClassifier:
    """The network of a run."""
    options = config.model
    one = cell(options)
    return SequenceClassifier(
        order=order(options, tuple(about.image_shape)),
        cells=(one,) * options.layers,
        outputs=about.outputs,
        bidirectional=options.bidirectional,
        pooling=options.pooling,
        dropout=options.dropout,
        engine=options.engine,
        dtype=jnp.bfloat16 if config.precision == "bfloat16" else None,
    )


def apply_fn(config: Config, about: Facts):
    """`(params, uint8 images [B, H, W, C], keys=None) -> outputs [B, K]`."""
    network = model(config, about)
    offset = np.asarray(about.pixel_offset, np.float32)
    scale = np.asarray(about.pixel_scale, np.float32)

    def apply(params: Any, images: jax.Array, keys: jax.Array | None = None):
        images = (images.astype(jnp.float32) - offset) * scale
        return network.apply({"params": params}, images, keys=keys)

    return apply


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
    change, apply = augment(config), apply_fn(config, about)

    def loss(params: Any, batch: dict, keys: jax.Array):
        images, pairs = change(batch["inputs"], _fold(keys, 0))
        outputs = apply(params, images, _fold(keys, 1))
        metrics = goal.metrics(outputs, batch)
        if pairs is None:
            return goal.loss(outputs, batch), metrics
        weight, partner = pairs
        other = batch["targets"][partner]
        ours = goal.loss(outputs, batch | dict(mask=batch["mask"] * weight))
        theirs = goal.loss(
            outputs, batch | dict(targets=other, mask=batch["mask"] * (1 - weight))
        )
        return (ours[0] + theirs[0], ours[1] + theirs[1]), metrics

    return loss


def eval_fn(config: Config, about: Facts, goal: tasks.Task):
    """`(params, batch) -> (metrics, predictions [B, K])`."""
    apply = apply_fn(config, about)

    def evaluate(params: Any, batch: dict):
        outputs = apply(params, batch["inputs"])
        return goal.metrics(outputs, batch), goal.predict(outputs)

    return evaluate


def resident(config: Config, dataset: data.Dataset) -> bool:
    """Whether the training pictures are kept on the devices."""
    if config.feed == "auto":
        return dataset.splits["train"].inputs.nbytes <= 512 * 2**20
    return config.feed == "resident"


def schedule(config: Config, steps: int) -> optax.Schedule:
    """The learning rate of a run of `steps`, its warm-up half of them at most."""
    o = config.optimizer
    return training.make_schedule(
        o.schedule,
        o.learning_rate,
        steps,
        warmup_steps=min(o.warmup_steps, steps // 2),
        decay_rate=o.decay_rate,
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
    )


def init_params(config: Config, about: Facts, key: jax.Array) -> Any:
    """Initial params of the network."""
    images = jnp.zeros((1, *about.image_shape), jnp.float32)
    return model(config, about).init(key, images)["params"]
