"""Image or clip → boxes, predicted sequentially or for every location of a map."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.cell import Cell, project_step
from lstm_jax.models.blocks import ConvBlock, across_frames, conv
from lstm_jax.models.keys import example_keys
from lstm_jax.randomness import is_stochastic
from lstm_jax.unroll import unroll

RARE = -2.0  # initial existence logit of a location: most locations have no object


class ConvBackbone(nn.Module):
    """Stages of convolutions, each at half the resolution of the one before.

    Attributes:
      widths: channels of the stages; the resolution is halved between stages.
      dtype: of the computation.
    """

    widths: tuple[int, ...]
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C] -> [N, h, w, widths[-1]]`."""
        for stage, width in enumerate(self.widths):
            if stage:
                x = nn.max_pool(x, (2, 2), strides=(2, 2), padding="SAME")
            number = 2 if stage == len(self.widths) - 1 else 1
            x = ConvBlock(width, number, self.dtype, name=f"stage_{stage}")(x)
        return x


class RecurrentDetector(nn.Module):
    """An LSTM that predicts boxes one after another, each after a glimpse of a map.

      a_t = softmax(s + keys q(h_tm1) - 10 c sum_{r < t} a_r)       over the locations
      h_t, carry = cell(sum a_t [map; locations], carry)
      box_t = mean location under a_t + offset, and a size;  e_t, classes: linear in h_t

    s, the salience of a location, and c, the coverage of a glimpse, are learned.

    Attributes:
      cell: the LSTM.
      outputs: K, number of classes.
      steps: Q, number of boxes; those after a stop are ignored.
      widths: of the `ConvBackbone` that computes the map.
      engine: as in `unroll`.
      dtype: of the convolutions; the rest is float32.

    Reference: Stewart et al. 2016, End-to-End People Detection in Crowded Scenes,
    section 2; attention: Xu et al. 2015, Show, Attend and Tell, eq. 4 to 8; coverage:
    Tu et al. 2016, Modeling Coverage. Departs: Stewart et al. predict from each
    location of the map, without attention.
    """

    cell: Cell
    outputs: int
    steps: int
    widths: tuple[int, ...]
    engine: str = "auto"
    dtype: Any = None

    @nn.compact
    def __call__(
        self, images: jax.Array, *, keys: jax.Array | None = None
    ) -> jax.Array:
        """`[B, H, W, C] -> [B, Q, 5 + K]`: corners as fractions, e, class logits.

        The cell's randomness uses `keys [B]`, or `rngs={"dropout": key}`.
        """
        x = ConvBackbone(self.widths, self.dtype, name="pyramid")(images)
        x = x.astype(jnp.float32)
        b, h, w, width = x.shape
        locations = jnp.broadcast_to(_locations(h, w), (b, h * w, 2))
        x = jnp.concatenate([x.reshape(b, h * w, width), locations], axis=-1)
        consts = {
            "map": x,
            "salience": nn.Dense(1, name="salience")(x)[..., 0],  # [B, h w]
            "keys": nn.Dense(width, name="keys")(x),
        }
        query, head = nn.Dense(width, name="query"), nn.Dense(5 + self.outputs)
        query(jnp.zeros((1, width)))  # makes its params
        params = {
            "cell": self.param("cell", self.cell.init, (width + 2,)),
            "query": query.variables["params"],
            "coverage": self.param("coverage", nn.initializers.ones, ()),
        }
        glimpse_cell = _glimpse_cell(self.cell, width, h * w)
        options = dict(length=self.steps, engine=self.engine)
        emit = partial(unroll, glimpse_cell, params, None, **options)
        keys = example_keys(self, keys, b)
        if keys is not None and is_stochastic(self.cell, params["cell"], (width + 2,)):
            one = jax.vmap(lambda key, consts: emit(key=key, consts=consts).ys)
            ys = one(keys, consts)  # [B, Q, D + F]
        else:
            carry = glimpse_cell.carry(params, (b,), (), jnp.float32)
            ys = emit(carry, consts=consts).ys.swapaxes(0, 1)
        outputs, glimpse = head(ys), ys[..., width:]  # [B, Q, 5 + K], [B, Q, F]
        centre = glimpse[..., -2:] + 0.2 * jnp.tanh(outputs[..., :2])
        return _with_corners(centre, outputs[..., 2:4], outputs[..., 4:])


class _GlimpseCarry(NamedTuple):
    """State of an LSTM with attention over a map.

    Attributes:
      cell: the LSTM's carry.
      h: `[B, D]`, its last output.
      seen: `[B, h w]`, coverage: accumulated attention of each location.
    """

    cell: Any
    h: jax.Array
    seen: jax.Array


def _glimpse_cell(cell: Cell, width: int, locations: int) -> Cell:
    """`cell` with attention as its input; the map is a loop constant.

    Outputs are `[h_t; glimpse]`, `[*B, D + F]`.

    Args:
      cell: with D = `width` outputs and F = `width` + 2 input features.
      width: channels of the map.
      locations: number of locations of the map, h w.
    """

    def carry(params, batch_shape, feature_shape, dtype=jnp.float32, *, key=None):
        state = cell.carry(params["cell"], batch_shape, (width + 2,), dtype, key=key)
        h, seen = (
            jnp.zeros((*batch_shape, n), jnp.float32) for n in (width, locations)
        )
        return _GlimpseCarry(state, h, seen)

    def project(params, xs, *, keys=None):
        return () if keys is None else keys  # one per step, for its glimpse

    def recur(params, carry):
        return cell.recur(params["cell"], carry.cell)

    def gates(params, carry, u, a, *, consts):
        query = params["query"]
        asked = carry.h @ query["kernel"] + query["bias"]
        asked = jnp.einsum("...pf,...f->...p", consts["keys"], asked)
        asked = asked / np.sqrt(query["kernel"].shape[-1])
        taken = 10 * params["coverage"] * carry.seen
        at = jax.nn.softmax(consts["salience"] + asked - taken)
        glimpse = jnp.einsum("...p,...pf->...f", at, consts["map"])
        u = project_step(cell, params["cell"], glimpse, u or None)
        new, h = cell.gates(params["cell"], carry.cell, u, a)
        out = jnp.concatenate([h, glimpse], axis=-1)
        return _GlimpseCarry(new, h, carry.seen + at), out

    def init(key, feature_shape, dtype=jnp.float32):
        raise NotImplementedError("RecurrentDetector makes these params")

    return Cell(init, carry, project, recur, gates)


class DenseDetector(nn.Module):
    """Predicts a box at every location of a map; for clips with a recurrent cell.

    Attributes:
      outputs: K, number of classes.
      widths: of the `ConvBackbone`, whose last map defines the locations.
      recurrent_cell: over images, such as `bottleneck_conv_lstm`; None: frames are
        independent.
      hidden: widths of convolutions before the head, instead of a recurrent cell.
      engine, dtype: as in `unroll`; the head is float32.

    Reference: Liu & Zhu 2018, Mobile Video Object Detection with Temporally-Aware
    Feature Maps. Departs: they have anchors of several shapes on several maps.
    """

    outputs: int
    widths: tuple[int, ...]
    recurrent_cell: Cell | None = None
    hidden: tuple[int, ...] = ()
    engine: str = "auto"
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        """Predictions for all locations, row by row.

        Args:
          images: `[B, H, W, C]`, or clips `[B, T, H, W, C]`.
          keys: `[B]`, as in `SequenceClassifier`.

        Returns:
          `[B, h w, 5 + K]` or `[B, T, h w, 5 + K]`: corners as fractions of the image,
          e, class logits.
        """
        batch = images.shape[:-3]
        x = images.reshape(-1, *images.shape[-3:])
        x = ConvBackbone(self.widths, self.dtype, name="pyramid")(x)
        if self.recurrent_cell is not None and len(batch) == 2:
            params = self.param("recurrent_cell", self.recurrent_cell.init, x.shape[1:])
            keys = example_keys(self, keys, batch[0])
            options = dict(engine=self.engine, dtype=self.dtype, key=keys)
            ys = across_frames(self.recurrent_cell, params, x, batch, **options)
            # Concatenate the frame's own features, as in their [h; b].
            x = jnp.concatenate([x.astype(ys.dtype), ys], axis=-1)
        for layer, width in enumerate(self.hidden):
            x = ConvBlock(width, 1, self.dtype, name=f"hidden_{layer}")(x)
        x = x.astype(jnp.float32)
        outputs = conv(5 + self.outputs, (3, 3), name="head")(x)
        n, h, w, _ = outputs.shape
        outputs = outputs.reshape(n, h * w, -1)
        centre = _locations(h, w) + outputs[..., :2] / np.asarray([w, h], np.float32)
        rest = outputs[..., 4:].at[..., 0].add(RARE)
        out = _with_corners(centre, outputs[..., 2:4], rest)
        return out.reshape(*batch, *out.shape[1:])


def _locations(h: int, w: int) -> np.ndarray:
    """Centres (x, y) of the map's locations, row by row, as fractions, float32."""
    y, x = np.meshgrid(
        (np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij"
    )
    return np.stack([x, y], -1).reshape(-1, 2).astype(np.float32)


def _with_corners(centre, size, rest):
    """`[..., 2], [..., 2], [..., R] -> [..., 4 + R]`; size 0 means a quarter."""
    half = 0.5 * jax.nn.sigmoid(size - 1.1)
    return jnp.concatenate([centre - half, centre + half, rest], axis=-1)
