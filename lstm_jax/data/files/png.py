"""Reads PNG files in bands of rows, in memory that does not depend on the height.

Pillow decodes a PNG as a whole, and drops the low bytes of 16-bit colours.

Reference: Portable Network Graphics (PNG) Specification, sections 5, 7, 9 and 11.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # per pixel, by colour type
_READ = 1 << 16  # bytes of compressed data that are read at once
_KEPT = (b"PLTE", b"tRNS")  # palette and transparency chunks


class PNG(NamedTuple):
    """Header of a PNG file.

    Attributes:
      width, height: pixels.
      bits: per sample, 1 to 16.
      colour: colour type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha.
      interlaced: whether rows are stored interlaced (Adam7).
      palette: the chunks PLTE and tRNS, as stored in the file.
    """

    width: int
    height: int
    bits: int
    colour: int
    interlaced: bool
    palette: bytes

    @property
    def samples(self) -> int:
        """Samples per pixel."""
        return _SAMPLES[self.colour]

    @property
    def row_bytes(self) -> int:
        """Bytes per row, without the filter type."""
        return (self.width * self.samples * self.bits + 7) // 8

    @property
    def deep_colour(self) -> bool:
        """Whether Pillow would drop the samples' low bytes, which `wide` keeps."""
        deep = self.bits == 16 and self.colour != 0
        return deep and not self.interlaced and not self.palette

    def wide(self, band: np.ndarray) -> np.ndarray:
        """Unfiltered bytes as 16-bit samples: uint16 [H, W, samples]."""
        shape = len(band), self.width, self.samples
        return np.ascontiguousarray(band).view(">u2").reshape(shape)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yields (type, size) of each chunk, with the file positioned at its data."""
    file.seek(len(_SIGNATURE))
    while len(head := file.read(8)) == 8:
        size, start = int.from_bytes(head[:4], "big"), file.tell()
        yield head[4:], size
        file.seek(start + size + 4)


def read_header(file: BinaryIO) -> PNG:
    """Reads the header of a PNG file that Pillow has opened without an error."""
    palette, header, position = b"", b"", file.tell()
    for kind, size in _chunks(file):
        if kind == b"IHDR":
            header = file.read(13)
        elif kind in _KEPT:
            palette += _chunk(kind, file.read(size))
        elif kind == b"IDAT":
            break
    file.seek(position)
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    return PNG(width, height, bits, colour, bool(interlaced), palette)


def png_exif(file: BinaryIO) -> Image.Exif:
    """Reads the EXIF data of a PNG file without decoding it; empty if it has none."""
    exif, position = Image.Exif(), file.tell()
    try:
        for kind, size in _chunks(file):
            if kind == b"eXIf":
                exif.load(b"Exif\x00\x00" + file.read(size))
                break
    finally:
        file.seek(position)
    return exif


def read_bands(file: BinaryIO, png: PNG, rows: int) -> Iterator[np.ndarray]:
    """Yields the unfiltered bytes of a PNG without interlacing, `rows` rows at a time.

    Yields:
      uint8 [rows or fewer, row_bytes].

    Raises:
      OSError: the file is truncated, or its compressed data is damaged.
    """
    stride, left = png.row_bytes + 1, png.height
    step = max(1, png.samples * png.bits // 8)  # bytes per pixel, for the filters
    above = np.zeros(png.row_bytes, np.uint8)
    inflate = _inflated(file)
    while left:
        count = min(rows, left)
        data = inflate(count * stride)
        filtered = np.frombuffer(data, np.uint8).reshape(count, stride)
        band = _unfiltered(filtered, above, step)
        yield band
        above, left = band[-1], left - count


def band_image(png: PNG, band: np.ndarray) -> Image.Image:
    """A band as an image, in the mode in which Pillow opens the file."""
    rows = np.zeros((len(band), png.row_bytes + 1), np.uint8)
    rows[:, 1:] = band
    return _decoded(png.width, rows, png.bits, png.colour, png.palette)


def _inflated(file: BinaryIO):
    """A function that returns the next n bytes of the decompressed image data."""
    engine, compressed, buffer = zlib.decompressobj(), _image_data(file), bytearray()

    def read(wanted: int) -> bytes:
        while len(buffer) < wanted:
            data = engine.unconsumed_tail or next(compressed, b"")
            if not data:
                raise OSError("image file is truncated")
            try:
                buffer.extend(engine.decompress(data, wanted - len(buffer)))
            except zlib.error as error:
                raise OSError("broken data stream") from error
            if engine.eof and len(buffer) < wanted:
                raise OSError("image file is truncated")
        data = bytes(memoryview(buffer)[:wanted])
        del buffer[:wanted]
        return data

    return read


def _image_data(file: BinaryIO) -> Iterator[bytes]:
    for kind, size in _chunks(file):
        while kind == b"IDAT" and size > 0:
            data = file.read(min(size, _READ))
            if not data:
                return
            position = file.tell()
            yield data
            file.seek(position)
            size -= len(data)


def _unfiltered(filtered: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    """Undoes the filters of rows, whose first byte is the filter type.

    A byte depends only on bytes at multiples of `step` from it. Each such set of bytes
    is therefore decoded by Pillow as a separate grey image, below the row `above`.
    """
    count, stride = filtered.shape
    out = np.empty((count, stride - 1), np.uint8)
    for first in range(step):
        plane = np.zeros((count + 1, len(range(first, stride - 1, step)) + 1), np.uint8)
        plane[0, 1:] = above[first::step]
        plane[1:, 0] = filtered[:, 0]
        plane[1:, 1:] = filtered[:, 1 + first :: step]
        image = _decoded(plane.shape[1] - 1, plane, bits=8, colour=0)
        out[:, first::step] = np.asarray(image)[1:]
    return out


def _decoded(
    width: int, rows: np.ndarray, bits: int, colour: int, palette: bytes = b""
) -> Image.Image:
    """The image that Pillow decodes from filtered rows."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    data = zlib.compress(rows.data, 0)
    parts = (
        _chunk(b"IHDR", header),
        palette,
        _chunk(b"IDAT", data),
        _chunk(b"IEND", b""),
    )
    image = Image.open(io.BytesIO(_SIGNATURE + b"".join(parts)))
    image.load()
    return image


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(data, zlib.crc32(kind))
    return len(data).to_bytes(4, "big") + kind + data + check.to_bytes(4, "big")
