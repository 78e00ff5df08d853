"""`--model.kind=reader`: layers of cells over a picture or a clip, and an answer."""

from typing import Any

from experiments.errors import UsageError
from experiments.models.kind import CELL_OPTIONS, ModelKind, Network, shared


class Classifier(ModelKind):
    name = "reader"
    explains = True
    reads_lengths = True
    options = CELL_OPTIONS | {"model.encoder", "model.tbptt_steps"}

    def build(self, config, spec) -> Network:
        import jax
        import jax.numpy as jnp

        from experiments.models.cells import cell
        from lstm_jax.models import SequenceClassifier

        options, shape = config.model, tuple(spec.image_shape)
        order = order_of(options, shape)
        blank = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        steps = jax.eval_shape(order.to_sequence, blank).shape[1]
        module = SequenceClassifier(
            order=order,
            cells=(cell(options, steps),) * options.layers,
            outputs=spec.outputs,
            bidirectional=options.bidirectional,
            pooling=options.pooling,
            per_step=options.per_step,
            encoder=_encoder(config),
            dropout=options.dropout,
            tbptt_steps=options.tbptt_steps,
            **shared(config),
        )

        def call(params, inputs, batch, keys):
            options = dict(lengths=batch.get("lengths"), keys=keys)
            return module.apply({"params": params}, inputs, **options), None

        return Network(module, shape, call)

    def convolves(self, config) -> bool:
        return config.model.cell.startswith("conv")

    def pretrained(self, config) -> dict[str, Any]:
        from lstm_jax.models import load_resnet

        options = config.model
        if not options.encoder_weights:
            return {}
        return {"encoder": load_resnet(options.encoder_weights, options.resnet_depth)}


def order_of(options, shape: tuple[int, ...]):
    """How a picture, or a clip, becomes a sequence."""
    from lstm_jax.models import sequences

    spatial = options.cell.startswith("conv") or options.encoder != "none"
    if len(shape) != 3:
        if spatial and len(shape) == 2:
            raise UsageError(
                f"steps are vectors of {shape[-1]} features; use "
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
    h, w, _ = shape
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


def _encoder(config):
    """What single frames go through, a Flax module or None."""
    import jax.numpy as jnp

    from lstm_jax.models import FrameEncoder, ResNet

    if depth := config.model.resnet_depth:
        half = config.precision == "bfloat16"
        return ResNet(depth, dtype=jnp.bfloat16 if half else None)
    return FrameEncoder() if config.model.encoder == "cnn" else None


KIND = Classifier()
