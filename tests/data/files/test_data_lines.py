"""Your own lines of text: what loads, and what is said of what does not."""

import sys
import unicodedata

import numpy as np
import pytest
from PIL import Image

from lstm_jax.data import DataError, load, select_fold
from lstm_jax.data.files.bidi import logical, visual
from lstm_jax.data.files.line_reading import read_line
from lstm_jax.data.files.lines import alphabet_of, clean, is_line_dataset, labels_of

WORDS = ["bad", "cab", "dab", "ace", "bead", "cafe", "deaf", "fade"]


def picture(path, grey=0, size=(40, 16)):
    """White with a stripe of a grey at the left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(size[::-1], 255, np.uint8)
    pixels[:, : max(size[0] // 2, 1)] = grey
    Image.fromarray(pixels).save(path)


def fill(folder, words=WORDS):
    """Lines whose grey is 10 times their number, each 8 wider than the one before."""
    for number, word in enumerate(words):
        picture(folder / f"{number}.png", 10 * number, (40 + 8 * number, 16))
        (folder / f"{number}.gt.txt").write_text(f"{word}\n", "utf-8")
    return folder


def lines(path, tmp_path, **options):
    options = dict(data_dir=tmp_path / "cache", target_type="text") | options
    return load(path, **options)


def all_of(data):
    """{number that the grey tells: (text, width)} over all splits."""
    found = {}
    for split in data.splits.values():
        for image, labels, width in zip(*split, strict=True):
            text = "".join(data.classes[k - 1] for k in labels if k)
            found[int(image[0, 0, 0]) // 10] = text, int(width)
    return found


def count(data):
    return [len(split.inputs) for split in data.splits.values()]


def test_pictures_beside_their_texts(tmp_path):
    folder = fill(tmp_path / "p")
    data = lines(folder, tmp_path)
    assert data.target_type == "text" and data.name == "p" and data.groups is None
    assert data.classes == tuple("abcdef") and data.image_shape == (32, 192, 1)
    assert count(data) == [5, 1, 2]
    # 16 pixels high: at 32 all are twice as wide.
    assert all_of(data) == {n: (w, 80 + 16 * n) for n, w in enumerate(WORDS)}
    for split, (images, labels, widths) in data.splits.items():
        assert images.dtype == np.uint8
        assert labels.dtype == np.int32 and widths.dtype == np.int32
        for name, image, width in zip(data.names[split], images, widths, strict=True):
            assert (image[:, width:] == 255).all()
            assert name == f"{image[0, 0, 0] // 10}.png"
            np.testing.assert_array_equal(image[:, :width], read_line(folder / name))
    again = lines(folder, tmp_path)
    assert again.notes == data.notes
    for name, split in data.splits.items():
        for one, other in zip(split, again.splits[name], strict=True):
            np.testing.assert_array_equal(one, other)
    assert lines(folder, tmp_path, size=16).image_shape == (16, 96, 1)


def test_a_text_that_changes_is_read_anew(tmp_path):
    folder = fill(tmp_path / "p")
    lines(folder, tmp_path)
    (folder / "3.gt.txt").write_text("fee", "utf-8")
    assert all_of(lines(folder, tmp_path))[3][0] == "fee"


def test_split_folders_are_kept(tmp_path):
    for name, number in (("train", 6), ("val", 2), ("test", 3)):
        fill(tmp_path / "p" / name, WORDS[:number])
    picture(tmp_path / "p" / "old" / "1.png")
    data = lines(tmp_path / "p", tmp_path)
    assert count(data) == [6, 2, 3] and data.names["test"][0] == "test/0.png"
    (note,) = data.notes
    assert note.startswith("left out 1 images outside the split folders, such as ")


def test_pictures_of_one_text_stay_together(tmp_path):
    folder = fill(tmp_path / "p", WORDS * 2)
    for number in range(16):
        picture(folder / f"{number}.bin.png", 10 * number)
    data = lines(folder, tmp_path)
    assert sum(count(data)) == 32
    for split, names in data.names.items():
        stems = [name.partition(".")[0] for name in names]
        assert all(stems.count(stem) == 2 for stem in stems), split
    fold = select_fold(data, 4, 0, validation=0.2, seed=0)
    assert fold.target_type == "text" and len(fold.splits["test"].lengths) > 0


def table(folder, header="path,text,split", rows=None):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(WORDS)):
        picture(folder / f"{number}.png", 10 * number)
    splits = ["train"] * 5 + ["val"] + ["test"] * 2
    if rows is None:
        rows = [f"{n}.png,{w},{splits[n]}" for n, w in enumerate(WORDS)]
    path = folder / "lines.csv"
    path.write_text("\n".join([header, *rows]), "utf-8-sig")
    return path


def test_a_table(tmp_path):
    path = table(tmp_path)
    path.write_text(path.read_text("utf-8").replace("bad", '"b, a"'), "utf-8")
    data = lines(path, tmp_path)
    assert count(data) == [5, 1, 2]
    assert data.notes == ("not in any training line: 'f'",)
    assert all_of(data)[0] == ("b, a", 80) and all_of(data)[7] == ("fade", 80)
    assert data.names["test"] == ("6.png", "7.png")


def test_groups_of_a_table_stay_together(tmp_path):
    rows = [f"{n}.png,{w},{'xyzuvw'[n % 6]}" for n, w in enumerate(WORDS)]
    data = lines(table(tmp_path, "path,text,group", rows), tmp_path)
    places = {}
    for split, groups in data.groups.items():
        for group in groups:
            assert places.setdefault(group, split) == split
    assert len(places) == 6


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"\xef\xbb\xbfb\xc3\xa4d\r\n", "bäd"),  # a mark of order
        (b"ba\xcc\x88d", "bäd"),  # two characters, of which NFC makes one
        (b"  b\tad \xc2\xa0 d\n\n", "b ad d"),
        ("\u200eb\u200bad\u2069".encode(), "bad"),
        ("b\u200da\u00add\ufe0f\u2060".encode(), "bad"),  # none has a shape
        ("ſt \ue5dc".encode(), "ſt \ue5dc"),  # old prints have letters of their own
    ],
)
def test_what_a_text_becomes(tmp_path, written, read):
    folder = fill(tmp_path / "p")
    (folder / "2.gt.txt").write_bytes(written)
    data = lines(folder, tmp_path)
    assert all_of(data)[2][0] == read
    removed = [note for note in data.notes if note.startswith("removed invisible")]
    assert bool(removed) == (
        "\u200b" in written.decode() or "\u200d" in written.decode()
    )
    assert not removed or f"1 texts, such as {folder / '2.png'}" in removed[0]


def test_an_alphabet_that_is_given(tmp_path):
    folder = fill(tmp_path / "p", [*WORDS, "zoo"])
    for alphabet in ("fedcba", tuple("fedcba")):
        data = lines(folder, tmp_path, alphabet=alphabet)
        assert data.classes == tuple("fedcba")
        assert all_of(data)[7][0] == "fade" and 8 not in all_of(data)
        assert data.notes[0] == (
            f"skipped {folder}/8.png: its text holds 'z' (U+007A), not in the alphabet"
        )
    with pytest.raises(DataError, match="no text line to train on; the first"):
        lines(folder, tmp_path, alphabet=())


def test_characters_that_are_only_tested_on_are_told(tmp_path):
    for name, words in (("train", ["ab", "ba", "aa", "bb"]), ("test", ["xy"])):
        fill(tmp_path / "p" / name, words)
    notes = lines(tmp_path / "p", tmp_path).notes
    assert notes == ("not in any training line: 'x', 'y'",)


def cut(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 30])


def one_colour(path):
    Image.new("L", (40, 16), 255).save(path)


MISTAKES = [
    (lambda p: (p / "3.gt.txt").unlink(), "skipped {p}/3.png: has no text 3.gt.txt"),
    (lambda p: (p / "3.png").unlink(), "left out {p}/3.gt.txt: has no image"),
    (
        lambda p: (p / "3.gt.txt").write_text(" \n"),
        "skipped {p}/3.png: its text is empty",
    ),
    (
        lambda p: (p / "3.gt.txt").write_bytes(b"b\xe4d"),
        "skipped {p}/3.gt.txt: not a readable text (it is not UTF-8)",
    ),
    (
        lambda p: (p / "3.gt.txt").write_text("bad\ncab\n"),
        "skipped {p}/3.png: its text has 2 lines; expected one",
    ),
    (
        lambda p: (p / "3.gt.txt").write_text("b\0d"),
        "skipped {p}/3.png: its text holds U+0000, which is not a character",
    ),
    (
        lambda p: (p / "3.gt.txt").write_text("b\ufffdd", "utf-8"),
        "skipped {p}/3.png: its text holds U+FFFD, which is not a character",
    ),
    (
        lambda p: (p / "3.png").write_bytes(b""),
        "skipped {p}/3.png: not a readable image (unknown file format, or a damage",
    ),
    (lambda p: cut(p / "3.png"), "skipped {p}/3.png: not a readable image ("),
    (
        lambda p: one_colour(p / "3.png"),
        "skipped {p}/3.png: the image is empty, it has one colour",
    ),
    (
        lambda p: picture(p / "3.png", 0, (40, 1)),
        "skipped {p}/3.png: is 1 pixel high; the minimum is 4",
    ),
    (
        lambda p: picture(p / "3.png", 0, (10_000, 60)),
        "skipped {p}/3.png: is 10,000 pixels wide, 5,333 at a height of 32; the "
        "maximum is 4,096: cut the line",
    ),
]


@pytest.mark.parametrize(("harm", "words"), MISTAKES)
def test_what_is_skipped_is_told(tmp_path, harm, words):
    folder = fill(tmp_path / "p")
    harm(folder)
    data = lines(folder, tmp_path)
    assert data.notes[0].startswith(words.format(p=folder)), data.notes
    assert len(data.notes) == 2 and "random split" in data.notes[1]
    assert sum(count(data)) == 7 and 3 not in all_of(data)
    assert all("\n" not in note for note in data.notes)


@pytest.mark.parametrize(("harm", "words"), MISTAKES[7:])
def test_one_line_is_read_by_the_same_rules(tmp_path, harm, words):
    harm(fill(tmp_path))
    with pytest.raises(DataError) as caught:
        read_line(tmp_path / "3.png", 32)
    wanted = words.format(p=tmp_path).removeprefix("skipped ")
    assert str(caught.value).startswith(wanted)


def test_one_line(tmp_path):
    picture(tmp_path / "a.png", 30, (100, 20))
    Image.open(tmp_path / "a.png").convert("RGB").save(tmp_path / "b.png")
    for name in ("a.png", str(tmp_path / "b.png")):
        image = read_line(tmp_path / name, 10)
        assert image.shape == (10, 50, 1) and image.dtype == np.uint8
        assert image[5, 3, 0] == 30 and image[5, 45, 0] == 255
    with pytest.raises(DataError, match="none.png: No such file"):
        read_line(tmp_path / "none.png")


def test_many_mistakes_are_counted(tmp_path):
    folder = fill(tmp_path / "p", WORDS * 2)
    for number in range(8):
        (folder / f"{number}.gt.txt").unlink()
    assert lines(folder, tmp_path).notes[5] == "skipped 3 more images without a text"


def only(folder, word=b"bad", image=b""):
    folder.mkdir()
    (folder / "1.gt.txt").write_bytes(word)
    (folder / "1.png").write_bytes(image)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.mkdir(), "p: no text line to train on; the first: it is em"),
        (lambda p: only(p, b" "), "to train on; the first: .*1.png: its text is emp"),
        (lambda p: only(p), "none of its 1 lines can be read; the first: .*1.png: not"),
        (lambda p: fill(p, WORDS[:2]), "too few lines for training, 2 readable; 3"),
        (
            lambda p: [fill(p / n) for n in ("train", "val", "valid")],
            "p: holds both val and valid; keep one",
        ),
        (lambda p: p.write_text("x"), "p: neither CSV nor XML; give a folder, a .csv"),
    ],
)
def test_folders_that_cannot_be_learned_from(tmp_path, make, words):
    make(tmp_path / "p")
    with pytest.raises(DataError, match=words) as caught:
        lines(tmp_path / "p", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "rows", "words"),
    [
        ("path,words", ["0.png,a"], "no column 'text'.*columns: path,text and"),
        ("path,text", [",a"], "entry 1 has an empty path"),
        ("path,text,split", ["0.png,a,late"], "entry 1 has the split 'late'"),
        ("path,text", ["0.png,a,b"], "row 2 has 3 cells, the first has 2"),
        (
            "path,text,group,split",
            ["0.png,a,x,train", "1.png,a,x,test"],
            "group 'x' is in train and in test; a group belongs to one split",
        ),
    ],
)
def test_tables_that_are_malformed(tmp_path, header, rows, words):
    with pytest.raises(DataError, match=words):
        lines(table(tmp_path, header, rows), tmp_path)


def test_a_picture_that_a_table_lacks(tmp_path):
    path = table(tmp_path)
    (tmp_path / "3.png").unlink()
    note = lines(path, tmp_path).notes[0]
    assert note == f"skipped {tmp_path}/3.png: No such file or directory"


def test_lines_where_something_else_is_asked_for(tmp_path):
    for path in (fill(tmp_path / "p"), table(tmp_path / "q")):
        with pytest.raises(DataError, match="holds lines of text"):
            load(path, data_dir=tmp_path / "cache")


def test_is_lines_dataset(tmp_path):
    assert is_line_dataset(fill(tmp_path / "p" / "train").parent)
    assert is_line_dataset(table(tmp_path / "q"))
    assert not is_line_dataset(tmp_path / "q")
    assert not is_line_dataset(table(tmp_path / "r", "path,label,text", []))
    assert not is_line_dataset(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"path,text\xe4")
    assert not is_line_dataset(tmp_path / "latin.csv")


def test_lines_that_do_not_fit_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("lstm_jax.data.files.line_reading.LARGEST", 1000)
    with pytest.raises(DataError, match="GiB of lines at 32x192.*smaller --data.size"):
        lines(fill(tmp_path / "p"), tmp_path)


def test_labels_of_texts():
    texts = ["ba", "", "abc"]
    assert alphabet_of(texts) == ("a", "b", "c")
    wanted = [[2, 1, 0], [0, 0, 0], [1, 2, 3]]
    np.testing.assert_array_equal(labels_of(texts, "abc"), wanted)
    with pytest.raises(KeyError):
        labels_of(["d"], "abc")


SHALOM, OLAM = "\u05e9\u05dc\u05d5\u05dd", "\u05e2\u05d5\u05dc\u05dd"
KITAB, ARABI = "\u0643\u062a\u0627\u0628", "\u0639\u0631\u0628\u064a"
EASTERN = "\u0661\u0662"  # 12
POINTED = "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd"
VOWELLED = "\u0643\u0650\u062a\u064e\u0627\u0628\u064c"


def back(text):
    return text[::-1]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (SHALOM, back(SHALOM)),
        (f"{SHALOM} {OLAM}", f"{back(OLAM)} {back(SHALOM)}"),
        (f"{SHALOM} 12.50 {OLAM}", f"{back(OLAM)} 12.50 {back(SHALOM)}"),
        (f"{SHALOM} ({OLAM}).", f".({back(OLAM)}) {back(SHALOM)}"),
        (f"{SHALOM} [a] {OLAM}", f"{back(OLAM)} [a] {back(SHALOM)}"),
        (f"{SHALOM} abc", f"abc {back(SHALOM)}"),
        (f"abc {SHALOM}", f"{back(SHALOM)} abc"),  # the line runs from right to left
        (f"see {SHALOM} here", f"see {back(SHALOM)} here"),
        (f"{KITAB} {EASTERN} {ARABI}", f"{back(ARABI)} {EASTERN} {back(KITAB)}"),
        (f"{KITAB} 2005 {ARABI}", f"{back(ARABI)} 2005 {back(KITAB)}"),
        (f"{KITAB} {EASTERN} 34", f"34 {EASTERN} {back(KITAB)}"),
        (POINTED, back(POINTED)),
        (f"{VOWELLED} 7", f"7 {back(VOWELLED)}"),
        (EASTERN, EASTERN),
        ("plain (12)", "plain (12)"),
    ],
)
def test_from_right_to_left_and_back(text, seen):
    pytest.importorskip("bidi.algorithm")
    assert visual(text) == seen
    assert logical(seen) == text


def test_characters_of_direction_are_not_seen():
    pytest.importorskip("bidi.algorithm")
    assert visual(f"\u2067{SHALOM}\u2069!\u200f") == "!" + back(SHALOM)
    assert visual("\u202aa\u202c\u200f") == "a"


def test_two_texts_that_look_the_same():
    pytest.importorskip("bidi.algorithm")
    texts = f"{SHALOM} 12 kg {OLAM}", f"{SHALOM} kg 12 {OLAM}"
    assert visual(texts[0]) == visual(texts[1])
    assert logical(visual(texts[0])) in texts


def test_lines_from_right_to_left(tmp_path):
    pytest.importorskip("bidi.algorithm")
    words = [f"{SHALOM} {n} {OLAM}" for n in range(8)]
    data = lines(fill(tmp_path / "p", words), tmp_path)
    for number, (text, _) in all_of(data).items():
        assert text == f"{back(OLAM)} {number} {back(SHALOM)}"
        assert clean(logical(text)) == words[number]


def test_without_the_package_only_other_texts_load(tmp_path, monkeypatch):
    for name in ("bidi", "bidi.algorithm"):
        monkeypatch.setitem(sys.modules, name, None)
    folder = fill(tmp_path / "p")
    assert sum(count(lines(folder, tmp_path))) == 8
    assert logical("bad") == "bad" and visual("b\u200fad") == "bad"
    (folder / "3.gt.txt").write_text(SHALOM, "utf-8")
    with pytest.raises(DataError, match="pip install python-bidi"):
        lines(folder, tmp_path)


def test_a_text_is_in_one_form():
    assert unicodedata.is_normalized("NFC", clean("e\u0301te\u0301"))
