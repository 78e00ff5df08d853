"""Networks that predict the frames after those of a clip."""

from abc import abstractmethod
from typing import Any

from experiments.models.kind import CELL_OPTIONS, ModelKind, Network, shared


class EncoderForecaster(ModelKind):
    """One stack of cells reads the given frames, another makes those that follow."""

    name = "encoder_forecaster"
    options = CELL_OPTIONS | {"model.remat"}

    def build(self, config, spec) -> Network:
        from experiments.models.cells import cell
        from lstm_jax import models

        options, (frames, *shape) = config.model, spec.image_shape
        given = frames - config.task.horizon
        module = models.EncoderForecaster(
            cells=(cell(options, frames),) * options.layers,
            horizon=config.task.horizon,
            **_patched(config),
        )

        def call(params, clips, batch, keys):
            return module.apply({"params": params}, clips[:, :given], keys=keys), None

        return Network(module, (given, *shape), call)

    def convolves(self, config) -> bool:
        return config.model.cell.startswith("conv")


class FrameForecaster(ModelKind):
    """Cells that read true frames where there are any, and their own after."""

    options = frozenset({"model.remat", "task.feedback"})

    @abstractmethod
    def cell(self, config, frames: int):
        """The cell that says the next frame's features."""

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
            if keys is not None and config.task.feedback != "free":
                sampling = _sampling(config.task.feedback, batch["progress"][0])
            outputs, sown = module.apply(
                {"params": params},
                clips,
                sampling=sampling,
                keys=keys,
                mutable=["losses"],
            )
            found = sown.get("losses", {}).get("decoupling")
            extra = None if found is None else config.task.decoupling * found[0]
            return outputs, extra

        return Network(module, tuple(spec.image_shape), call)


class Stacked(FrameForecaster):
    """Stacked convolutional cells."""

    name = "stacked"
    options = FrameForecaster.options | CELL_OPTIONS

    def cell(self, config, frames: int):
        from experiments.models.cells import cell
        from lstm_jax import stack

        return stack(*(cell(config.model, frames),) * config.model.layers)

    def convolves(self, config) -> bool:
        return config.model.cell.startswith("conv")


class PredRNN(FrameForecaster):
    """Spatiotemporal cells, whose memory climbs through the layers."""

    def __init__(self, name: str, decouple: bool):
        self.name, self.decouple = name, decouple

    def cell(self, config, frames: int):
        from lstm_jax import st_lstm

        return st_lstm(
            config.model.features,
            (config.model.kernel,) * 2,
            layers=config.model.layers,
            decouple=self.decouple,
        )


def _patched(config) -> dict[str, Any]:
    remat = None if config.model.remat == "none" else config.model.remat
    return shared(config) | dict(patch=config.model.patch, remat=remat)


def _sampling(feedback: str, progress):
    """Odds that an own answer is read among the given frames, and the later ones.

    `progress` is the share of the run that is over. Reversed: Wang et al. 2021,
    eq. 9, whose three phases are here those of half a run.
    """
    import jax.numpy as jnp

    late = jnp.clip(2 * progress, 0, 1)
    if feedback == "scheduled":
        return 0.0, late
    middle = jnp.clip(4 * progress - 1, 0, 1)  # of the second quarter
    early = jnp.where(progress < 0.5, 0.5 * jnp.exp(-5 * middle), 0)
    return early, 0.5 + 0.5 * middle


KINDS = (
    EncoderForecaster(),
    Stacked(),
    PredRNN("predrnn", decouple=False),
    PredRNN("predrnn_v2", decouple=True),
)
