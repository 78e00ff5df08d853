"""The CRNN: convolutions, two bidirectional LSTMs, and CTC over the steps."""

from typing import Any

import flax.linen as nn
import jax

from lstm_jax.models.blocks import MaskedGroupNorm, mask_to_blank, masked, widened
from lstm_jax.models.vgsl import Spec, parse
from lstm_jax.models.vgsl_layers import Conv, Pool, size
from lstm_jax.models.vgsl_net import LineRNN, convolution, letters

SHAPE = (
    "[1,32,0,1 Cr3,3,64 Mp2,2 Cr3,3,128 Mp2,2 Cr3,3,256 Cr3,3,256 Mp2,1 Cr3,3,512 "
    "Cr3,3,512 Mp2,1 Cr2,2,512 Lbx256 Cl1,1,256 Lbx256 Cl1,1,256 O1c{}]"
)


class CRNN(nn.Module):
    """The convolutional recurrent neural network (CRNN) for text recognition.

    Seven convolutions turn an image of height 32 into a sequence of W // 4 - 1 vectors
    of 512; two bidirectional LSTMs of 256, each followed by a linear layer of 256,
    process it; a linear layer computes the logits.

    Attributes:
      classes: K, including the blank at index 0.
      engine, dtype: as in `unroll`; the outputs are float32 or wider.

    Reference: Shi, Bai & Yao 2015, table 1, with a linear layer after each LSTM as in
    Baek et al. 2019 (8,451,621 params for 37 classes). Departs: the two convolutions
    without a bias are followed by group norm with 32 groups instead of batch norm, so
    that predictions depend neither on other lines of the batch nor on padding.
    """

    classes: int
    engine: str = "auto"
    dtype: Any = None

    @property
    def spec(self) -> Spec:
        """The layers as a VGSL spec; `spec.steps(W)` is T."""
        return parse(SHAPE.format(self.classes))

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        lengths: jax.Array | None = None,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        """`[B, 32, W, 1] -> [B, T, K]`; arguments and logits as in `VGSLNet`.

        `keys` is accepted but not used: there is no dropout.
        """
        if images.ndim != 4 or images.shape[1::2] != (32, 1):
            raise ValueError(
                f"CRNN: images have shape {images.shape}, expected [B, 32, W, 1]"
            )
        x = masked(images, lengths)
        convolutions = 0
        for number, layer in enumerate(self.spec.layers):
            name = f"{letters(layer)}_{number}"
            after = None if lengths is None else size(layer, 1, lengths)
            if isinstance(layer, Conv) and layer.activation == "r":
                convolutions += 1
                normed = convolutions in (5, 6)
                x = convolution(layer, self.dtype, name, bias=not normed)(x)
                if normed:
                    x = MaskedGroupNorm(32, name=f"Gn_{number}")(
                        masked(x, after), after
                    )
                x = nn.relu(x)
            elif isinstance(layer, Conv):
                x = nn.Dense(layer.features, dtype=self.dtype, name=name)(x)
            elif isinstance(layer, Pool):
                x = nn.max_pool(x, layer.window, layer.stride)
            else:
                lines = LineRNN(layer, self.engine, self.dtype, True, name=name)
                x = lines(x, lengths)
            lengths, x = after, masked(x, after)
        x = nn.Dense(self.classes, name="output")(widened(x[:, 0]))
        return x if lengths is None else mask_to_blank(x, lengths)


def crnn(classes: int, **options: Any) -> CRNN:
    """The `CRNN` of Shi et al. 2015 for K classes, including the blank.

    Raises:
      ValueError: fewer than two classes.
    """
    if classes < 2:
        raise ValueError(
            f"crnn: classes={classes}; expected the blank and one character or more"
        )
    return CRNN(classes, **options)
