"""A network that is not recurrent: the mean of what a layer makes of each patch."""

from dataclasses import dataclass

import flax.linen as nn
import jax

from experiments.choices import Count
from experiments.models.kind import ModelKind, Network
from experiments.options import ModelOptions


@dataclass(frozen=True)
class Options(ModelOptions):
    """The mean of what a layer makes of each patch."""

    name = "bag_of_patches"
    features: Count = 32
    side: Count = 4
    """Of a patch, pixels."""


class Bag(nn.Module):
    features: int
    side: int
    outputs: int

    @nn.compact
    def __call__(self, images, keys=None):
        window = (self.side, self.side)
        maps = nn.Conv(self.features, window, window, name="patches")(images)
        return nn.Dense(self.outputs, name="head")(jax.nn.relu(maps).mean((1, 2)))


class BagOfPatches(ModelKind):
    options = Options

    def build(self, config, spec) -> Network:
        options = config.model
        return Network.of(Bag(options.features, options.side, spec.outputs), spec)


KIND = BagOfPatches()
