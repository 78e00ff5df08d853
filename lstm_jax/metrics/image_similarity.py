"""Similarity of frames: squared and absolute error, PSNR, SSIM."""

import functools
import math

import jax.numpy as jnp
import numpy as np

WINDOW, SIGMA = 11, 1.5  # pixels; Wang et al. 2004, section III-C
K1, K2 = 0.01, 0.03
BEST_PSNR = 100.0  # decibels, upper limit


def ssim(a, b):
    """Structural similarity (SSIM) of frames, 1 if they are equal.

    SSIM = (2 m_a m_b + C1) (2 s_ab + C2) / ((m_a^2 + m_b^2 + C1) (s_a^2 + s_b^2 + C2))
    with means m, variances s^2 and the covariance s_ab under a Gaussian window of
    11 x 11 pixels and sigma 1.5, C1 = 0.01^2 and C2 = 0.03^2 for pixels in [0, 1].
    Only windows entirely inside the frame count; the result is the mean over positions
    and channels. A frame smaller than 11 pixels uses the largest odd window that fits.

    Args:
      a: [..., H, W, C], pixels in [0, 1].
      b: the same, or a shape that broadcasts with it over the leading axes.

    Returns:
      [...], float32.

    Reference: Wang et al. 2004, Image Quality Assessment, equation 13. It equals what
    scikit-image computes with gaussian_weights=True, sigma=1.5, data_range=1.0 and
    use_sample_covariance=False.
    """
    a, b = (jnp.moveaxis(x.astype(jnp.float32), -1, -3) for x in (a, b))  # [..., C,H,W]
    height, width = a.shape[-2:]
    size = min(WINDOW, height, width)
    size -= 1 - size % 2
    rows, columns = _windows(height, size), _windows(width, size)

    def mean(x):  # [..., C, H, W] -> [..., C, W', H']
        x = jnp.matmul(x, columns, precision="highest")
        return jnp.matmul(x.swapaxes(-1, -2), rows, precision="highest")

    mean_a, mean_b = mean(a), mean(b)
    variance_a = mean(a * a) - mean_a * mean_a
    variance_b = mean(b * b) - mean_b * mean_b
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = K1**2, K2**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return jnp.mean(luminance * structure, (-3, -2, -1))


@functools.cache
def _windows(length, size):
    """[length, length - size + 1]: each column is the window at one position.

    Blurring by matrix products takes a twentieth of the time of two convolutions on CPU
    (64 frames of 64 x 64).
    CPU (64 frames of 64 x 64).
    """
    offsets = np.arange(size) - size // 2
    window = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    window /= window.sum()
    matrix = np.zeros((length, length - size + 1), np.float32)
    for k in range(matrix.shape[1]):
        matrix[k : k + size, k] = window
    return matrix


def frame_scores(predicted, true):
    """Errors and similarity of predicted frames [..., H, W, C], each [...].

    "mse" and "mae" are sums over a frame, "psnr" = 10 log10(1 / mean e^2) in decibels,
    at most 100, "ssim" as in `ssim`. Pixels are in [0, 1].
    """
    error = predicted - true
    pixels = math.prod(error.shape[-3:])
    square = jnp.sum(error * error, (-3, -2, -1))
    least = 10 ** (-BEST_PSNR / 10)
    return {
        "mse": square,
        "mae": jnp.sum(jnp.abs(error), (-3, -2, -1)),
        "psnr": -10 * jnp.log10(jnp.maximum(square / pixels, least)),
        "ssim": ssim(predicted, true),
    }
