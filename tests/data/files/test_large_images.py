"""Large images are reduced while they are decoded, in little memory."""

import json
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image
from png_files import chunk, png

from lstm_jax.data import DataError, read_image
from lstm_jax.data.files import decoding
from lstm_jax.data.files.images import decode_mask, probe
from lstm_jax.data.files.orientation import Geometry

SIDE = 13_300
MOST = 400 << 20  # bytes


@pytest.fixture
def all_large(monkeypatch):
    monkeypatch.setattr(decoding, "_LARGE", 0)
    monkeypatch.setattr(decoding, "_BAND", 4000)


def smooth(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [127 + 120 * np.sin(x / 37 + k) * np.cos(y / 23) for k in range(3)], -1
    ).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "jpg"])
@pytest.mark.parametrize("size", [(401, 283), (30, 20), (26, 18), (200, 600)])
def test_bands_are_reduced_as_pillow_reduces_a_whole_image(
    size, suffix, tmp_path, all_large
):
    pixels = smooth(401, 283)
    lossless = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(pixels).save(tmp_path / f"x.{suffix}", **lossless)
    with Image.open(tmp_path / f"x.{suffix}") as image:
        image.draft(None, (2 * size[1], 2 * size[0]))  # changes a JPEG only
        whole = image.resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=2)
    got = read_image(tmp_path / f"x.{suffix}", (*size, 3))
    np.testing.assert_array_equal(got, np.asarray(whole))


@pytest.mark.parametrize("suffix", ["png", "tiff", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_large_images_are_upright(orientation, suffix, tmp_path, all_large):
    pixels = smooth(120, 80)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif)
    geometry = Geometry((120, 80), orientation)
    want = geometry.pixels(pixels).astype(int)
    assert probe(path).size == want.shape[:2]
    got = read_image(path, want.shape)
    assert np.abs(got - want).max() <= (12 if suffix == "jpg" else 0)


def test_deep_samples_of_a_large_image_have_one_range(tmp_path, all_large):
    deep = np.full((50, 40), 700, np.uint16)
    deep[-1, -1] = 4095  # in the last band
    (tmp_path / "x.png").write_bytes(png(deep, 16, 0, filters=(1, 2, 3, 4)))
    got = read_image(tmp_path / "x.png", (50, 40, 1))
    assert got[0, 0, 0] == round(700 * 255 / 4095) and got[-1, -1, 0] == 255
    assert probe(tmp_path / "x.png").depth == 12


def test_one_large_image_at_a_time(tmp_path, all_large, monkeypatch):
    Image.fromarray(smooth(60, 40)).save(tmp_path / "x.png")
    inside, most = [], []
    bands = decoding._bands

    def counted(*args):
        inside.append(1)
        most.append(len(inside))
        yield from bands(*args)
        inside.pop()

    monkeypatch.setattr(decoding, "_bands", counted)
    read = lambda: read_image(tmp_path / "x.png", (8, 8, 3))  # noqa: E731
    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def enormous(path):
    """An RGB PNG of 13,300 x 13,300 pixels: white below, black in the upper half."""
    engine = zlib.compressobj(1)
    half = SIDE // 2
    black, white = bytes(1 + 3 * SIDE), b"\0" + b"\xff" * (3 * SIDE)
    data = [engine.compress(black if k < half else white) for k in range(SIDE)]
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", b"".join(data) + engine.flush())
        + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded_by_the_requested_size(tmp_path):
    path = enormous(tmp_path / "x.png")
    program = f"""
import json, re
from pathlib import Path
from lstm_jax.data import read_image
from lstm_jax.data.files.images import probe
head = probe(Path({str(path)!r}))
image = read_image({str(path)!r}, (28, 28, 3))
status = Path("/proc/self/status").read_text()  # of this process, not its parent
peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1]) * 1024
print(json.dumps([head.size, image[..., 0].mean(1).tolist(), peak]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    size, rows, peak = json.loads(ran.stdout)
    assert size == [SIDE, SIDE]
    assert rows[:13] == [0] * 13 and rows[15:] == [255] * 13
    assert peak < MOST


def test_a_mask_that_is_too_large_is_refused(tmp_path):
    head = struct.pack(">IIBBBBB", 10**4, 10**4, 8, 0, 0, 0, 0)
    (tmp_path / "x.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", bytes(9))
    )
    words = "it has 10,000x10,000 pixels; masks are read up to 64 megapixels: make it"
    with open(tmp_path / "x.png", "rb") as file, pytest.raises(DataError, match=words):
        decode_mask(file, None, "x.png")
