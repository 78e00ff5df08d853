"""PNG files written byte by byte, of any depth, colour type and filter."""

import struct
import zlib

import numpy as np


def chunk(kind, data):
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png(pixels, bits, colour, before=b"", interlace=0, filters=(0,)):
    """A PNG of big-endian samples [H, W] or [H, W, samples], or of packed rows."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).astype(f">u{max(bits, 8) // 8}")
    rows = rows.view(np.uint8).reshape(height, -1)
    if bits < 8:
        digits = np.unpackbits(rows[..., None], axis=-1)[..., -bits:]
        rows = np.packbits(digits.reshape(height, -1), axis=-1)
    step = max(1, (rows.shape[1] * 8 // width) // 8)
    data, above = b"", np.zeros_like(rows[0])
    if interlace:
        passes = [
            (0, 0, 8, 8),
            (0, 4, 8, 8),
            (4, 0, 8, 4),
            (0, 2, 4, 4),
            (2, 0, 4, 2),
            (0, 1, 2, 2),
            (1, 0, 2, 1),
        ]
        whole = rows.reshape(height, width, -1)
        for y, x, dy, dx in passes:
            for row in whole[y::dy, x::dx]:
                data += (b"\0" + row.tobytes()) if row.size else b""
    else:
        for k, row in enumerate(rows):
            kind = filters[k % len(filters)]
            data += bytes([kind]) + filtered(kind, row, above, step).tobytes()
            above = row
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def filtered(kind, row, above, step):
    """PNG filters, section 9 of the specification, byte by byte."""
    out = np.zeros_like(row)
    for i, value in enumerate(row.astype(int)):
        a = int(row[i - step]) if i >= step else 0
        b, c = int(above[i]), int(above[i - step]) if i >= step else 0
        near = min((a, b, c), key=lambda n: abs(a + b - c - n))
        out[i] = (value - (0, a, b, (a + b) // 2, near)[kind]) % 256
    return out
