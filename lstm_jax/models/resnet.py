"""ResNet for single frames, and conversion of PyTorch weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lstm_jax.interop.safetensors import read_safetensors

BLOCKS = {  # by depth: blocks in each of four stages, convolutions per block
    18: ((2, 2, 2, 2), 2),
    34: ((3, 4, 6, 3), 2),
    50: ((3, 4, 6, 3), 3),
}
# ImageNet statistics, pixels from 0 to 255, with which pretrained networks are trained.
PIXEL_MEAN = tuple(255 * mean for mean in (0.485, 0.456, 0.406))
PIXEL_STD = tuple(255 * std for std in (0.229, 0.224, 0.225))
_EPSILON = 1e-5  # of PyTorch's batch norm
_IGNORED = ("fc.", "num_batches_tracked")  # the classifier head; a counter


class Affine(nn.Module):
    """Batch norm with fixed statistics, folded into `scale x + offset`.

    Attributes:
      first: initial scale.
      dtype: of the computation.
    """

    first: float = 1.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.constant(self.first), x.shape[-1:])
        offset = self.param("offset", nn.initializers.zeros, x.shape[-1:])
        x, scale, offset = nn.dtypes.promote_dtype(x, scale, offset, dtype=self.dtype)
        return x * scale + offset


class ResNet(nn.Module):
    """ResNet-18, 34 or 50: maps a frame to a feature vector.

    A 7x7 convolution with stride 2, max-pooling, four stages of residual blocks, and
    the mean over space. The stride of a bottleneck is in its 3x3 convolution, as in
    torchvision and timm. Batch norm has fixed statistics, folded into an affine map.
    Initial weights have no statistics; each block starts as the identity (its last
    scale is 0).

    Attributes:
      depth: 18, 34 or 50.
      dtype: of the computation.
      pool: whether to take the mean over space; without, the output is the last map.

    Reference: He et al. 2016, Deep residual learning for image recognition.
    """

    depth: int = 18
    dtype: Any = None
    pool: bool = True

    @nn.compact
    def __call__(self, frames: jax.Array) -> jax.Array:
        """`[N, H, W, 3]`, or grey `[N, H, W, 1]`, to `[N, 512]`; 2,048 for depth 50.

        Without `pool`, to a map `[N, H / 32, W / 32, 512]`.

        Normalize frames: `(pixels - PIXEL_MEAN) / PIXEL_STD`.
        """
        stages, convolutions = BLOCKS[self.depth]
        x = jnp.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames
        x = nn.relu(self._norm("bn1")(self._conv("conv1", 64, 7, 2)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, blocks in enumerate(stages):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                name = f"layer{stage + 1}_{block}"
                x = self._block(name, x, 64 << stage, stride, convolutions)
        return x.mean((1, 2)) if self.pool else x

    def _block(self, name, x, width, stride, convolutions):
        out = 4 * width if convolutions == 3 else width
        shapes = [(width, 3, stride), (out, 3, 1)]
        if convolutions == 3:
            shapes = [(width, 1, 1), (width, 3, stride), (out, 1, 1)]
        y = x
        for k, shape in enumerate(shapes, start=1):
            y = self._conv(f"{name}_conv{k}", *shape)(y)
            y = self._norm(f"{name}_bn{k}", float(k < convolutions))(y)
            y = nn.relu(y) if k < convolutions else y
        if stride > 1 or x.shape[-1] != out:
            x = self._conv(f"{name}_downsample_0", out, 1, stride)(x)
            x = self._norm(f"{name}_downsample_1")(x)
        return nn.relu(x + y)

    def _conv(self, name, features, side, stride):
        return nn.Conv(
            features,
            (side, side),
            strides=stride,
            padding=side // 2,
            use_bias=False,
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
            dtype=self.dtype,
            name=name,
        )

    def _norm(self, name, first=1.0):
        return Affine(first, self.dtype, name=name)


def resnet_params(
    state: Mapping[str, np.ndarray], depth: int, name: str = "resnet_params"
) -> dict[str, dict[str, np.ndarray]]:
    """Converts PyTorch weights with torchvision's or timm's names to `ResNet` params.

    Kernels OIHW become HWIO; `bn.weight, bias, running_mean, running_var` become a
    scale and an offset. The classifier `fc` is ignored.

    Args:
      state: arrays by name, such as "layer1.0.conv1.weight".
      depth: 18, 34 or 50.
      name: of the source, such as the file, for errors.

    Returns:
      Params, float32.

    Raises:
      ValueError: an array is missing, has another shape or is not finite, or an array
        does not belong to this depth.
    """
    used: set[str] = set()

    def take(key: str, shape: tuple[int, ...]) -> np.ndarray:
        if key not in state:
            some = ", ".join(sorted(state)[:3]) or "none"
            raise ValueError(
                f"{name}: has no {key}, which ResNet-{depth} of torchvision or timm "
                f"has; its {len(state)} arrays: {some}{' ...' * (len(state) > 3)}"
            )
        array = np.asarray(state[key])
        if array.shape != shape:
            raise ValueError(
                f"{name}: {key} has shape {array.shape}; ResNet-{depth} wants {shape}"
            )
        used.add(key)
        array = array.astype(np.float64)
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: {key} holds NaN or infinite numbers")
        return array

    frame = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    wanted = jax.eval_shape(ResNet(depth).init, jax.random.key(0), frame)["params"]
    params: dict[str, dict[str, np.ndarray]] = {}
    for ours, leaves in wanted.items():
        theirs = ours.replace("_", ".")  # "layer1_0_conv1" -> "layer1.0.conv1"
        if "kernel" in leaves:
            height, width, inputs, outputs = leaves["kernel"].shape
            kernel = take(f"{theirs}.weight", (outputs, inputs, height, width))
            found = {"kernel": kernel.transpose(2, 3, 1, 0)}
        else:
            shape = leaves["scale"].shape
            parts = "weight", "bias", "running_mean", "running_var"
            weight, bias, mean, var = (take(f"{theirs}.{p}", shape) for p in parts)
            if (var < 0).any():
                raise ValueError(f"{name}: {theirs}.running_var is negative")
            scale = weight / np.sqrt(var + _EPSILON)
            found = {"scale": scale, "offset": bias - mean * scale}
        params[ours] = {leaf: a.astype(np.float32) for leaf, a in found.items()}
    other = [key for key in state if key not in used]
    other = [k for k in other if not k.startswith(_IGNORED[0]) and _IGNORED[1] not in k]
    if other:
        raise ValueError(
            f"{name}: ResNet-{depth} has no place for {min(other)} and "
            f"{len(other) - 1} more of its arrays; is it of another depth?"
        )
    return params


def load_resnet(path: str | Path, depth: int) -> dict[str, dict[str, np.ndarray]]:
    """`resnet_params` from a .safetensors file.

    Raises:
      ValueError: the file is missing, damaged, not a safetensors file or of another
        network; one line.
    """
    path = Path(path).expanduser()
    state = read_safetensors(path)
    return resnet_params(state, depth, str(path))
