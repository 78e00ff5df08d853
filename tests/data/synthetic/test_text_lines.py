"""Rendered lines: what is drawn, by which words and typefaces, for which split."""

import re
import unicodedata

import numpy as np
import pytest

from lstm_jax.data import DataError, load
from lstm_jax.data.synthetic import fonts, rendering, texts
from lstm_jax.data.synthetic.fonts import (
    HELD_OUT,
    LATIN,
    SYMBOLS,
    Font,
    find_fonts,
    fonts_of,
    has_latin,
)


@pytest.fixture(scope="module")
def found():
    return find_fonts()


def test_fonts_are_latin_and_dealt_out_by_typeface(found):
    names = [font.name for font in found]
    assert "DejaVu Sans Book" in names and "STIXGeneral Regular" in names
    assert not any(name.startswith("cm") or "Nonunicode" in name for name in names)
    for split in ("train", "test", "unseen_fonts"):
        faces = {font.family.split()[0] for font in fonts_of(split, found)}
        assert faces and faces.isdisjoint(HELD_OUT) == (split != "unseen_fonts")
    trained = {font.family.split()[0] for font in fonts_of("train", found)}
    held = {font.family.split()[0] for font in fonts_of("unseen_fonts", found)}
    assert not trained & held
    assert fonts_of("train", found) == fonts_of("test", found)


def test_a_font_of_pictures_is_left_out():
    known = [fonts._shapes(fonts._matplotlib(name)) for name in fonts._MODELS]
    assert fonts._is_latin(fonts._matplotlib("DejaVuSerif.ttf"), known)
    # TeX has brackets of many sizes where letters should be.
    assert not fonts._is_latin(fonts._matplotlib("cmex10.ttf"), known)
    assert not fonts._is_latin(fonts._matplotlib("missing.ttf"), known)


def test_words_to_test_on_are_never_trained_on():
    def words(split):
        rng = np.random.default_rng(0)
        lines = [texts.line_text(rng, split) for _ in range(2000)]
        assert all(len(line) <= texts.LENGTHS[1] + 14 for line in lines)
        assert set("".join(lines)) == set(SYMBOLS)
        every = (w for line in lines for w in line.split())
        plain = ("".join(c for c in w if c.isalnum() or c == "_") for w in every)
        return {word.lower() for word in plain if len(word) > 2}

    trained, tested = words("train"), words("test")
    assert len(trained) > 2000 and len(tested) > 500
    assert not trained & tested


def test_a_printer_has_accents_quotes_and_dashes():
    rng, found, joined = np.random.default_rng(0), set(), set()
    for _ in range(6000):
        text = texts.line_text(rng, "train")
        printed = texts.as_printed(text, rng)
        assert len(printed) in (len(text), len(text) + 1)
        for before, after in zip(text[::-1], printed[::-1], strict=False):
            same = unicodedata.normalize("NFD", after)[0] == before
            assert same or after in LATIN or (before == " " and after in "'-")
        found |= set(printed)
        joined |= {word for word in printed.split() if re.fullmatch(r"\w+'\w+", word)}
    assert len(joined) > 100
    assert found == {*SYMBOLS, *LATIN}
    assert not set(SYMBOLS) & set(LATIN) and len(set(LATIN)) == len(LATIN)
    opened = {texts.as_printed('"a" \'b', np.random.default_rng(k)) for k in range(99)}
    assert any(text.startswith("\u201c") and text[2] == "\u201d" for text in opened)
    assert any(text[4] == "\u2018" for text in opened)


def test_a_font_without_accents_is_known(found):
    assert all(has_latin(font) for font in found)
    # TeX's letters without any of them.
    roman = str(fonts._matplotlib("cmr10.ttf"))
    assert not has_latin(Font(roman, "Computer Modern", "Roman"))


def test_a_line_follows_from_its_number(found):
    train = fonts_of("train", found)
    image, text, font = rendering.line("train", 7, train)
    again, same, _ = rendering.line("train", 7, train)
    other, different, _ = rendering.line("train", 8, train)
    np.testing.assert_array_equal(image, again)
    assert text == same and text != different and isinstance(font, Font)
    assert image.dtype == np.uint8 and image.shape[0] == rendering.HEIGHT
    assert image.shape != other.shape or (image != other).any()


def test_what_is_written_fills_the_line(found):
    """Ink reaches near both ends, and neither top nor bottom is cut off widely."""
    train = fonts_of("train", found)
    for number in range(40):
        image, text, _ = rendering.line("train", number, train)
        ink = image.astype(float) < (float(image.min()) + float(image.max())) / 2
        columns = np.flatnonzero(ink.any(0))
        assert columns[0] < 16 and columns[-1] > image.shape[1] - 16
        assert image.shape[1] > 3 * len(text)


def test_of_a_page_something_is_left_at_the_rims(found):
    """Of other lines; a line alone has paper there, or its own letters."""
    train = fonts_of("train", found)

    def rims(paged):
        inked = []
        for number in range(60):
            image, text, _ = rendering.line("train", number, train, paged=paged)
            again, same, _ = rendering.line("train", number, train, paged=paged)
            np.testing.assert_array_equal(image, again)
            assert text == same and image.shape[0] == rendering.HEIGHT
            pixels = image.astype(float)
            ink = pixels < (np.percentile(pixels, 2) + np.median(pixels)) / 2
            inked.append(ink[[0, 1, -2, -1]].any(-1).mean())
        return np.mean(inked)

    assert rims(1.0) > 2 * rims(0.0)


@pytest.mark.parametrize("split", ["train", "test", "unseen_fonts"])
def test_every_symbol_is_drawn_differently(found, split):
    font = fonts_of(split, found)[0]
    drawn = set()
    for symbol in SYMBOLS[1:]:
        image = rendering.draw(symbol, font, np.random.default_rng(1))
        drawn.add(image.tobytes())
    assert len(drawn) >= len(SYMBOLS) - 3


def test_the_set_loads_with_its_splits(tmp_path, monkeypatch):
    from lstm_jax.data.synthetic import line_builder

    few = {"train": 40, "test": 6, "unseen_fonts": 5}
    monkeypatch.setattr(line_builder, "NUMBERS", few)
    dataset = load("text_lines", data_dir=tmp_path, target_type="text")
    sizes = {name: len(split.inputs) for name, split in dataset.splits.items()}
    assert sizes == {"train": 36, "validation": 4, "test": 6}
    assert list(dataset.more) == ["unseen_fonts"]
    assert len(dataset.more["unseen_fonts"].inputs) == 5
    assert dataset.classes == tuple(SYMBOLS) and dataset.target_type == "text"
    train = dataset.splits["train"]
    assert train.inputs.shape[1] == 32 and train.lengths.max() <= train.inputs.shape[2]
    for image, length in zip(train.inputs, train.lengths, strict=True):
        assert (image[:, length:] == 255).all()
    assert any("unseen_fonts is drawn with" in note for note in dataset.notes)
    found = find_fonts()
    image, text, _ = rendering.line("test", 0, fonts_of("test", found))
    test = dataset.splits["test"]
    np.testing.assert_array_equal(test.inputs[0, :, : test.lengths[0], 0], image)
    labels = test.targets[0][test.targets[0] > 0]
    assert "".join(SYMBOLS[k - 1] for k in labels) == text


def test_of_all_fonts_half_the_training_lines_are_of_pages(
    found, tmp_path, monkeypatch
):
    from lstm_jax.data.synthetic import line_builder

    monkeypatch.setattr(line_builder, "find_fonts", lambda where: found)
    monkeypatch.setattr(line_builder, "TRAINED_ON_ALL", 40)
    few = {"train": 15_000, "test": 6, "unseen_fonts": 5}
    monkeypatch.setattr(line_builder, "NUMBERS", few)
    loaded = load("text_lines/all", data_dir=tmp_path, target_type="text")
    for split, paged, count in (("train", 0.5, 40), ("test", 0.0, 6)):
        fonts_there = fonts_of(split, found)
        wanted = {
            rendering.line(split, k, fonts_there, paged=paged)[0].tobytes()
            for k in range(count)
        }
        part = loaded.splits[split]
        assert loaded.classes == (*SYMBOLS, *LATIN)
        for image, length in zip(part.inputs, part.lengths, strict=True):
            assert image[:, :length, 0].tobytes() in wanted


def test_another_config_is_refused(tmp_path):
    with pytest.raises(DataError, match="matplotlib, all"):
        load("text_lines/some", data_dir=tmp_path, target_type="text")
    with pytest.raises(DataError, match="has no text lines"):
        load("mnist", data_dir=tmp_path, target_type="text")
