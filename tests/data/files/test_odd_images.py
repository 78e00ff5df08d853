"""Odd image files: the exact pixels that are read of each, or the line that is said."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from png_files import chunk, png

from lstm_jax.data import DataError, load, read_image
from lstm_jax.data.files import decoding
from lstm_jax.data.files.images import probe

RAMP = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)  # 0, 10, ... 230
GREY = RAMP.tolist()
COLOURS = np.stack([RAMP, 255 - RAMP, RAMP // 2], -1)
LUMA = [[0.299, 0.587, 0.114]]  # of RGB, ITU-R 601
DEEP = RAMP.astype(np.uint16) * 257  # the same greys in 16 bits
TWELVE = np.round(RAMP * (4095 / 255)).astype(np.uint16)
COLOURS_16 = COLOURS.astype(np.uint16) * 257
COLOURS_12 = np.round(COLOURS * (4095 / 255)).astype(np.uint16)


def saved(image, kind, **options):
    """Bytes of a file that Pillow writes of an array or an image."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def palette(entries, indices, **options):
    image = Image.fromarray(np.asarray(indices, np.uint8), "P")
    image.putpalette([n for entry in entries for n in entry])
    return saved(image, "PNG", **options)


def bmp(pixels):
    return saved(pixels, "BMP")


def frames(kind, **options):
    """The ramp, and two further frames that are not read."""
    more = [Image.fromarray(255 - RAMP), Image.fromarray(RAMP // 3)]
    return saved(RAMP, kind, save_all=True, append_images=more, **options)


def tiff_deep_colour(values):
    """An uncompressed little-endian TIFF with three samples of 16 bits."""
    height, width, _ = values.shape
    data = values.astype("<u2").tobytes()
    where = 8 + 2 + 10 * 12 + 4
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, where),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, where + 6),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
        (284, 3, 1, 1),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + struct.pack("<HHH", 16, 16, 16) + data


def luma(colours):
    """Grey of colours as Pillow computes it, in 16-bit integers."""
    r, g, b = np.moveaxis(np.asarray(colours, np.int64), -1, 0)
    return ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).tolist()


RED, GREEN, BLUE = (255, 0, 0), (0, 128, 0), (0, 0, 64)
INDICES = [[0, 1, 2], [2, 1, 0]]
RGB = [[RED, GREEN, BLUE], [BLUE, GREEN, RED]]
BITS = (RAMP > 100).astype(np.uint8)
BLACK_WHITE = (255 * BITS).tolist()
ALPHA = np.where(RAMP > 100, 255, 0).astype(np.uint8)
ON_WHITE = np.where(RAMP > 100, RAMP, 255).tolist()
CLEAR = np.where((RAMP > 100)[..., None], COLOURS, 255).tolist()
FILTERS = (1, 2, 3, 4)
NARROW = RAMP // 16  # 0 to 14: four bits
CMYK = np.stack([RAMP, RAMP * 0, RAMP * 0, RAMP * 0], -1)

# By name: content, and the pixels that are read, [H][W] or [H][W][3].
READ = {
    "grey.png": (saved(RAMP, "PNG"), GREY),
    "grey-1-bit.png": (png(BITS, 1, 0), BLACK_WHITE),
    "grey-2-bits.png": (png(RAMP // 64, 2, 0), (RAMP // 64 * 85).tolist()),
    "grey-4-bits.png": (png(NARROW, 4, 0), (NARROW * 17).tolist()),
    "grey-16-bits.png": (png(DEEP, 16, 0), GREY),
    "grey-16-bits-filters.png": (png(DEEP, 16, 0, filters=FILTERS), GREY),
    "grey-12-of-16-bits.png": (png(TWELVE, 16, 0), GREY),
    "grey-8-of-16-bits.png": (png(RAMP.astype(np.uint16), 16, 0), GREY),
    "grey-alpha.png": (png(np.stack([RAMP, ALPHA], -1), 8, 4), ON_WHITE),
    "grey-alpha-16-bits.png": (
        png(np.stack([DEEP, ALPHA * np.uint16(257)], -1), 16, 4, filters=FILTERS),
        ON_WHITE,
    ),
    "grey-one-value-clear.png": (
        png(RAMP, 8, 0, chunk(b"tRNS", b"\0\x0a")),
        np.where(RAMP == 10, 255, RAMP).tolist(),
    ),
    "colour.png": (png(COLOURS, 8, 2, filters=FILTERS), COLOURS.tolist()),
    "colour-16-bits.png": (png(COLOURS_16, 16, 2), COLOURS.tolist()),
    "colour-16-bits-filters.png": (
        png(COLOURS_16, 16, 2, filters=FILTERS),
        COLOURS.tolist(),
    ),
    "colour-12-of-16-bits.png": (png(COLOURS_12, 16, 2), COLOURS.tolist()),
    "colour-alpha.png": (png(np.dstack([COLOURS, ALPHA]), 8, 6), CLEAR),
    "colour-alpha-16-bits.png": (
        png(np.dstack([COLOURS_16, ALPHA * np.uint16(257)]), 16, 6, filters=FILTERS),
        CLEAR,
    ),
    "interlaced.png": (png(RAMP, 8, 0, interlace=1), GREY),
    "interlaced-colour-16-bits.png": (
        png(COLOURS_16, 16, 2, interlace=1),
        COLOURS.tolist(),
    ),
    "palette.png": (palette([RED, GREEN, BLUE], INDICES), RGB),
    "palette-2-bits.png": (palette([RED, GREEN, BLUE], INDICES, bits=2), RGB),
    "palette-one-clear.png": (
        palette([RED, GREEN, BLUE], INDICES, transparency=1),
        [[RED, (255,) * 3, BLUE], [BLUE, (255,) * 3, RED]],
    ),
    "palette-half-clear.png": (
        palette([RED, GREEN, BLUE], INDICES, transparency=bytes([255, 0, 128])),
        [
            [RED, (255,) * 3, (127, 127, 159)],
            [(127, 127, 159), (255,) * 3, RED],
        ],
    ),
    "palette-of-greys.png": (palette([(9,) * 3, (99,) * 3], [[0, 1]]), [[9, 99]]),
    "animated.png": (frames("PNG"), GREY),
    "grey.jpg": (saved(np.full((8, 8), 77, np.uint8), "JPEG"), [[77] * 8] * 8),
    "progressive.jpg": (
        saved(np.full((8, 8), 77, np.uint8), "JPEG", progressive=True),
        [[77] * 8] * 8,
    ),
    "cmyk.jpg": (
        saved(Image.new("CMYK", (8, 8), (0, 0, 0, 155)), "JPEG", quality=100),
        [[[100] * 3] * 8] * 8,
    ),
    "grey.bmp": (saved(RAMP, "BMP"), GREY),
    "colour.bmp": (saved(COLOURS, "BMP"), COLOURS.tolist()),
    "one-bit.bmp": (
        saved(Image.fromarray(BITS * 255).convert("1"), "BMP"),
        BLACK_WHITE,
    ),
    "grey.gif": (saved(RAMP, "GIF"), GREY),
    "animated.gif": (frames("GIF"), GREY),
    "grey.webp": (saved(COLOURS, "WEBP", lossless=True), COLOURS.tolist()),
    "animated.webp": (
        saved(
            COLOURS,
            "WEBP",
            lossless=True,
            save_all=True,
            append_images=[Image.fromarray(255 - COLOURS)],
        ),
        COLOURS.tolist(),
    ),
    "grey.tiff": (saved(RAMP, "TIFF"), GREY),
    "one-bit-group4.tiff": (
        saved(Image.fromarray(BITS * 255).convert("1"), "TIFF", compression="group4"),
        BLACK_WHITE,
    ),
    "lzw.tiff": (saved(COLOURS, "TIFF", compression="tiff_lzw"), COLOURS.tolist()),
    "grey-16-bits.tiff": (saved(DEEP, "TIFF"), GREY),
    "grey-16-bits-big-endian.tiff": (
        saved(Image.frombytes("I;16B", (6, 4), DEEP.astype(">u2").tobytes()), "TIFF"),
        GREY,
    ),
    "grey-12-of-16-bits.tiff": (saved(TWELVE, "TIFF"), GREY),
    "grey-32-bits.tiff": (saved(DEEP.astype(np.int32), "TIFF"), GREY),
    "colour-16-bits.tiff": (tiff_deep_colour(COLOURS_16), COLOURS.tolist()),
    "cmyk.tiff": (
        saved(Image.fromarray(CMYK, "CMYK"), "TIFF"),
        np.stack([255 - RAMP, RAMP * 0 + 255, RAMP * 0 + 255], -1).tolist(),
    ),
    "three-pages.tiff": (frames("TIFF"), GREY),
    "grey.pgm": (saved(RAMP, "PPM"), GREY),
    "grey-of-100.pgm": (
        b"P5 2 1 100\n" + bytes([50, 100]),
        [[128, 255]],
    ),
    "grey-16-bits.pgm": (
        b"P5 6 4 65535\n" + DEEP.astype(">u2").tobytes(),
        GREY,
    ),
    "words.pgm": (b"P2\n2 1\n# a note\n255\n7 255\n", [[7, 255]]),
    "bits.pbm": (b"P1\n3 1\n1 0 1\n", [[0, 255, 0]]),
    "colour.ppm": (saved(COLOURS, "PPM"), COLOURS.tolist()),
    "no-suffix": (saved(RAMP, "PNG"), GREY),
    "jpeg-called.png": (
        saved(np.full((8, 8), 77, np.uint8), "JPEG"),
        [[77] * 8] * 8,
    ),
}


@pytest.mark.parametrize("name", READ)
def test_large_images_have_the_same_pixels(name, tmp_path, monkeypatch):
    """Any image is read as large ones are, in bands of one or two rows."""
    content, want = READ[name]
    (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(decoding, "_LARGE", 0)
    monkeypatch.setattr(decoding, "_BAND", 48)
    want = np.asarray(want)
    colour = want if want.ndim == 3 else np.repeat(want[..., None], 3, -1)
    np.testing.assert_array_equal(read_image(tmp_path / name, colour.shape), colour)


@pytest.mark.parametrize("name", READ)
def test_the_pixels_of_an_odd_file(name, tmp_path):
    content, want = READ[name]
    (tmp_path / name).write_bytes(content)
    want = np.asarray(want)
    colour = want if want.ndim == 3 else np.repeat(want[..., None], 3, -1)
    got = read_image(tmp_path / name, colour.shape)
    np.testing.assert_array_equal(got, colour)
    head = probe(tmp_path / name)
    assert head.size == want.shape[:2]
    if head.grey:
        got = read_image(tmp_path / name, (*want.shape[:2], 1))
        np.testing.assert_array_equal(got[..., 0], want)
    else:
        assert want.ndim == 3


GOOD = saved(RAMP, "PNG")
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)

# By name: content, and the line that is said.
REFUSED = {
    "empty.png": (b"", ""),
    "text.jpg": (b"no image", ""),
    "signature.png": (GOOD[:8], ""),
    "header.png": (GOOD[:33], ""),
    "half.png": (saved(NOISE, "PNG")[:2000], "truncated"),
    "half-16-bits.png": (
        png(np.dstack([NOISE] * 3).astype(np.uint16) * 257, 16, 2)[:2000],
        "image file is truncated",
    ),
    "damaged-16-bits.png": (
        png(COLOURS_16, 16, 2)[:50] + b"!!" + png(COLOURS_16, 16, 2)[52:],
        "broken data stream",
    ),
    "half.jpg": (saved(NOISE, "JPEG")[:900], "truncated"),
    "half.gif": (saved(NOISE, "GIF")[:1000], ""),
    "half.tiff": (saved(NOISE, "TIFF")[:1000], ""),
    "half.webp": (saved(NOISE, "WEBP", lossless=True)[:1000], ""),
    "half.ppm": (saved(NOISE, "PPM")[:1000], ""),
    "floats.tiff": (
        saved(RAMP.astype(np.float32), "TIFF"),
        "its pixels are floating point; save it as 8 or 16 bit",
    ),
    "negative.tiff": (
        saved(RAMP.astype(np.int32) - 5, "TIFF"),
        "its pixels go from -5 to 225; save it as 8 or 16 bit",
    ),
    "beyond-16-bits.tiff": (
        saved(RAMP.astype(np.int32) * 1000, "TIFF"),
        "its pixels go from 0 to 230,000; save it as 8 or 16 bit",
    ),
    "colour-12-of-16-bits.tiff": (
        tiff_deep_colour(COLOURS_12),
        "its 16-bit colours use less than 15 bits; save it as a plain PNG",
    ),
    "interlaced-colour-12-of-16-bits.png": (
        png(COLOURS_12, 16, 2, interlace=1),
        "its 16-bit colours use less than 15 bits; save it as a plain PNG",
    ),
    "enormous.png": (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 10**6, 10**6, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", b""),
        "exceeds limit of",
    ),
    "large-interlaced.png": (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 10**4, 10**4, 8, 0, 0, 0, 1))
        + chunk(b"IDAT", zlib.compress(bytes(100))),
        "interlaced PNG files are read up to 64 megapixels: make it smaller, or save",
    ),
    "large.bmp": (
        saved(RAMP, "BMP")[:18]
        + struct.pack("<ii", 10**4, 10**4)
        + saved(RAMP, "BMP")[26:],
        "it has 10,000x10,000 pixels; BMP files are read up to 64 megapixels",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_said_of_a_file_that_cannot_be_read(name, tmp_path):
    content, words = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_image(path, (4, 6, 3))
    said = str(error.value)
    assert said.startswith(f"{path}: not a readable image (") and words in said
    assert "\n" not in said and len(said) < len(str(path)) + 200
    probe(path)  # None, or the header: never an error


def test_there_are_more_than_forty():
    assert len(READ) + len(REFUSED) >= 60 and len(READ) >= 40


def folder(root, write):
    for label in "ab":
        (root / label).mkdir(parents=True)
        for k in range(6):
            write(root / label, k)
    return root


def test_pages_and_frames_that_are_not_read_are_said(tmp_path):
    def write(place, k):
        (place / f"{k}.tiff").write_bytes(frames("TIFF"))
        (place / f"{k}.webp").write_bytes(READ["animated.webp"][0])

    data = load(folder(tmp_path / "q", write), data_dir=tmp_path / "cache")
    first = tmp_path / "q" / "a" / "0.tiff"
    assert (
        f"24 files have several pages or frames, of which only the first is read: "
        f"{first} has 3" in data.notes
    )


def test_one_range_for_all_images_of_a_data_set(tmp_path):
    def write(place, k):
        values = np.full((2, 2), 100 * k, np.uint16)
        values[0, 0] = 4000 if place.name == "a" else 0
        Image.fromarray(values).save(place / f"{k}.png")

    data = load(folder(tmp_path / "q", write), data_dir=tmp_path / "cache")
    assert "images of 16 bits use 12 bits: scaled so that 4,095 is white" in data.notes
    assert data.depth == 12
    for split, part in data.splits.items():
        for name, image in zip(data.names[split], part.inputs, strict=True):
            k = int(name[2])
            assert image[1, 1, 0] == round(100 * k * 255 / 4095), name
