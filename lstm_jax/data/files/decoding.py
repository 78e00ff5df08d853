"""Decodes image files to 8 bits, large ones in bands to bound the memory."""

import threading
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image

from lstm_jax.data.dataset import DataError
from lstm_jax.data.files.depth import (
    FULL,
    WIDE_MODES,
    depth_of,
    grey_pixels,
    highest_value,
    to_8_bits,
)
from lstm_jax.data.files.orientation import Geometry
from lstm_jax.data.files.placement import FITS, PAD, place_image
from lstm_jax.data.files.png import PNG, band_image, read_bands, read_header

JPEG = ("JPEG", "MPO")  # Pillow's names; MPO is what many phones write
_LARGE = 1 << 24  # pixels; larger images are decoded in bands, one image at a time
_WHOLE = 1 << 26  # pixels; the limit for formats that can only be decoded as a whole
_BAND = 1 << 22  # bytes of a decoded band
# A box filter first reduces large images, by _MOST_REDUCED at most and to _MARGIN times
# the final size at least; then they are resized bilinearly.
_MARGIN = 2
_MOST_REDUCED = 16
_DARK = 64  # if the largest 8-bit value is lower, at least 2 of 16 bits are unused
_ONE = threading.Lock()

# `_WHOLE` replaces Pillow's warning about large images; Pillow's error remains.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def is_large(image: Image.Image) -> bool:
    """Whether an opened image is decoded by `decode_large`."""
    return image.width * image.height > _LARGE


def is_grey_png(image: Image.Image) -> bool:
    """Whether an opened image is a grey PNG; Pillow opens some of these as RGBA."""
    png = _png(image)
    return bool(png) and png.colour in (0, 4)


def check_whole(image: Image.Image, what: str | None = None) -> None:
    """Raises DataError if an opened image is too large to be decoded as a whole.

    Args:
      image: the opened image.
      what: the kind of file, for the error, such as "masks"; None: from the format.
    """
    if image.width * image.height > _WHOLE:
        kind = {"PNG": "interlaced PNG", "JPEG": "progressive JPEG"}
        what = what or f"{kind.get(image.format, image.format)} files"
        plain = "" if "mask" in what else ", or save it as a plain PNG"
        raise DataError(
            f"it has {image.height:,}x{image.width:,} pixels; {what} are read up to "
            f"{_WHOLE >> 20} megapixels: make it smaller{plain}"
        )


def to_array(
    image: Image.Image, shape: tuple[int, int, int], fit: str = FITS[0]
) -> np.ndarray:
    """Places an 8-bit image, on a white background, on an array uint8 [H, W, C].

    Args:
      image: upright.
      shape: (H, W, C).
      fit: as in `place_image`.
    """
    placement = place_image(image.size[::-1], shape[:2], fit)
    image = _opaque(image, shape[-1])
    image = placement.image(image, Image.Resampling.BILINEAR, PAD)
    return np.asarray(image, np.uint8).reshape(shape)


def _opaque(image: Image.Image, channels: int) -> Image.Image:
    """The image on a white background, in mode L or RGB."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("L" if channels == 1 else "RGB")


def load_8_bits(image: Image.Image, depth: int | None) -> Image.Image:
    """Decodes an image to 8 bits per sample, without applying its EXIF orientation.

    Args:
      image: an opened image that is not loaded yet.
      depth: as in `read_image`.
    """
    png = _png(image)
    if png and png.deep_colour:
        (band,) = read_bands(image.fp, png, png.height)
        pixels = png.wide(band)
        return _narrow(pixels, depth or depth_of(int(pixels[..., :3].max())))
    raw = str(image.tile[0][3]) if image.tile else ""
    image.load()
    if "16" in raw and image.mode not in WIDE_MODES:
        colours = image.getextrema()
        if max(high for _, high in colours[:3]) < _DARK:
            raise DataError(
                "its 16-bit colours use less than 15 bits; save it as a plain PNG"
            )
    return _to_8_bits(image, depth)


def sample_depth(image: Image.Image) -> int | None:
    """The number of bits that an opened image's samples use; None for 8-bit samples."""
    png = _png(image)
    if png and png.bits == 16 and not png.interlaced:
        bands = read_bands(image.fp, png, _rows(png.row_bytes, 1))
        return depth_of(max(int(png.wide(band)[..., :3].max()) for band in bands))
    if image.mode not in WIDE_MODES:
        return None
    check_whole(image)
    return depth_of(highest_value(grey_pixels(image)))


def decode_large(
    image: Image.Image,
    geometry: Geometry,
    shape: tuple[int, int, int],
    depth: int | None,
    fit: str = FITS[0],
) -> np.ndarray:
    """Decodes a large opened image and reduces it to `shape`: uint8 [H, W, C].

    Only one image is decoded at a time, independent of the number of threads. Pixels
    differ from those of `to_array` by rounding and because the filters differ.
    """
    if image.format == "TIFF":
        geometry = Geometry(geometry.shown)  # Pillow applies the orientation itself
    *size, channels = shape
    placement = place_image(geometry.shown, size, fit)
    height, width = placement.resized
    source = placement.source  # it has the centre of the image, however that is turned
    if geometry.orientation >= 5:
        height, width, source = width, height, (*source[1::-1], *source[:1:-1])
    with _ONE:
        if depth is None:
            depth = sample_depth(image)
        if image.format in JPEG:
            if image.info.get("progressive"):
                check_whole(image)
            sides = np.subtract(source[2:], source[:2])  # of the part that is used
            wanted = _MARGIN * np.asarray((width, height)) * image.size / sides
            before = image.size
            image.draft(None, tuple(map(round, wanted)))
            source = np.multiply(source, np.tile(np.divide(image.size, before), 2))
        full_w, full_h = image.size
        x0, y0, x1, y1 = map(float, source)
        factors = _factor(x1 - x0, width), _factor(y1 - y0, height)
        reduced = [
            np.asarray(_opaque(band, channels).reduce(factors))
            for band in _bands(image, depth, _rows(4 * full_w, factors[1]))
        ]
        whole = Image.fromarray(np.concatenate(reduced))
        del reduced
        across, down = factors
        box = x0 / across, y0 / down, x1 / across, y1 / down
        if whole.size != (width, height) or box != (0, 0, *whole.size):
            whole = whole.resize((width, height), Image.Resampling.BILINEAR, box)
    pixels = geometry.pixels(np.asarray(whole, np.uint8))
    padded = placement.padded(pixels, PAD)
    return np.ascontiguousarray(pixels if padded is None else padded).reshape(shape)


def _bands(image: Image.Image, depth: int | None, rows: int) -> Iterator[Image.Image]:
    """Decodes an opened image to 8 bits in bands, from top to bottom."""
    png = _png(image)
    if png and not png.interlaced:
        for band in read_bands(image.fp, png, rows):
            if png.bits == 16:
                yield _narrow(png.wide(band), depth or FULL)
            else:
                yield band_image(png, band)
        return
    if image.format not in JPEG:
        check_whole(image)
    image.load()
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        yield _to_8_bits(band, depth)


def _factor(full: float, wanted: int) -> int:
    """The factor by which the box filter reduces a side."""
    return min(max(1, int(full) // (_MARGIN * wanted)), _MOST_REDUCED)


def _rows(row_bytes: int, factor: int) -> int:
    """The number of rows in a band, a multiple of the reduction factor."""
    return max(1, _BAND // row_bytes // factor) * factor


def _png(image: Image.Image) -> PNG | None:
    return read_header(image.fp) if image.format == "PNG" else None


def _to_8_bits(image: Image.Image, depth: int | None) -> Image.Image:
    if image.mode == "F":
        raise DataError("its pixels are floating point; save it as 8 or 16 bit")
    if image.mode not in WIDE_MODES:
        return image
    pixels = grey_pixels(image)
    highest = highest_value(pixels)
    return Image.fromarray(to_8_bits(pixels, depth or depth_of(highest)))


def _narrow(pixels: np.ndarray, depth: int) -> Image.Image:
    """An 8-bit image from 16-bit samples [H, W, 1 to 4]; alpha always uses 16 bits."""
    samples = pixels.shape[-1]
    narrow = to_8_bits(pixels, depth)
    if samples in (2, 4):
        narrow[..., -1] = to_8_bits(pixels[..., -1], FULL)
    return Image.fromarray(narrow[..., 0] if samples == 1 else narrow)
