"""Lines cut from pages: what loads, and what is said of what does not."""

import time

import numpy as np
import pytest
from PIL import Image

from lstm_jax.data import DataError, load
from lstm_jax.data.files.lines import is_line_dataset

ALTO = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<alto xmlns="http://www.loc.gov/standards/alto/ns-v{v}#"><Description>'
    "<MeasurementUnit>{unit}</MeasurementUnit><sourceImageInformation>"
    "<fileName>{picture}</fileName></sourceImageInformation></Description><Layout>"
    '<Page WIDTH="{w}" HEIGHT="{h}"><PrintSpace><TextBlock>{lines}'
    "</TextBlock></PrintSpace></Page></Layout></alto>"
)
PAGE = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<PcGts xmlns="http://schema.primaresearch'
    '.org/PAGE/gts/pagecontent/2019-07-15"><Page imageFilename="{picture}" '
    'imageWidth="{w}" imageHeight="{h}"><TextRegion id="r">'
    '<Coords points="0,0 9,9 0,9"/>{lines}</TextRegion></Page></PcGts>'
)
W, H, ROW = 100, 200, 20
WORDS = ["a bc", "a cb", "b ac", "b ca", "c ab", "c ba"]
COUNT = len(WORDS)


def strings(text):
    return "<SP/>".join(f'<String CONTENT="{word}"/>' for word in text.split())


def alto_line(number, text, box=None, inner=None, more=""):
    x, y, w, h = box or (10, 10 + 30 * number, 60, ROW)
    place = f'HPOS="{x}" VPOS="{y}" WIDTH="{w}" HEIGHT="{h}"'
    inner = strings(text) if inner is None else inner
    return f'<TextLine ID="l{number}" {place}>{more}{inner}</TextLine>'


def page_line(number, text, points=None, inner=None):
    x0, y0, x1, y1 = 10, 10 + 30 * number, 70, 10 + 30 * number + ROW
    points = points or f"{x0},{y0} {x1},{y0} {x1},{y1} {x0},{y1}"
    if inner is None:
        inner = f"<TextEquiv><Unicode>{text}</Unicode></TextEquiv>"
    return f'<TextLine id="l{number}"><Coords points="{points}"/>{inner}</TextLine>'


def page_picture(path, light=240):
    """A page whose row k, of 20 pixels from 10 + 30k, begins in a grey of 20k."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((H, W), light, np.uint8)
    for number in range(COUNT):
        top = 10 + 30 * number
        pixels[top : top + ROW, 10:30] = 20 * number
    Image.fromarray(pixels).save(path)


def page(folder, name="p", kind="page", lines=None, picture=None, **options):
    """A page with its XML; returns the latter."""
    page_picture(folder / f"{name}.png")
    form, line = (ALTO, alto_line) if kind == "alto" else (PAGE, page_line)
    if lines is None:
        lines = [line(k, word) for k, word in enumerate(WORDS)]
    options = dict(v=4, unit="pixel", w=W, h=H) | options
    picture = f"{name}.png" if picture is None else picture
    text = form.format(lines="".join(lines), picture=picture, **options)
    (folder / f"{name}.xml").write_text(text, "utf-8")
    return folder / f"{name}.xml"


def lines(path, tmp_path, **options):
    options = dict(data_dir=tmp_path / "cache", target_type="text") | options
    return load(path, **options)


def all_of(data):
    """{name: (image [H, width], text)} over all splits."""
    found = {}
    for name, split in data.splits.items():
        for own, image, labels, width in zip(data.names[name], *split, strict=True):
            text = "".join(data.classes[k - 1] for k in labels if k)
            found[own] = image[:, :width, 0], text
    return found


@pytest.mark.parametrize("kind", ["page", "alto"])
@pytest.mark.parametrize("alone", [False, True])
def test_lines_of_one_page(tmp_path, kind, alone):
    file = page(tmp_path / "q", kind=kind)
    data = lines(file if alone else file.parent, tmp_path, size=ROW)
    found = all_of(data)
    assert sorted(found) == [f"p.xml#l{k}" for k in range(COUNT)]
    for number in range(COUNT):
        image, text = found[f"p.xml#l{number}"]
        assert text == WORDS[number] and image.shape == (ROW, 60)
        assert (image[:, :20] == 20 * number).all() and (image[:, 20:] == 240).all()
    assert [len(s.inputs) for s in data.splits.values()] == [4, 1, 1]
    assert data.groups is None
    assert data.notes[-1].startswith("lines of one page are in several splits, because")


@pytest.mark.parametrize("version", [2, 3, 4])
def test_versions_of_alto(tmp_path, version):
    assert len(all_of(lines(page(tmp_path, kind="alto", v=version), tmp_path))) == COUNT


def test_lines_of_one_page_stay_together(tmp_path):
    for name in "abcdefgh":
        page(tmp_path / "q", name, kind="alto" if name < "e" else "page")
    data = lines(tmp_path / "q", tmp_path)
    assert sum(len(s.inputs) for s in data.splits.values()) == 8 * COUNT
    places = [
        {name.partition(".")[0] for name in names} for names in data.names.values()
    ]
    assert sum(map(len, places)) == 8 and all(places)
    assert {len(set(groups)) for groups in data.groups.values()} == {
        len(place) for place in places
    }
    assert not any("several splits" in note for note in data.notes)


def test_pages_in_folders_of_splits_and_beside_lines(tmp_path):
    for split in ("train", "val", "test"):
        page(tmp_path / "q" / split, split)
    page_picture(tmp_path / "q" / "train" / "own.png")
    (tmp_path / "q" / "train" / "own.gt.txt").write_text("abc")
    data = lines(tmp_path / "q", tmp_path)
    assert [len(s.inputs) for s in data.splits.values()] == [7, 6, 6]
    assert data.names["test"][0] == "test/test.xml#l0"
    assert all_of(data)["train/own.png"][1] == "abc"
    assert data.notes == ()


@pytest.mark.parametrize("kind", ["page", "alto"])
def test_outside_of_an_outline_is_paper(tmp_path, kind):
    points = "10,10 70,10 70,20 40,20 40,30 10,30"  # all but the lower right
    if kind == "page":
        line = page_line(0, "a", points)
    else:
        shape = f'<Shape><Polygon POINTS="{points.replace(",", " ")}"/></Shape>'
        line = alto_line(0, "a", (0, 0, 5, 5), more=shape)
    rest = page_line if kind == "page" else alto_line
    page(tmp_path / "q", kind=kind, lines=[line, *(rest(k, "b") for k in range(1, 5))])
    picture = tmp_path / "q" / "p.png"
    pixels = np.array(Image.open(picture))
    pixels[22:32, 45:75] = 0  # the line below
    Image.fromarray(pixels).save(picture)
    image, _ = all_of(lines(tmp_path / "q", tmp_path, size=ROW))["p.xml#l0"]
    assert image.shape == (ROW, 60)
    assert (image[:, 20:] == 240).all() and (image[:, :20] == 0).all()


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        ('<String CONTENT="a"/><SP/><String CONTENT="b"/>', "a b"),
        ('<String CONTENT="a"/><String CONTENT="b"/>', "a b"),
        (
            '<String CONTENT="a"/><String CONTENT=","/><SP/><String CONTENT="b"/>',
            "a, b",
        ),
        ('<String CONTENT="a"/><HYP CONTENT="-"/>', "a-"),
        ('<String CONTENT="a"/><HYP CONTENT="&#xAD;"/>', "a-"),
        ('<String CONTENT="a" SUBS_CONTENT="ab"/><HYP/>', "a-"),
        ('<String CONTENT="&lt;&amp;&#228;"/>', "<&ä"),
    ],
)
def test_texts_of_alto(tmp_path, inner, text):
    row = [alto_line(k, "b") for k in range(1, 4)]
    file = page(tmp_path, kind="alto", lines=[alto_line(0, "", inner=inner), *row])
    assert all_of(lines(file, tmp_path))["p.xml#l0"][1] == text


@pytest.mark.parametrize(
    "inner",
    [
        '<TextEquiv index="1"><Unicode>no</Unicode></TextEquiv>'
        '<TextEquiv index="0"><PlainText>no</PlainText>'
        "<Unicode>yes</Unicode></TextEquiv>",
        "<TextEquiv><Unicode>no</Unicode></TextEquiv>"
        '<TextEquiv index="3"><Unicode>yes</Unicode></TextEquiv>',
        '<Word id="w"><TextEquiv><Unicode>no</Unicode></TextEquiv></Word>'
        "<TextEquiv><Unicode>yes</Unicode></TextEquiv>",
    ],
)
def test_texts_of_page(tmp_path, inner):
    row = [page_line(k, "b") for k in range(1, 4)]
    file = page(tmp_path, lines=[page_line(0, "", inner=inner), *row])
    assert all_of(lines(file, tmp_path))["p.xml#l0"][1] == "yes"


def test_points_as_elements_and_partly_outside(tmp_path):
    old = "".join(
        f'<Point x="{x}" y="{y}"/>' for x, y in [(40, 40), (200, 40), (90, 60)]
    )
    line = page_line(0, "a").replace(
        ' points="10,10 70,10 70,30 10,30"/>', f">{old}</Coords>"
    )
    assert "<Point" in line
    pages = [line, *(page_line(k, "b") for k in range(1, 4))]
    file = page(tmp_path, lines=pages)
    pixels = np.array(Image.open(tmp_path / "p.png"))
    pixels[:, 80] = 0
    Image.fromarray(pixels).save(tmp_path / "p.png")
    image, _ = all_of(lines(file, tmp_path, size=ROW))["p.xml#l0"]
    assert image.shape == (ROW, W - 40)


@pytest.mark.parametrize(
    ("picture", "place"),
    [
        ("C:\\scans\\p.png", "p.png"),
        ("file:///scans/p.png", "p.png"),
        ("", "p.png"),
        ("other.jp2", "p.png"),  # the same name as the XML
        ("scan.tif", "scan.tif"),
        ("scan.tif", "../scan.tif"),
        ("", "p.PNG"),
    ],
)
def test_where_the_picture_is_found(tmp_path, picture, place):
    folder = tmp_path / "q" / "page"
    page(folder, picture=picture)
    (folder / "p.png").rename(folder / place)
    data = lines(tmp_path / "q", tmp_path)
    assert sorted(all_of(data)) == [f"page/p.xml#l{k}" for k in range(COUNT)]
    assert len(data.notes) == 2  # split at random; in several splits


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def swap(path, old, new):
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def named(path, name):
    """The XML names an image that does not exist, and none is called like the XML."""
    path.with_suffix(".png").unlink()
    swap(path, "z.png", name)


LAUGHS = (
    '<!DOCTYPE PcGts [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {k} "{f"&{chr(ord(k) - 1)};" * 10}">' for k in "bcdefghi")
    + "]><PcGts>&i;</PcGts>"
)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (
            lambda p: write(p, p.read_bytes()[:300]),
            "skipped {p}: not a readable XML file (",
        ),
        (lambda p: write(p, ""), "skipped {p}: neither ALTO nor PAGE XML"),
        (lambda p: write(p, "<mets/>"), "skipped {p}: neither ALTO nor PAGE XML"),
        (
            lambda p: write(p, "<PcGts/>"),
            "skipped {p}: holds 0 pages; expected one in a file",
        ),
        (
            lambda p: write(p, LAUGHS),
            "skipped {p}: not a readable XML file (it has a DOCTYPE, whose entities ar",
        ),
        (
            lambda p: write(p, LAUGHS.encode("utf-16")),
            "skipped {p}: not a readable XML file (it has a DOCTYPE, whose entities ar",
        ),
        (
            lambda p: swap(p, "UTF-8", "none-such"),
            "skipped {p}: not a readable XML file (unknown encoding",
        ),
        (
            lambda p: p.with_suffix(".png").unlink(),
            "skipped {p}: its image 'z.png' is not beside it",
        ),
        (
            lambda p: Image.new("L", (50, 100)).save(p.with_suffix(".png")),
            "skipped {p}: is of an image of 200x100, but z.png is 100x50",
        ),
        (
            lambda p: write(
                p.with_suffix(".png"), p.with_suffix(".png").read_bytes()[:80]
            ),
            "skipped {d}/z.png: not a readable image (",
        ),
        (
            lambda p: named(p, "n" * 5000),
            "skipped {p}: its image '" + "n" * 60 + "…' is not beside it",
        ),
        (
            lambda p: page(p.parent, "z", lines=[]),
            "left out {p}: it has no TextLine",
        ),
        (
            lambda p: page(p.parent, "z", kind="alto", unit="mm10"),
            "skipped {p}: its MeasurementUnit is 'mm10'; expected pixel",
        ),
        (
            lambda p: page(p.parent, "z", picture="a.png"),
            "left out {p}: {d}/a.xml is of a.png, too",
        ),
    ],
)
def test_pages_that_are_skipped_are_told(tmp_path, harm, words):
    page(tmp_path / "q", "a")
    file = page(tmp_path / "q", "z")
    harm(file)
    start = time.monotonic()
    data = lines(tmp_path / "q", tmp_path)
    assert time.monotonic() - start < 5  # entities are not expanded
    wanted = words.format(p=file, d=file.parent)
    told = [note for note in data.notes if note.startswith(wanted)]
    assert len(told) == 1, data.notes
    assert len(all_of(data)) == COUNT
    assert all("\n" not in note for note in data.notes)


@pytest.mark.parametrize(
    ("kind", "line", "words"),
    [
        ("page", page_line(9, " "), "skipped {p}#l9: its text is empty"),
        ("page", page_line(9, "", inner=""), "skipped {p}#l9: its text is empty"),
        ("alto", alto_line(9, ""), "skipped {p}#l9: its text is empty"),
        (
            "page",
            page_line(9, "a", "0,300 50,300 50,330"),
            "skipped {p}#l9: lies outside its page, p.png is 200x100",
        ),
        (
            "alto",
            alto_line(9, "a", (-50, 10, 40, 20)),
            "skipped {p}#l9: lies outside its page, p.png is 200x100",
        ),
        (
            "page",
            page_line(9, "a", "0,0 50,50"),
            "skipped {p}#l9: it has neither a box nor an outline",
        ),
        (
            "page",
            "<TextLine><TextEquiv><Unicode>a</Unicode></TextEquiv></TextLine>",
            "skipped {p}#7: it has neither a box nor an outline",
        ),
        (
            "alto",
            alto_line(9, "a", ("nan", "x", 40, 20)),
            "skipped {p}#l9: it has neither a box nor an outline",
        ),
        *(
            (
                "alto",
                alto_line(9, "a", box),
                "skipped {p}#l9: it has neither a box nor an outline",
            )
            for box in (
                ("1e308", 10, "1e308", 20),
                (0, "9" * 400, 40, 20),
                (0, 10, 40, "-inf"),
                (0, 10, 40, "10000001"),
            )
        ),
        (
            "page",
            page_line(9, "a", f"0,0 50,0 {'9' * 400},50"),
            "skipped {p}#l9: it has neither a box nor an outline",
        ),
        (
            "alto",
            alto_line(9, "a", (0, 10, 40, 2)),
            "skipped {p}#l9: is 2 pixels high; the minimum is 4",
        ),
        (
            "alto",
            alto_line(9, "a", (40, 10, 40, 20)),
            "skipped {p}#l9: the image is empty, it has one colour",
        ),
    ],
)
def test_lines_that_are_skipped_are_told(tmp_path, kind, line, words):
    form = alto_line if kind == "alto" else page_line
    rest = [form(k, "bc") for k in range(COUNT)]
    file = page(tmp_path / "q", kind=kind, lines=[*rest, line])
    data = lines(file.parent, tmp_path)
    assert data.notes[0] == words.format(p=file)
    assert len(all_of(data)) == COUNT


def test_many_mistakes_are_counted(tmp_path):
    bad = [page_line(k, "a", "0,0 50,50") for k in range(9)]
    rest = [page_line(k, "bc") for k in range(COUNT)]
    data = lines(page(tmp_path, lines=[*rest, *bad]), tmp_path)
    assert data.notes[5] == "skipped 4 more lines without a location"


def test_a_page_that_cannot_be_learned_from(tmp_path):
    file = page(tmp_path, kind="alto", unit="inch1200")
    with pytest.raises(
        DataError, match="the first: .*p.xml: its MeasurementUnit is 'in"
    ):
        lines(file, tmp_path)
    page(tmp_path, lines=[page_line(0, "a"), page_line(1, "a")])
    with pytest.raises(DataError, match="too few lines for training, 2 readable; 3"):
        lines(file, tmp_path)


def test_is_pages_dataset(tmp_path):
    file = page(tmp_path / "q" / "page")
    assert is_line_dataset(tmp_path / "q") and is_line_dataset(file)
    write(tmp_path / "voc.xml", "<annotation><object/></annotation>")
    assert not is_line_dataset(tmp_path / "voc.xml")
    assert not is_line_dataset(tmp_path / "none.xml")
    with pytest.raises(DataError, match="holds lines of text"):
        load(tmp_path / "q", data_dir=tmp_path / "cache")
