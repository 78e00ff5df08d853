"""From a configuration to a network: its cells, reading, params and answers."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.build import Facts, network_stages
from experiments.config import FINDERS, LINES, UsageError
from experiments.options import Config, Model
from experiments.reading import line_spec
from lstm_jax import (
    Cell,
    bottleneck_conv_lstm,
    conv_gru,
    conv_lstm,
    gru,
    initializers,
    lstm,
    readout,
    rnn,
    st_lstm,
    stack,
)
from lstm_jax.models import (
    BoxEmitter,
    DenseDetector,
    EncoderForecaster,
    FrameEncoder,
    FrameForecaster,
    Reader,
    ResNet,
    Segmenter,
    SequenceClassifier,
    crnn,
    load_resnet,
    sequences,
)
from lstm_jax.models.readers import masked, standardized

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
}
KERNEL_INITS = {
    "glorot": jax.nn.initializers.glorot_uniform,
    "he": jax.nn.initializers.he_normal,
    "lecun": jax.nn.initializers.lecun_normal,
}


def cell(options: Model, steps: int) -> Cell:
    """One layer's cell, for sequences of so many steps."""
    if options.init == "torch":
        inits = initializers.pytorch_defaults(options.features)
    else:
        inits = dict(
            kernel_init=KERNEL_INITS[options.init](),
            recurrent_init=getattr(initializers, options.recurrent_init)(),
        )
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
    named = {"both": sequences.rows_and_columns}
    return named.get(options.order, getattr(sequences, options.order, None))()


def encoder(config: Config):
    """What single frames go through, a Flax module or None."""
    if depth := config.model.resnet_depth:
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
        steps = jax.eval_shape(reading.to_sequence, blank).shape[1]
        return SequenceClassifier(
            order=reading,
            cells=(cell(options, steps),) * options.layers,
            outputs=about.outputs,
            bidirectional=options.bidirectional,
            pooling=options.pooling,
            per_step=options.per_step,
            encoder=encoder(config),
            dropout=options.dropout,
            tbptt_steps=options.tbptt_steps,
            **shared,
        )
    if config.task.name in FINDERS:
        return finder(config, about, **shared)
    if options.kind == "crnn":
        return crnn(about.outputs, **shared)
    if options.kind == "vgsl":
        return Reader(line_spec(config, about.outputs), **shared)
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
        cell=readout(inner, channels * options.patch**2, use_bias=False),
        inputs=frames - config.task.horizon,
        **shared,
    )


def finder(config: Config, about: Facts, **shared: Any):
    """A network that finds; feed-forward, one of as many parameters."""
    if not config.model.feedforward:
        return _finder(config, about, **shared)
    twin = dataclasses.replace(
        config, model=dataclasses.replace(config.model, feedforward=False)
    )
    wanted = _size(_finder(twin, about, **shared), about)
    width = 4
    while (
        _size(_finder(config, about, width=width + 1, **shared), about) <= wanted
    ):  # the largest that has not more
        width += 1
    return _finder(config, about, width=width, **shared)


def _size(network, about: Facts) -> int:
    blank = jax.ShapeDtypeStruct((1, *about.image_shape), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), blank)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _finder(config: Config, about: Facts, *, width: int = 0, **shared: Any):
    """With `width`, what is recurrent gives way to convolutions of that many."""
    options, outputs = config.model, len(about.classes)
    features, stages = options.features, network_stages(config)
    widths = tuple(max(features >> (2 - k), features // 4) for k in range(3))
    clips = len(about.image_shape) == 4
    if config.task.name == "segmentation":
        widths = widths[1:]  # the finest map is of patches of 2x2
        window = (options.kernel,) * 2
        memory = conv_lstm(features, window) if clips and not width else None
        parts: dict[str, Any] = {}
        if width:
            parts["bottom"] = (width,) * 2
        elif options.kind == "renet":
            parts["renet"] = (lstm(features // 2),) * options.layers
        else:
            parts["skips"] = tuple(conv_lstm(w // 2, window) for w in widths[:-1])
        return Segmenter(
            outputs=outputs,
            widths=widths,
            patch=2,
            memory=memory,
            **parts,
            **shared,
        )
    if options.kind == "emitter" and not width:
        return BoxEmitter(
            cell=lstm(features),
            outputs=outputs,
            steps=options.boxes,
            widths=widths,
            **shared,
        )
    return DenseDetector(
        outputs=outputs,
        widths=(*widths, features)[:stages],
        memory=None if width else bottleneck_conv_lstm(features),
        hidden=(width,) * 2 if width else (),
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
        if config.model.kind in ("reader", *LINES):
            lengths = batch.get("lengths")
            if config.data.normalize == "line":
                inputs = standardized(inputs, lengths)
            else:
                inputs = (inputs - offset) * scale
            if margin := config.model.margin:
                sides = ((0, 0), (0, 0), (margin, margin), (0, 0))
                inputs = jnp.pad(masked(inputs, lengths), sides)
                lengths = None if lengths is None else lengths + 2 * margin
            options = dict(lengths=lengths, keys=keys)
            return network.apply({"params": params}, inputs, **options), None
        if config.task.name in FINDERS:
            inputs = (inputs - offset) * scale
            return network.apply({"params": params}, inputs, keys=keys), None
        clips = inputs / 255
        if config.model.kind == "encoder_forecaster":
            clips = clips[:, :given]
            return network.apply({"params": params}, clips, keys=keys), None
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
        weights = load_resnet(config.model.encoder_weights, config.model.resnet_depth)
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
