"""Networks for video prediction."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from experiments.choices import Amount, Count
from experiments.models.cells import CellOptions, ConvLSTM, LayersOptions
from experiments.models.kind import ModelKind, Network, shared
from experiments.options import RecurrentOptions

Remat = Literal["none", "step", "sqrt"]
Sampling = Literal["none", "scheduled", "reverse"]


@dataclass(frozen=True)
class EncoderForecasterOptions(LayersOptions):
    """An encoder over the input frames and a decoder for the following ones."""

    name = "encoder_forecaster"
    cell: CellOptions = ConvLSTM()
    patch: Count = 4
    """Size of the patches that become channels, in pixels."""
    remat: Remat = "none"
    """Recompute activations in the backward pass to save memory."""


@dataclass(frozen=True)
class StackedOptions(EncoderForecasterOptions):
    """Stacked convolutional cells that predict the next frame, autoregressive."""

    name = "stacked"
    scheduled_sampling: Sampling = "none"
    """Scheduled sampling in training: feed back predictions with a probability that
    increases; reverse: also for input frames, with one that decreases."""


@dataclass(frozen=True)
class PredRNNOptions(RecurrentOptions):
    """PredRNN: ST-LSTM cells with a memory that passes through all layers."""

    name = "predrnn"
    features: Count = 128
    """Channels per layer."""
    layers: Count = 1
    """Number of layers."""
    kernel_size: Count = 3
    """Kernel size."""
    patch: Count = 4
    """Size of the patches that become channels, in pixels."""
    remat: Remat = "none"
    """Recompute activations in the backward pass to save memory."""
    scheduled_sampling: Sampling = "none"
    """Scheduled sampling in training: feed back predictions with a probability that
    increases; reverse: also for input frames, with one that decreases."""


@dataclass(frozen=True)
class PredRNNV2Options(PredRNNOptions):
    """PredRNN-V2: PredRNN with a decoupling loss."""

    name = "predrnn_v2"
    decoupling: Amount = 0.1
    """Weight of the decoupling loss."""


class EncoderForecaster(ModelKind):
    """An encoder over the input frames and a decoder for the following ones."""

    options = EncoderForecasterOptions

    def build(self, config, spec) -> Network:
        from lstm_jax import models

        options, (frames, *shape) = config.model, spec.image_shape
        given = frames - config.task.horizon
        module = models.EncoderForecaster(
            cells=options.cells(frames),
            horizon=config.task.horizon,
            **_patched(config),
        )

        def call(params, clips, batch, keys):
            return module.apply({"params": params}, clips[:, :given], keys=keys), None

        return Network(module, (given, *shape), call)

    def convolves(self, config) -> bool:
        return config.model.cell.convolves


class FrameForecaster(ModelKind):
    """A cell that predicts the next frame; its predictions follow the input frames."""

    @abstractmethod
    def cell(self, config, frames: int):
        """The cell, whose outputs are the features of the next frame."""

    def build(self, config, spec) -> Network:
        from lstm_jax import models, readout

        options, (frames, *_, channels) = config.model, spec.image_shape
        inner = self.cell(config, frames)
        module = models.FrameForecaster(
            cell=readout(inner, channels * options.patch**2, use_bias=False),
            inputs=frames - config.task.horizon,
            **_patched(config),
        )

        def call(params, clips, batch, keys):
            sampling = None
            how = config.model.scheduled_sampling
            if keys is not None and how != "none":
                sampling = _sampling(how, batch["progress"][0])
            outputs, sown = module.apply(
                {"params": params},
                clips,
                sampling=sampling,
                keys=keys,
                mutable=["losses"],
            )
            found = sown.get("losses", {}).get("decoupling")
            extra = None if found is None else config.model.decoupling * found[0]
            return outputs, extra

        return Network(module, tuple(spec.image_shape), call)


class Stacked(FrameForecaster):
    """Stacked convolutional cells."""

    options = StackedOptions

    def cell(self, config, frames: int):
        from lstm_jax import stack

        return stack(*config.model.cells(frames))

    def convolves(self, config) -> bool:
        return config.model.cell.convolves


class PredRNN(FrameForecaster):
    """ST-LSTM cells with a memory that passes through all layers."""

    options = PredRNNOptions
    decouples = False

    def cell(self, config, frames: int):
        from lstm_jax import st_lstm

        return st_lstm(
            config.model.features,
            (config.model.kernel_size,) * 2,
            layers=config.model.layers,
            decouple=self.decouples,
        )


class PredRNNV2(PredRNN):
    """PredRNN with a decoupling loss between its two memories."""

    options = PredRNNV2Options
    decouples = True


def _patched(config) -> dict[str, Any]:
    remat = None if config.model.remat == "none" else config.model.remat
    return shared(config) | dict(patch=config.model.patch, remat=remat)


def _sampling(how: str, progress):
    """Probabilities of feeding back a prediction, in scheduled sampling.

    Args:
      how: "scheduled" or "reverse".
      progress: completed fraction of the run.

    Returns:
      `(probability for input frames, probability for later frames)`.

    Reference: Wang et al. 2021, PredRNN, eq. 9, for "reverse". Departs: its three
    phases end at half of the run.
    """
    import jax.numpy as jnp

    late = jnp.clip(2 * progress, 0, 1)
    if how == "scheduled":
        return 0.0, late
    middle = jnp.clip(4 * progress - 1, 0, 1)  # of the second quarter
    early = jnp.where(progress < 0.5, 0.5 * jnp.exp(-5 * middle), 0)
    return early, 0.5 + 0.5 * middle


KINDS = (EncoderForecaster(), Stacked(), PredRNN(), PredRNNV2())
