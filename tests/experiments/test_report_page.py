"""The page of a report: whole, self-contained, and safe whatever names are in it."""

import base64
import html
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from small_runs import ODD_NAMES

from experiments.reporting import page
from experiments.reporting.page import Code, Fold, Section, Table, Tiles, Words
from lstm_jax.figures.style import figure

VOID = {"meta", "link", "img", "br", "hr", "input"}
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)


class Reader(HTMLParser):
    """Elements with their attributes, text outside of style; unbalanced tags fail."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.text, self.style = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text.append(data)


@pytest.fixture(scope="module")
def text(odd_report):
    return odd_report.path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def read(text):
    return Reader(text)


def test_nothing_is_loaded_from_elsewhere(read):
    allowed = {"img": ("src", "data:image/png;base64,"), "a": ("href", "#")}
    allowed["link"] = ("href", "data:,")
    for tag, attributes in read.elements:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                wanted, start = allowed[tag]
                assert name == wanted and value.startswith(start), (tag, value[:60])
            if name == "style":
                assert "(" not in value and "/" not in value, value
    assert "url(" not in read.style and "@import" not in read.style
    assert "//" not in read.style
    (policy,) = (
        attributes["content"]
        for tag, attributes in read.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")


def test_every_picture_is_whole_and_has_words(read):
    pictures = [a for tag, a in read.elements if tag == "img"]
    assert len(pictures) >= 6
    for attributes in pictures:
        content = base64.b64decode(attributes["src"].partition(",")[2], validate=True)
        assert content.startswith(b"\x89PNG") and b"IEND" in content[-12:]
        assert len(attributes["alt"]) > 10


def test_ids_are_unique_and_links_lead_somewhere(read):
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(set(ids)) == len(ids) > 5
    links = [a["href"][1:] for tag, a in read.elements if tag == "a"]
    assert links == ids
    assert sum(tag == "h1" for tag, _ in read.elements) == 1


def test_names_are_words_and_never_elements(text, read):
    words = "".join(read.text)
    for name in ODD_NAMES:
        assert name in words
        if html.escape(name) != name:
            assert name not in text
    assert '<b>&"digits' in words
    assert "b" not in {tag for tag, a in read.elements if tag == "b" and a}


def test_it_is_made_for_phones_and_for_the_dark(read):
    metas = {a.get("name"): a.get("content") for t, a in read.elements if t == "meta"}
    assert "width=device-width" in metas["viewport"]
    assert "prefers-color-scheme: dark" in read.style
    # what may be wider than a phone scrolls by itself, an image fits and is enlarged
    assert ".scroll { overflow-x: auto; max-width: 100%; }" in read.style
    assert re.search(r"figure img \{[^}]*max-width: 100%;", read.style)
    wide = [k for k, (name, _) in enumerate(read.elements) if name == "table"]
    for k in wide:
        assert read.elements[k - 1] == ("div", {"class": "scroll"})
    images = [k for k, (name, _) in enumerate(read.elements) if name == "img"]
    for k in images:
        label, box, (_, image) = read.elements[k - 2 : k + 1]
        assert label == ("label", {"class": "scroll"})
        assert box[0] == "input" and box[1]["type"] == "checkbox"
        assert re.fullmatch(r"width: \d+px", image["style"])
    light, dark = (
        set(re.findall(r"(--[a-z-]+):", part))
        for part in read.style.split("prefers-color-scheme: dark")[:2]
    )
    assert light >= set(re.findall(r"var\((--[a-z-]+)\)", read.style))
    assert dark >= light


MEASURE = """<script>
const root = document.documentElement;
const shown = e => !e.closest("label.scroll, div.scroll") || e.matches(".scroll, img");
const wide = [...document.body.querySelectorAll("*")].filter(e => shown(e)
  && e.getBoundingClientRect().right > root.clientWidth + 0.5);
document.title = [innerWidth, root.scrollWidth - root.clientWidth,
  ...wide.map(e => e.tagName + "." + e.className)].join(" ");
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_nothing_is_wider_than_a_phone(text, tmp_path):
    frame = '<iframe width="390" height="844" src="page.html"></iframe>'
    measured = re.sub(r"<meta http-equiv[^>]*>", "", text)
    measured = measured.replace("<details>", "<details open>")
    script = MEASURE.replace("document.title", "parent.document.title")
    (tmp_path / "page.html").write_text(measured.replace("</body>", script))
    (tmp_path / "phone.html").write_text(f"<html><body>{frame}</body></html>")
    done = _chromium(
        tmp_path, "--allow-file-access-from-files", "--disable-web-security"
    )
    width, past, *wide = re.search("<title>(.*)</title>", done.stdout)[1].split()
    assert (width, past, wide) == ("390", "0", [])


def _chromium(folder, *options, page=None):
    """The document that chromium makes of a page, and what it logs."""
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr",
            "--virtual-time-budget=2000",
            *options,
            "--dump-dom",
            (page or folder / "phone.html").resolve().as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_a_browser_shows_all_of_it(odd_report, tmp_path):
    done = _chromium(tmp_path, page=odd_report.path)
    shown = Reader(done.stdout)
    assert "CONSOLE" not in done.stderr  # a refused request would be told there
    written = Reader(odd_report.path.read_text(encoding="utf-8"))
    assert [tag for tag, _ in shown.elements] == [tag for tag, _ in written.elements]
    assert "".join("".join(shown.text).split()) == "".join(
        "".join(written.text).split()
    )


def test_blocks_by_hand(capsys):
    blocks = (
        Words("a < b & c", "warning"),
        Code("python -m x --y='1'"),
        Table(("", "n"), (("<i>", "1"),)),
        Fold("more", (Words("inside"),)),
    )
    lead = (Tiles((("accuracy", "0.5", "0.4 to 0.6"),)),)
    made = page.html("T & t", lead, [Section("One two", blocks)])
    read = Reader(made)
    assert '<p class="warning">a &lt; b &amp; c</p>' in made
    assert "<td>&lt;i&gt;</td><td>1</td>" in made
    assert "<pre>python -m x --y=&#x27;1&#x27;</pre>" in made
    assert ("section", {"id": "one-two"}) in read.elements
    assert "<details><summary>more</summary>\n<p" in made

    page.show("T & t", lead, [Section("One two", blocks)])
    out = capsys.readouterr().out
    for words in ("T & t", "accuracy  0.5  0.4 to 0.6", "One two", "a < b & c", "<i>"):
        assert words in out
    assert "inside" not in out  # what is folded stays on the page


def test_a_caption_names_the_characters_that_no_font_has():
    fig = figure(3, 2)
    fig.text(0.1, 0.5, "\u0378")
    made = page.html("t", (page.Picture(fig, "Words."),), [])
    assert "<figcaption>Words. No installed font has U+0378: install" in made


@pytest.mark.parametrize(
    "count, words",
    [(None, "–"), (1023, "1,023 bytes"), (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB")],
)
def test_sizes(count, words):
    assert page.size(count) == words
