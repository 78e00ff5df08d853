"""A convolution whose gradient is fast in loops, too."""

import contextlib
import contextvars
import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from lstm_jax.cell import at_least_float32
from lstm_jax.validation import is_count

_PLATFORM: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "platform", default=None
)


@contextlib.contextmanager
def traced_for(platform: str):
    """Context in which `convolve` is traced for "cpu", or for another platform.

    Otherwise it is traced for the default backend.
    """
    token = _PLATFORM.set(platform)
    try:
        yield
    finally:
        _PLATFORM.reset(token)


def convolve(x, w, stride, padding, dilation) -> jax.Array:
    """`[*B, *space, C]` by `[*k, C, D]`, any number of batch axes; at least float32.

    On CPU, XLA has a fast convolution for one order of axes. It transposes other
    orders, but not in loops; there the transposes that JAX derives take ten times as
    long. Therefore the tangent of `x` is the fast convolution, transposed once, and
    that of `w` a sum of matrix products, which are fast for any number of images. On
    other platforms both are the convolutions that JAX derives.
    """
    cpu = (_PLATFORM.get() or jax.default_backend()) == "cpu"
    rank = w.ndim - 2
    batch, image = x.shape[: -rank - 1], x.shape[-rank - 1 :]
    wide = at_least_float32(w.dtype)
    s = "DHW"[-rank:]

    def product(x, w, *axes):
        return lax.conv_general_dilated(
            x,
            w,
            stride,
            padding,
            rhs_dilation=dilation,
            dimension_numbers=axes,
            preferred_element_type=wide,
        )

    def shifted_products(x, w):
        """The convolution as one matrix product per position of the kernel."""
        kernel, space = w.shape[:rank], x.shape[1:-1]
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        pads = lax.padtype_to_pads(space, reach, stride, padding)
        x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
        out = [
            (n - r) // s + 1
            for n, r, s in zip(x.shape[1:-1], reach, stride, strict=True)
        ]
        y = 0
        for at in itertools.product(*map(range, kernel)):
            first = [i * d for i, d in zip(at, dilation, strict=True)]
            end = [
                f + (o - 1) * s + 1 for f, o, s in zip(first, out, stride, strict=True)
            ]
            seen = lax.slice(
                x, (0, *first, 0), (len(x), *end, x.shape[-1]), (1, *stride, 1)
            )
            y += seen.reshape(-1, x.shape[-1]) @ w[at]
        return y.reshape(len(x), *out, -1)

    @jax.custom_jvp
    def run(x, w):
        return product(x, w, f"N{s}C", f"{s}IO", f"N{s}C")

    @partial(run.defjvp, symbolic_zeros=True)
    def _(primals, tangents):
        # Operands as wide as the result: jax 0.7 cannot transpose others.
        x, w = (z.astype(wide) for z in primals)
        d_x, d_w = tangents
        d_y = 0
        if not isinstance(d_x, SymbolicZero):
            d_x, w = d_x.astype(wide), w.swapaxes(-1, -2)
            d_y += product(d_x, w, f"N{s}C", f"{s}OI", f"N{s}C")
        # On a mesh with explicit axes, JAX wants a batch in the same place throughout.
        sharded = any(jax.typeof(x).sharding.spec)
        if (sharded or not cpu) and not isinstance(d_w, SymbolicZero):
            d_y += product(x, d_w.astype(wide), f"N{s}C", f"{s}IO", f"N{s}C")
        elif not isinstance(d_w, SymbolicZero):
            # Recomputed when transposed, or each position would store its own x.
            d_y += jax.checkpoint(shifted_products)(x, d_w.astype(wide))
        return run(*primals), d_y

    y = run(x.reshape(math.prod(batch), *image), w)
    return y.reshape(*batch, *y.shape[1:])


def convolve_steps(xs, w, stride, padding, dilation) -> jax.Array:
    """`convolve` for inputs whose first axis may be time.

    Time becomes the last batch axis that the convolution merges: a batch keeps its
    sharding over devices only if it comes first.
    """
    last = max(xs.ndim - w.ndim, 0)  # of the batch axes
    ys = convolve(jnp.moveaxis(xs, 0, last), w, stride, padding, dilation)
    return jnp.moveaxis(ys, last, 0)


def check_kernel(caller: str, kernel_size: tuple[int, int]) -> None:
    """Raises ValueError unless a kernel is (height, width)."""
    pair = isinstance(kernel_size, tuple | list) and len(kernel_size) == 2
    if not pair or not all(map(is_count, kernel_size)):
        raise ValueError(
            f"{caller}: kernel_size={kernel_size!r}; pass (height, width), integers "
            ">= 1"
        )


def check_image(caller: str, feature_shape: tuple[int, ...]) -> None:
    """Raises ValueError unless a feature shape is that of an image."""
    if len(feature_shape) != 3 or 0 in feature_shape:
        raise ValueError(
            f"{caller}: feature_shape={tuple(feature_shape)}; pass (H, W, C), each >= 1"
        )
