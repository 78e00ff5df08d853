"""Images of answers: what is painted, where, and what a file keeps."""

import ast
import inspect
import io

import numpy as np
import pytest
from PIL import Image

from lstm_jax import data, figures, metrics, tasks
from lstm_jax.figures import (
    encode_gif,
    encode_mask,
    encode_png,
    image_grid,
    image_rows,
    magnification,
    overlay_boxes,
    overlay_mask,
)
from lstm_jax.figures.roc_pr import detection_precision_recall
from lstm_jax.figures.visualization import bar_chart, class_color

SCALE = 4


def picture(seed=0, channels=3, shape=(6, 9)):
    rng = np.random.default_rng(seed)
    return rng.integers(40, 200, (*shape, channels)).astype(np.uint8)


def enlarged(image):
    return np.kron(image, np.ones((SCALE, SCALE, 1), np.uint8))


def box(x0, y0, x1, y1, score=1.0, label=0):
    return [x0, y0, x1, y1, score, label]


def opened(file):
    return Image.open(io.BytesIO(file))


@pytest.mark.parametrize("package", [data, figures, metrics, tasks])
def test_no_module_hides_a_public_name(package):
    nodes = ast.walk(ast.parse(inspect.getsource(package)))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in imports for alias in node.names]
    assert names and not [n for n in names if inspect.ismodule(getattr(package, n))]


def test_colours_of_classes_differ():
    assert len({class_color(k) for k in range(13)}) == 13
    assert (
        class_color(0) == (0, 0, 0)
        and class_color(13) == class_color(1)
        and class_color(24) == class_color(12)
    )
    assert all(sum(class_color(k)) > 0 for k in range(1, 256))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mask_is_painted_on_its_pixels_alone(channels):
    image = picture(channels=channels)
    mask = np.random.default_rng(1).choice([0, 1, 2, 20, 255], image.shape[:2])
    got = overlay_mask(image, mask.astype(np.uint8), SCALE)
    assert got.shape == (24, 36, 3) and got.dtype == np.uint8
    for y, x in np.ndindex(24, 36):
        seen = np.resize(image[y // SCALE, x // SCALE], 3).astype(float)
        label = int(mask[y // SCALE, x // SCALE])
        if label not in (0, 255):
            seen = np.rint(0.35 * seen + 0.65 * np.array(class_color(label)))
        np.testing.assert_array_equal(got[y, x], seen)


def test_boxes_are_drawn_on_their_edges():
    image = picture(shape=(20, 24))
    boxes = [box(3, 5, 15, 17, label=1), box(0, 0, 24, 20, score=0.49)]
    got = overlay_boxes(image, boxes, ("", ""), scale=SCALE)
    assert got.shape == (80, 96, 3) and got.dtype == np.uint8
    # corners exclude x1 and y1; lines are two pixels wide, and go inwards
    edge = np.zeros((80, 96), bool)
    edge[20:68, 12:60] = True
    edge[22:66, 14:58] = False
    np.testing.assert_array_equal(got[edge], np.broadcast_to(class_color(2), (368, 3)))
    np.testing.assert_array_equal(got[~edge], enlarged(image)[~edge])


def test_true_boxes_are_white_and_thin_and_empty_rows_are_none():
    image = picture(shape=(20, 24))
    truth = [[2, 3, 12, 13, 0, 0, 0], [14, 2, 22, 9, -1, 0, 0]]
    got = overlay_boxes(image, [], (), truth=truth, scale=SCALE)
    edge = np.zeros((80, 96), bool)
    edge[12:52, 8:48] = True
    edge[13:51, 9:47] = False
    assert (got[edge] == 255).all()
    np.testing.assert_array_equal(got[~edge], enlarged(image)[~edge])


@pytest.mark.parametrize("y0", [1, 8])
def test_a_name_is_written_at_its_box(y0):
    image = picture(shape=(20, 24))
    plain = overlay_boxes(image, [box(4, y0, 20, 19)], ("",), scale=SCALE)
    named = overlay_boxes(image, [box(4, y0, 20, 19)], ("cup",), scale=SCALE)
    rows, columns = np.nonzero((plain != named).any(-1))
    assert len(rows) > 10 and columns.min() >= 16
    if y0 == 8:  # above, where there is room
        assert 12 <= rows.min() and rows.max() == 31
    else:
        assert 4 <= rows.min() and rows.max() < 24


def test_a_label_has_name_and_score_within_the_picture_and_above_other_boxes():
    image = picture(shape=(20, 24))
    boxes = [box(20, 8, 24, 19, 0.75), box(15, 2, 23, 7, 0.9, label=1)]
    got = overlay_boxes(image, boxes[:1], ("cup",), scale=SCALE)
    other = overlay_boxes(image, [[*boxes[0][:4], 0.76, 0]], ("cup",), scale=SCALE)
    rows, columns = np.nonzero((got != other).any(-1))  # the score's last digit
    assert 0 < np.ptp(columns) < 10 and rows.max() < 32 and columns.max() < 96
    both = overlay_boxes(image, boxes, ("cup", ""), scale=SCALE)
    plate = (got != overlay_boxes(image, boxes[:1], ("",), scale=SCALE)).any(-1)
    assert plate.sum() > 400
    np.testing.assert_array_equal(both[plate], got[plate])


def test_a_mask_is_named_on_its_pixels_with_its_share():
    image, mask = picture(shape=(60, 90)), np.zeros((60, 90), np.uint8)
    mask[30:, 45:], mask[0, 0] = 1, 255
    plain = overlay_mask(image, mask, 4)
    named = overlay_mask(image, mask, 4, classes=("ground", "cup"))
    rows, columns = np.nonzero((plain != named).any(-1))
    assert len(rows) > 300 and 120 <= rows.min() and 180 <= columns.min()
    mask[30, 45:] = 0  # another share
    other = overlay_mask(image, mask, 4, classes=("ground", "cup"))
    assert (other[150:200] != named[150:200]).any()


@pytest.mark.parametrize(
    ("size", "times"), [((28, 28), 7), ((191, 900), 2), ((192, 192), 1), ((1, 1), 192)]
)
def test_small_images_are_magnified_so_that_labels_are_legible(size, times):
    assert magnification(size) == times


def test_labels_and_lines_grow_with_the_picture():
    white, boxes = np.full((1000, 1200, 3), 255, np.uint8), [box(300, 400, 900, 800)]
    got = overlay_boxes(white, boxes, ("cup",), scale=1)
    plain = overlay_boxes(white, boxes, ("",), scale=1)
    rows = np.nonzero((got != plain).any((1, 2)))[0]
    assert 25 <= np.ptp(rows) + 1 <= 40
    assert (plain[400:404, 600] != 255).any(-1).all()


def test_a_box_without_a_side_or_beyond_the_picture_can_be_drawn():
    image = picture()
    boxes = [box(2, 3, 2, 3), box(-3, -3, 40, 40), box(0, 0, 9, 6)]
    got = overlay_boxes(image, boxes, ("",), scale=SCALE)
    assert got.shape == (24, 36, 3)
    np.testing.assert_array_equal(got[0, 0], class_color(1))
    np.testing.assert_array_equal(got[-1, -1], class_color(1))
    np.testing.assert_array_equal(got[12, 8], class_color(1))


def test_masks_are_drawn_frame_by_frame():
    clip = np.stack([picture(k) for k in range(3)])
    masks = np.random.default_rng(2).integers(0, 3, (3, 6, 9)).astype(np.uint8)
    got = overlay_mask(clip, masks)
    assert got.shape == (3, 24, 36, 3)
    for t in range(3):
        np.testing.assert_array_equal(got[t], overlay_mask(clip[t], masks[t]))
        assert (got[t] != enlarged(clip[t])).any()


def test_boxes_are_drawn_frame_by_frame():
    clip = np.stack([picture(k, shape=(16, 24)) for k in range(3)])
    names = ("a", "b", "c")
    boxes = np.array([[box(k, 1, k + 4, 5)] for k in range(3)], float)
    truth = np.array([[[1, k + 8, 5, k + 12, 0, 0, 0]] for k in range(3)], float)
    got = overlay_boxes(clip, boxes, names, truth=truth)
    unknown = overlay_boxes(clip, boxes, names)
    assert got.shape == unknown.shape == (3, 64, 96, 3)
    for t in range(3):
        one = overlay_boxes(clip[t], boxes[t], names, truth=truth[t])
        np.testing.assert_array_equal(got[t], one)
        one = overlay_boxes(clip[t], boxes[t], names)
        np.testing.assert_array_equal(unknown[t], one)
        assert (got[t] != unknown[t]).any()


def test_files_keep_pixels_and_classes():
    image = picture()
    with opened(encode_png(image)) as found:
        assert found.format == "PNG"
        np.testing.assert_array_equal(np.asarray(found), image)
    mask = np.random.default_rng(3).integers(0, 256, (6, 9)).astype(np.uint8)
    with opened(encode_mask(mask)) as found:
        assert (found.format, found.mode, found.size) == ("PNG", "P", (9, 6))
        np.testing.assert_array_equal(np.asarray(found), mask)
        seen = np.asarray(found.convert("RGB"))
    for place in np.ndindex(6, 9):
        np.testing.assert_array_equal(seen[place], class_color(int(mask[place])))


def test_a_film_has_its_frames_and_a_duration():
    pages = np.stack([np.full((12, 20, 3), c, np.uint8) for c in (10, 90, 240)])
    pages[1, :6] = (230, 97, 1)
    with opened(encode_gif(pages, ms=120)) as found:
        assert (found.format, found.size, found.n_frames) == ("GIF", (20, 12), 3)
        assert found.info["loop"] == 0
        for t, page in enumerate(pages):
            found.seek(t)
            assert found.info["duration"] == 120
            seen = np.asarray(found.convert("RGB")).astype(int)
            # a palette of few colours is rounded a little
            assert np.abs(seen - page).max() <= 8


def test_a_sheet_shows_each_picture_under_its_caption():
    rows = [
        ("best", [(picture(0), "error 0.1"), (picture(1), "error $x$")]),
        ("worst", [(picture(2), "error 0.9")]),
    ]
    fig = image_rows(rows, title="Test answers")
    fig.canvas.draw()
    assert fig.get_suptitle() == "Test answers"
    shown = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title() for ax in shown][::2] == ["error 0.1", "error 0.9"]
    pictures = [image for _, row in rows for image, _ in row]
    for ax, image in zip(shown, pictures, strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), image)


def test_bars_and_curves_show_their_numbers():
    (ax,) = bar_chart({"cup": 0.25, "spoon": None}, "IoU").axes
    assert [bar.get_width() for bar in ax.patches] == [0.25, 0]
    assert [t.get_text() for t in ax.texts] == ["0.250", "does not occur"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["cup", "spoon"]
    curves = np.random.default_rng(5).random((10, 101))
    (ax,) = detection_precision_recall(curves).axes
    for line, at in zip(ax.lines, (0, 5, 8), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), curves[at])
        words = f"{curves[at].mean():.3f}  IoU {0.5 + 0.05 * at:.2f}"
        assert line.get_label() == words


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count, axes", [(1, 1), (7, 12)])
def test_a_sheet_shows_each_picture_under_its_words(count, axes, channels):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (count, 8, 5, channels), np.uint8)
    captions = [f"{k} $\nfor a very long name of a class" for k in range(count)]
    figure = image_grid(pictures, captions, title="worst")
    figure.canvas.draw()
    assert len(figure.axes) == axes
    for k, ax in enumerate(figure.axes[:count]):
        shown = ax.images[0].get_array()
        wanted = pictures[k] if channels == 3 else pictures[k][..., 0]
        np.testing.assert_array_equal(shown, wanted)
        assert ax.get_title() == f"{k} \\$\nfor a very long name of a…"
    assert not any(ax.images for ax in figure.axes[count:])
