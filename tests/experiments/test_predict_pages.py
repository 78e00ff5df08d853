"""predict on pages: lines located by PAGE or ALTO XML, and pages refused as lines."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from experiments.config import override, preset
from experiments.errors import UsageError
from experiments.experiment import Experiment
from experiments.prediction import loading, output, page_xml
from experiments.prediction.predictor import Predictor
from experiments.spec import DataSpec
from experiments.tasks import TASKS
from lstm_jax.data import DataError

HIGH = 16
SPEC = DataSpec("lines", [" ", "a", "b"], [HIGH, 64, 1], 4, [0.0], [1.0])
TEXTS = ("ab", "b a", "bb a")  # of lines whose grey is 40, 80, 120
KIND = TASKS["text_recognition"]


@pytest.fixture(scope="module")
def predictor():
    """Recognises a line by the grey of its first columns."""
    options = {"model.spec": f"[1,{HIGH},0,1 Cr3,3,4,2,2 S1(1x0)1,3 Lbx8]"}
    experiment = Experiment(override(preset("text-lines"), options), SPEC)

    def apply(batch):
        out = np.zeros((len(batch["inputs"]), 8, 4), np.float32)
        for row, image, length in zip(
            out, batch["inputs"], batch["lengths"], strict=True
        ):
            grey = int(image[HIGH // 2, 1, 0]) if length else 0
            if grey in (40, 80, 120):
                for k, letter in enumerate(TEXTS[grey // 40 - 1]):
                    row[k] = 1 + SPEC.classes.index(letter), 0.5, k, k + 1
        return out

    return Predictor(KIND, SPEC, apply, "uniform", experiment)


def draw(path):
    """A page of 400x300 with three lines, 30 pixels high, at x 20 and y 50 + 100k."""
    pixels = np.full((400, 300), 230, np.uint8)
    for k in range(3):
        pixels[50 + 100 * k : 80 + 100 * k, 20:220] = 200
        pixels[50 + 100 * k : 80 + 100 * k, 20:60] = 40 * (k + 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"
ALTO = "http://www.loc.gov/standards/alto/ns-v4#"


def page_text(image="p.png", ids=("l0", "l1", "l2")):
    lines = "".join(
        f'<p:TextLine id="{name}" custom="x {{y:1;}}"><p:Coords points="20,{y} 220,{y} '
        f'220,{y + 30} 20,{y + 30}"/><p:Baseline points="20,{y + 25} 220,{y + 25}"/>'
        '<p:Word id="w"><p:Coords points="0,0 9,9 0,9"/></p:Word>'
        '<p:TextEquiv index="0"><p:Unicode>old</p:Unicode></p:TextEquiv>'
        "<p:TextStyle/></p:TextLine>"
        for name, y in zip(ids, (50, 150, 250), strict=True)
    )
    return (
        f'<?xml version="1.0"?>\n<p:PcGts xmlns:p="{NAMESPACE}"><!-- kept --><p:Page '
        f'imageFilename="{image}" imageWidth="300" imageHeight="400"><p:TextRegion '
        f'id="r"><p:Coords points="0,0 9,9 0,9"/>{lines}<p:TextEquiv><p:Unicode>old'
        "</p:Unicode></p:TextEquiv></p:TextRegion></p:Page></p:PcGts>"
    )


def alto_text(image="p.png"):
    lines = "".join(
        f'<TextLine ID="l{k}" HPOS="20" VPOS="{50 + 100 * k}" WIDTH="200" HEIGHT="30">'
        '<String CONTENT="old"/><SP/><String CONTENT="er"/><HYP CONTENT="-"/>'
        "</TextLine>"
        for k in range(3)
    )
    return (
        f'<alto xmlns="{ALTO}"><Description><MeasurementUnit>pixel</MeasurementUnit>'
        f"<sourceImageInformation><fileName>{image}</fileName></sourceImageInformation>"
        '</Description><Layout><Page ID="p" WIDTH="300" HEIGHT="400"><PrintSpace>'
        f"<TextBlock>{lines}</TextBlock></PrintSpace></Page></Layout></alto>"
    )


@pytest.fixture
def page(tmp_path):
    draw(tmp_path / "p.png")
    (tmp_path / "p.xml").write_text(page_text())
    return tmp_path / "p.xml"


@pytest.mark.parametrize("given", ["p.xml", "p.png", "."])
def test_the_lines_of_a_page_are_cut_and_recognised(predictor, page, given):
    rows = list(KIND.predict(predictor, [page.parent / given]))
    assert [row["text"] for row in rows] == list(TEXTS)
    assert [row["line"] for row in rows] == ["l0", "l1", "l2"]
    assert {row["path"] for row in rows} == {str(page.with_name("p.png"))}
    assert rows[1]["box"] == [20, 150, 220, 180]
    assert KIND.row(rows[0]) == (f"{page.with_name('p.png')}#l0", "ab")


def test_the_text_is_written_into_a_copy_of_page_xml(predictor, page, tmp_path):
    before = page.read_bytes()
    rows = list(KIND.predict(predictor, [page]))
    output.write(KIND, rows, tmp_path / "new.xml")
    assert page.read_bytes() == before
    text = (tmp_path / "new.xml").read_text()
    assert "<!-- kept -->" in text and f'xmlns:p="{NAMESPACE}"' in text
    assert "old" not in text and "ns0" not in text
    root, space = ET.fromstring(text), {"p": NAMESPACE}
    lines = root.findall(".//p:TextLine", space)
    order = ["Coords", "Baseline", "TextEquiv", "TextStyle"]
    assert [[e.tag.rpartition("}")[2] for e in line] for line in lines] == [order] * 3
    found = [line.findtext("p:TextEquiv/p:Unicode", None, space) for line in lines]
    assert found == list(TEXTS) and lines[0].get("custom") == "x {y:1;}"
    assert lines[0].find("p:TextEquiv", space).get("conf") == "0.500"
    region = root.findtext(".//p:TextRegion/p:TextEquiv/p:Unicode", None, space)
    assert region == "\n".join(TEXTS)


def test_the_text_is_written_into_a_copy_of_alto(predictor, page, tmp_path):
    page.write_text(alto_text())
    rows = list(KIND.predict(predictor, [page]))
    KIND.save(SPEC, rows, tmp_path / "out")
    root = ET.parse(tmp_path / "out" / "p.xml").getroot()
    space = {"a": ALTO}
    lines = root.findall(".//a:TextLine", space)
    words = [[s.get("CONTENT") for s in n.findall("a:String", space)] for n in lines]
    assert words == [text.split() for text in TEXTS]
    assert [len(line.findall("a:SP", space)) for line in lines] == [0, 1, 1]
    assert not root.findall(".//a:HYP", space)
    first, last = lines[1].findall("a:String", space)
    assert (first.get("VPOS"), first.get("HEIGHT")) == ("150", "30")
    assert 20 <= int(first.get("HPOS")) < int(last.get("HPOS")) < 220
    assert first.get("WC") == "0.500"


def test_a_line_that_cannot_be_cut_is_reported_and_keeps_its_text(predictor, page):
    where = "20,150 220,150 220,180 20,180"
    page.write_text(page.read_text().replace(where, "900,1 990,1 990,31"))
    rows = list(KIND.predict(predictor, [page]))
    assert ["error" in row for row in rows] == [False, True, False]
    assert "p.xml#l1: lies outside its page" in rows[1]["error"]
    made = page_xml.transcribed(page, rows)
    assert made.count(">old<") == 1 and made.count(">bb a<") == 1


def test_a_page_given_as_a_line_is_refused(predictor, page):
    page.unlink()
    line = page.with_name("line.png")
    Image.open(page.with_name("p.png")).crop((20, 50, 220, 80)).save(line)
    wide = page.with_name("wide.png")  # of one line, in high resolution
    pixels = np.full((300, 3000), 80, np.uint8)
    pixels[:9, 1500:] = 230
    Image.fromarray(pixels).save(wide)
    rows = list(KIND.predict(predictor, [page.with_name("p.png"), line, wide]))
    assert "p.png: 300x400 pixels is a page, not a line of text" in rows[0]["error"]
    assert "PAGE XML" in rows[0]["error"] and "\n" not in rows[0]["error"]
    assert [row["text"] for row in rows[1:]] == ["ab", "b a"]


def test_xml_that_locates_no_line_is_reported(predictor, tmp_path):
    draw(tmp_path / "p.png")
    for name, text in (
        ("alone.xml", page_text("gone.png")),
        ("other.xml", "<html/>"),
        ("cut.xml", page_text()[:300]),
    ):
        (tmp_path / name).write_text(text)
    paths = [tmp_path / f"{name}.xml" for name in ("alone", "other", "cut")]
    alone, other, cut = KIND.predict(predictor, paths)
    assert alone["error"] == f"{paths[0]}: its image 'gone.png' is not beside it"
    assert "neither ALTO nor PAGE XML" in other["error"]
    assert "not a readable XML file" in cut["error"]


def test_a_page_with_two_xml_files_is_ambiguous(predictor, page, tmp_path):
    (tmp_path / "alto").mkdir()
    (tmp_path / "alto" / "p.xml").write_text(alto_text())
    (row,) = KIND.predict(predictor, [tmp_path / "p.png"])
    assert "give one of them" in row["error"] and "alto/p.xml" in row["error"]
    (tmp_path / "p.xml").unlink()
    rows = list(KIND.predict(predictor, [tmp_path / "p.png"]))
    assert [row["text"] for row in rows] == list(TEXTS)
    assert rows[0]["page"] == str(tmp_path / "alto" / "p.xml")


def test_ids_that_are_not_unique_are_refused(predictor, page):
    page.write_text(page_text(ids=("l0", "l1", "l1")))
    rows = list(KIND.predict(predictor, [page]))
    with pytest.raises(DataError, match="two TextLines have the id 'l1'"):
        page_xml.transcribed(page, rows)


def test_where_copies_cannot_be_written(page, tmp_path):
    line = tmp_path / "line.png"
    Image.new("L", (90, 20)).save(line)
    (tmp_path / "b").mkdir()
    draw(tmp_path / "b" / "p.png")
    again = tmp_path / "b" / "p.xml"
    again.write_text(page_text())
    for out, paths, words in (
        ("new.xml", [page, line], "one .xml file holds one page, but 2 files"),
        ("out", [page, line], "and .*line.png has no XML"),
        ("p.xml", [page], "would overwrite"),
        (".", [page], "would overwrite"),
        ("out", [page, again], "the name of several XML files"),
    ):
        with pytest.raises(UsageError, match=words):
            output.check(KIND, tmp_path / out, paths)
    for out, paths in (
        ("new.xml", [line, line]),
        ("new.xml", [page, tmp_path / "gone.png"]),
        ("out", [page]),
        ("new.txt", [page, again, line]),
    ):
        output.check(KIND, tmp_path / out, paths)
    with pytest.raises(UsageError, match="or be a folder"):
        output.check(KIND, tmp_path / "new.doc", [page])
    with pytest.raises(UsageError, match="must end in .csv or .jsonl$"):
        output.check(TASKS["classification"], tmp_path / "out", [page])


def test_the_command_writes_copies_only_when_asked(
    command, predictor, page, tmp_path, monkeypatch
):
    monkeypatch.setattr(loading, "start", lambda run, accelerator: KIND)
    monkeypatch.setattr(loading, "load", lambda run, tables: predictor)
    run, scan = tmp_path / "run", tmp_path / "scan.png"
    run.mkdir()
    draw(scan)
    code, said, err = command("predict", run, page, scan)
    assert code == 1 and "scan.png: 300x400 pixels is a page" in err
    name = page.with_name("p.png")
    assert said == "".join(f"{name}#l{k}\t{text}\n" for k, text in enumerate(TEXTS))
    assert not list(run.iterdir())
    code, _, err = command("predict", run, page, f"--out={tmp_path / 'copies'}")
    assert (code, err) == (0, "") and not list(run.iterdir())
    assert [file.name for file in (tmp_path / "copies").iterdir()] == ["p.xml"]
    code, _, err = command("predict", run, page, f"--out={page}")
    assert code == 2 and "would overwrite" in err and len(err.splitlines()) == 1
    code, _, _ = command("predict", run, page, f"--out={tmp_path / 'p.txt'}")
    assert (tmp_path / "p.txt").read_text() == "".join(f"{t}\n" for t in TEXTS)
