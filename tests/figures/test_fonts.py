"""Characters of any script are drawn by an installed font, or are named as missing."""

import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from lstm_jax.figures import fonts, image_grid, overlay_boxes
from lstm_jax.figures.style import COLORS, INK, contrast, figure, for_text, text_color
from lstm_jax.tasks import classification

CAT, DOG = "\u732b", "\u72ac"  # 猫, 犬
NONE = "\u0378"  # never assigned


@pytest.fixture
def cat_font(tmp_path, monkeypatch):
    """A font that has 猫 alone, a square of the whole height, as the only other one."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({ord(CAT): "cat"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Cat Only", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = str(tmp_path / "cat.ttf")
    builder.save(path)
    manager = font_manager.fontManager
    before = list(manager.ttflist)
    manager.addfont(path)
    monkeypatch.setattr(fonts, "_installed", lambda: (("Cat Only", path),))
    fonts._families.cache_clear()
    yield path
    manager.ttflist[:] = before
    manager._findfont_cached.cache_clear()
    fonts._families.cache_clear()


def draw(fig):
    """Draws with the warning of a missing glyph as an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FigureCanvasAgg(fig).draw()
    return fig


def test_a_font_that_has_the_character_is_found(cat_font):
    families, missing = fonts.font_families(f"a {CAT}")
    assert families[-1] == "Cat Only" and missing == ""
    families, missing = fonts.font_families(f"{CAT}{DOG}\n")
    assert families[-1] == "Cat Only" and missing == DOG
    assert "Cat Only" not in fonts.font_families("Åäß 7")[0]


def test_class_names_are_drawn_and_the_missing_ones_named(cat_font):
    p = np.eye(3) * 0.4 + 0.2
    task = classification([CAT, f"{DOG} {DOG}", "a"])
    for fig in task.figures(p, np.arange(3)).values():
        note = fonts.missing_note(draw(fig))
        assert DOG in note and CAT not in note and "\n" not in note
    ax = task.figures(p, np.arange(3))["confusion_matrix"].axes[0]
    draw(ax.figure)
    fonts_of_rows = [label.get_fontfamily()[-1] for label in ax.get_yticklabels()]
    assert fonts_of_rows[0] == "Cat Only" != fonts_of_rows[2]


def test_a_glyph_of_another_font_leaves_ink(cat_font):
    fig = draw(figure(2, 1))
    empty = np.asarray(fig.canvas.buffer_rgba()).copy()
    fig.text(0.1, 0.3, CAT, fontsize=36)
    dark = (np.asarray(draw(fig).canvas.buffer_rgba()) != empty).any(-1)
    assert dark.sum() > 40 * 40  # 36 points are 50 pixels
    assert fonts.missing_note(fig) == ""


def test_a_bold_name_needs_no_bold_font(cat_font, caplog):
    fig = figure(2, 1)
    fig.text(0.1, 0.3, CAT, weight="bold")
    draw(fig)
    assert not caplog.records


def test_colours_of_text_contrast_with_paper():
    for color in COLORS:
        assert 4.5 <= contrast(for_text(color), "white")
    assert for_text(INK) == pytest.approx(to_rgb(INK))


def test_names_on_boxes_and_above_images(cat_font):
    image = np.zeros((24, 24, 3), np.uint8)
    rows = [[2, 8, 20, 22, 0.75, 0]]
    cat, dog = (overlay_boxes(image, rows, (name,)) for name in (CAT, DOG))
    assert (cat != dog).any()
    draw(image_grid(np.stack([image] * 2), [CAT, f"{CAT} {DOG}"], title=CAT))


@pytest.mark.parametrize("name", ["Ёж", "Ελλάδα", "naïve Åß", "→ ≤ µ"])
def test_the_default_font_has_the_common_scripts_of_europe(name):
    assert fonts.font_families(name) == fonts.font_families("a")


def test_a_character_that_no_font_has():
    families, missing = fonts.font_families(NONE)
    assert missing == NONE and families == fonts.font_families("a")[0]
    fig = figure(2, 1)
    fig.text(0.1, 0.5, f"a{NONE}")
    assert f"U+{ord(NONE):04X}" in fonts.missing_note(draw(fig))
    assert fonts.font_runs(f"a{NONE}")[0][1] == "a□"


def test_labels_contrast_with_what_is_below_them():
    assert contrast("black", "white") == pytest.approx(21)
    assert text_color("white") == INK and text_color("#001030") == "white"
    p, targets = np.full((64, 8), 0.01), np.repeat(np.arange(8), 8)
    for k, target in enumerate(targets):  # shares of 0 to 8 eighths
        p[k, target if k % 8 < target + 1 else (target + 1) % 8] = 0.93
    fig = classification([str(k) for k in range(8)]).figures(p, targets)
    ax = draw(fig["confusion_matrix"]).axes[0]
    image = ax.images[0]
    for text in ax.texts:
        column, row = map(int, text.get_position())
        below = image.cmap(image.norm(image.get_array()[row, column]))
        assert contrast(text.get_color(), below) > 4
    assert len({t.get_color() for t in ax.texts}) == 2
