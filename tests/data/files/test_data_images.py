"""Any image becomes uint8 [H, W, C]; what is none says so in one line."""

import io

import numpy as np
import pytest
from PIL import Image

from lstm_jax.data import DataError, image_paths, read_image
from lstm_jax.data.files.images import decode, probe


@pytest.fixture
def write(tmp_path):
    def _write(image, name="x.png", **kwargs):
        image.save(tmp_path / name, **kwargs)
        return tmp_path / name

    return _write


def test_grey_and_colour_keep_their_pixels(write):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    path = write(Image.fromarray(pixels))
    np.testing.assert_array_equal(read_image(path, (3, 4, 1))[..., 0], pixels)
    np.testing.assert_array_equal(
        read_image(path, (3, 4, 3)), np.repeat(pixels[..., None], 3, -1)
    )
    rgb = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    np.testing.assert_array_equal(
        read_image(write(Image.fromarray(rgb)), (3, 4, 3)), rgb
    )


def test_transparency_is_laid_on_white(write):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    out = read_image(write(image), (1, 2, 3))
    assert out.tolist() == [[[255, 255, 255], [10, 20, 30]]]
    grey = read_image(write(Image.new("LA", (1, 1), (0, 0))), (1, 1, 1))
    assert grey.item() == 255
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([9, 9, 9])
    out = read_image(write(palette, transparency=0), (1, 1, 3))
    assert out.ravel().tolist() == [255, 255, 255]


def test_palette_and_one_bit(write):
    palette = Image.new("P", (1, 1), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    out = read_image(write(palette), (1, 1, 3))
    assert out.ravel().tolist() == [200, 100, 50]
    assert read_image(write(Image.new("1", (1, 1), 1)), (1, 1, 1)).item() == 255


@pytest.mark.parametrize(
    ("wide", "depth", "grey"),
    [
        ([0, 257, 32896, 65535], None, [0, 1, 128, 255]),
        ([0, 2048, 1000, 4095], None, [0, 128, 62, 255]),  # 12 bits
        ([0, 3, 700, 1023], None, [0, 1, 174, 255]),  # 10 bits
        ([0, 16383, 8192, 64], None, [0, 255, 128, 1]),  # 14 bits
        ([0, 1, 128, 255], None, [0, 1, 128, 255]),  # 8 bits
        ([0, 1, 128, 255], 12, [0, 0, 8, 16]),  # as images beside it have
        ([0, 4095, 8000, 65535], 12, [0, 255, 255, 255]),
    ],
)
@pytest.mark.parametrize("name", ["x.png", "x.tiff"])
def test_sixteen_bits_are_scaled_by_the_range_that_is_used(
    write, name, wide, depth, grey
):
    path = write(Image.fromarray(np.reshape(wide, (1, 4)).astype(np.uint16)), name)
    assert read_image(path, (1, 4, 1), depth).ravel().tolist() == grey
    assert read_image(path, (1, 4, 3), depth)[..., 2].ravel().tolist() == grey


def test_exif_rotation_is_applied(write):
    image = Image.new("L", (4, 2), 0)
    image.paste(255, (0, 0, 1, 2))  # the left edge is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the left edge comes up
    path = write(image, exif=exif)
    assert probe(path)[:2] == ((4, 2), True)
    out = read_image(path, (4, 2, 1))[..., 0]
    assert out.tolist() == [[255, 255], [0, 0], [0, 0], [0, 0]]


def test_resizing_stretches_and_averages(write):
    image = Image.fromarray(np.array([[0, 0, 200, 200]] * 4, np.uint8))
    out = read_image(write(image), (2, 2, 1))[..., 0]
    assert (out[:, 0] < 60).all() and (out[:, 1] > 140).all()
    assert read_image(write(image), (7, 3, 3)).shape == (7, 3, 3)


def test_an_animation_gives_its_first_frame(write):
    frames = [Image.new("L", (2, 2), v) for v in (30, 200)]
    path = write(frames[0], "x.gif", save_all=True, append_images=frames[1:])
    assert (read_image(path, (2, 2, 1)) == 30).all()


def test_truncated_files_and_other_things(write, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    for name in ("x.png", "x.jpg"):
        path = write(Image.fromarray(noise), name)
        path.write_bytes(path.read_bytes()[:600])
        with pytest.raises(DataError, match=f"{name}: not a readable image") as caught:
            read_image(path, (4, 4, 1))
        assert "\n" not in str(caught.value)
    (tmp_path / "t.png").write_text("words")
    with pytest.raises(DataError, match="t.png: .*unknown file format, or a damaged"):
        read_image(tmp_path / "t.png", (4, 4, 1))
    with pytest.raises(DataError, match="gone.png: No such file or directory"):
        read_image(tmp_path / "gone.png", (4, 4, 1))
    with pytest.raises(DataError, match="Is a directory"):
        read_image(tmp_path, (4, 4, 1))
    assert probe(tmp_path / "t.png") is None


def test_floating_point_and_odd_channels_are_refused(write):
    path = write(Image.new("F", (2, 2), 0.5), "x.tiff")
    with pytest.raises(DataError, match="floating point; save it as 8 or 16 bit"):
        read_image(path, (2, 2, 1))
    with pytest.raises(DataError, match="1 or 3 channels; shape .* has 4"):
        decode(io.BytesIO(), (2, 2, 4), "x")


def test_image_paths_of_files_folders_and_tables(write, tmp_path):
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / ".hidden").mkdir()
    image = Image.new("L", (2, 2))
    for name in ("d/b.PNG", "d/a.jpg", "d/e/c.bmp", "d/.hidden/x.png", "one.png"):
        write(image, name)
    (tmp_path / "d" / "readme.txt").write_text("")
    inside = [tmp_path / "d" / n for n in ("a.jpg", "b.PNG", "e/c.bmp")]
    assert image_paths(tmp_path / "d") == inside
    (tmp_path / "t.csv").write_text("label,path\nx,one.png\ny,d/a.jpg\n")
    got = image_paths([tmp_path / "one.png", str(tmp_path / "d"), tmp_path / "t.csv"])
    one = tmp_path / "one.png"
    assert got == [one, *inside, one, tmp_path / "d" / "a.jpg"]


def test_image_paths_errors(tmp_path):
    with pytest.raises(DataError, match="gone: no such file or folder"):
        image_paths([tmp_path / "gone"])
    with pytest.raises(DataError, match="no image in this folder"):
        image_paths(str(tmp_path))
    (tmp_path / "t.csv").write_text("picture\nx.png\n")
    with pytest.raises(
        DataError, match="no column 'path'; its first line names 'picture'"
    ):
        image_paths(tmp_path / "t.csv")
