"""Encoding of animated GIFs."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np


def encode_gif(frames: Sequence[Any], ms: int | Sequence[int] = 200) -> bytes:
    """Encodes frames as a looping animated GIF.

    Args:
      frames: uint8 [H, W, 3] each, quantized to 255 colours; or Pillow images with a
        palette, which is kept.
      ms: milliseconds of each frame, or of all; multiples of 10.
    """
    from PIL import Image

    images = [
        Image.fromarray(frame).quantize(255) if isinstance(frame, np.ndarray) else frame
        for frame in frames
    ]
    file = io.BytesIO()
    images[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=ms,
        loop=0,
        optimize=False,
        disposal=1,
    )
    return file.getvalue()
