"""Runs that read lines of text: a folder, predict, another alphabet, mistakes."""

import json
import re
import xml.etree.ElementTree as ET

import jax
import numpy as np
import pytest
from PIL import Image, ImageDraw
from small_runs import SAVE_FIGURE, kept_figures

from experiments import train
from experiments.benchmarks import tesseract
from experiments.config import override, preset
from experiments.errors import UsageError
from experiments.experiment import Experiment, load_data
from experiments.models import MODELS
from experiments.predict import main, predict
from experiments.prediction import alto
from experiments.prediction import trained as prediction
from experiments.report import report
from experiments.run.init_from import known_labels, weights_from
from experiments.spec import DataSpec
from experiments.tasks import TASKS
from lstm_jax import data
from lstm_jax.data.synthetic import line_builder
from lstm_jax.data.synthetic.fonts import _matplotlib, face
from lstm_jax.interop import write_safetensors
from lstm_jax.training import flatten_params

SPEC = "[1,16,0,1 Cr5,3,16,4,2 S1(1x0)1,3 Lbx24]"
SMALL = dict(
    accelerator="cpu",
    steps=140,
    batch_size=8,
    eval_every=70,
    data__buckets=1,
    model__spec=SPEC,
    optimizer="adam",  # for a network without norms, and few steps
    optimizer__learning_rate=2e-2,
    optimizer__schedule__warmup_steps=20,
)


def draw(path, text):
    """A line of text, 24 pixels high."""
    font = face(str(_matplotlib("DejaVuSans.ttf")), 18)
    image = Image.new("L", (int(font.getlength(text)) + 8, 24), 230)
    ImageDraw.Draw(image).text((4, 1), text, 20, font)
    image.save(path)


def fill(folder, count, letters, seed):
    """Lines of three to six letters, and their texts."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for k in range(count):
        text = "".join(rng.choice(list(letters), rng.integers(3, 7))).strip() or "o"
        text = " ".join(text.split())
        draw(folder / f"{k:03}.png", text)
        (folder / f"{k:03}.gt.txt").write_text(text + "\n")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("lines") / "first", 160, "oxL ", 0)


@pytest.fixture(scope="module")
def trained(folder):
    """A run, and its figures by path."""
    path = folder.parent / "run"
    with kept_figures() as kept:
        return train("text-lines", data=folder, run_dir=path, **SMALL), kept


@pytest.fixture(scope="module")
def run(trained):
    return trained[0]


def test_it_learns_and_the_report_tells_how_well(run, folder):
    test = run.report["test"]
    assert test["cer"] < 0.05 and 0 <= test["wer"] < 0.2 and test["exact"] > 0.7
    assert test["examples"] == run.report["data"]["examples"]["test"]
    assert (run.directory / "test_lines.csv").stat().st_size > 100
    saved = json.loads((run.directory / "config.json").read_text())
    assert saved["data"]["classes"] == [" ", "L", "o", "x"]
    assert saved["data"]["outputs"] == 5


def test_its_figures_are_drawn(trained, tmp_path):
    run, kept = trained
    for name in ("lines.png", "worst_lines.png", "confusions.png"):
        SAVE_FIGURE(tmp_path / name, kept[run.directory / name])
        assert (tmp_path / name).stat().st_size > 1000


def test_predict_reads_and_writes_texts_places_and_alto(run, folder, tmp_path, capsys):
    (folder.parent / "empty.png").write_bytes(b"")
    Image.new("L", (40, 1)).save(folder.parent / "low.png")
    paths = [folder / "000.png", folder.parent / "empty.png", folder / "001.png"]
    paths += [folder.parent / "low.png"]
    for suffix in ("txt", "jsonl", "xml", "csv"):
        out = tmp_path / f"out.{suffix}"
        code = main([str(run.directory), *map(str, paths), f"--out={out}"])
        assert code == 1  # for two cannot be read
    told = capsys.readouterr()
    wanted = [(folder / f"{k:03}.gt.txt").read_text().strip() for k in range(2)]
    assert f"{paths[0]}\t{wanted[0]}\n" in told.out
    assert "empty.png" in told.err and "1 pixel" in told.err
    texts = (tmp_path / "out.txt").read_text().split("\n")
    assert texts == [wanted[0], "", wanted[1], "", ""]
    rows = [
        json.loads(row) for row in (tmp_path / "out.jsonl").read_text().splitlines()
    ]
    assert [row.get("text") for row in rows] == [wanted[0], None, wanted[1], None]
    assert "error" in rows[1] and "error" in rows[3]
    first = rows[0]["characters"]
    assert "".join(one["character"] for one in first) == wanted[0]
    ends = [x for one in first for x in one["x"]]
    assert ends == sorted(ends) and 0 <= ends[0] and ends[-1] <= rows[0]["size"][0]
    root = ET.parse(tmp_path / "out.xml").getroot()
    space = {"a": alto.ALTO}
    pages = root.findall(".//a:Page", space)
    words = [[s.get("CONTENT") for s in p.findall(".//a:String", space)] for p in pages]
    assert words == [wanted[0].split(), [], wanted[1].split(), []]
    names = [e.text for e in root.findall(".//a:fileIdentifier", space)]
    assert names == [str(path) for path in paths]


def test_a_line_reads_alike_whatever_it_is_padded_to(run, folder):
    config = override(preset("text-lines"), SMALL | {"data": str(folder)})
    saved = json.loads((run.directory / "config.json").read_text())["data"]
    about = DataSpec(**saved)
    forward = Experiment(config, about).apply
    image = data.read_line(folder / "000.png", 16)
    task = Experiment(config, about).task

    @jax.jit
    def answer(inputs, lengths, batch):
        logits = forward(run.params, dict(inputs=inputs, lengths=lengths))[0]
        return task.predict(logits), task.loss(logits, batch)[0]

    texts, losses = [], []
    for width in (image.shape[1], 160):
        inputs = np.full((2, 16, width, 1), 0, np.uint8)
        inputs[0, :, : image.shape[1]] = image
        lengths = np.int32([image.shape[1], width])
        targets = np.int32([[2, 3, 4, 3], [2, 0, 0, 0]])
        batch = dict(targets=targets, mask=np.float32([1, 0]))
        predicted, loss = answer(inputs, lengths, batch)
        texts.append(np.asarray(predicted)[0, :8, 0].tolist())
        losses.append(float(loss))
    assert texts[0] == texts[1] and any(texts[0])
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


def test_a_thousand_lines_compile_no_more_than_eight_programs(run, folder):
    config = override(preset("text-lines"), SMALL)
    saved = json.loads((run.directory / "config.json").read_text())["data"]
    shapes = set()

    class Blank:
        spec, tables = DataSpec(**saved), data.TableFormat()

        def __call__(self, inputs, lengths):
            shapes.add(inputs.shape)
            return np.zeros((len(inputs), 2, 4), np.float32)

    files = []
    for k, width in enumerate(np.geomspace(6, 3000, 60).astype(int)):
        path = folder.parent / f"wide{k}.png"
        pixels = np.full((16, width), 255, np.uint8)
        pixels[4] = 0
        Image.fromarray(pixels).save(path)
        files.append(path)
    predictor = Blank()
    predictor.config = config
    found = list(TASKS["text_recognition"].predict(predictor, files))
    assert sum("error" not in row for row in found) >= 55
    assert len(shapes) <= 8


def blank_params(config, about):
    """Zeros, as no program makes them."""
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: Experiment(config, about).init(key))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def test_characters_that_are_known_keep_their_weights(run, tmp_path):
    more = fill(tmp_path / "more", 24, "ox7", 1)
    options = SMALL | dict(data=str(more), init_from=str(run.directory))
    config = override(preset("text-lines"), options)
    loaded = load_data(config, known_labels(config, tmp_path / "none"))
    about = Experiment(config, dataset=loaded).spec
    assert about.classes == [" ", "L", "o", "x", "7"]
    blank = blank_params(config, about)
    filled, told = weights_from(str(run.directory), about, blank)
    assert "for 4 classes of the same name" in " ".join(told)
    for path, leaf in flatten_params(run.params).items():
        ours = flatten_params(filled)[path]
        if ours.shape != leaf.shape:  # of the output layer, whose first is no character
            ours, leaf = ours[..., 1:5], leaf[..., 1:]
        np.testing.assert_array_equal(ours, leaf)


@pytest.mark.slow
def test_fine_tuning_keeps_what_it_knows_and_learns_new_characters(run, folder, capsys):
    more = fill(folder.parent / "more", 60, "ox7", 1)
    options = SMALL | dict(steps=60, init_from=run.directory)
    again = train("text-lines", data=more, run_dir=folder.parent / "again", **options)
    saved = json.loads((again.directory / "config.json").read_text())["data"]
    assert saved["classes"] == [" ", "L", "o", "x", "7"]
    out = capsys.readouterr().out
    assert "for 4 classes of the same name" in out
    assert again.report["test"]["cer"] < 0.15
    forgotten, first = again.report["forgotten"], run.report["test"]
    assert forgotten["before"] == pytest.approx(first["cer"])
    assert forgotten["examples"] == first["examples"] and forgotten["after"] < 1
    assert "of its own test examples the character error rate was" in out
    assert 0 <= again.report["splits"]["train"]["cer"] < 0.15
    (answer,) = predict(run.directory, folder / "002.png")
    assert answer["text"] == (folder / "002.gt.txt").read_text().strip()


def test_lines_with_more_to_say_than_steps_are_told_and_left_out(folder, tmp_path):
    config = override(
        preset("text-lines"),
        SMALL
        | {"data": str(folder), "model.spec": "[1,16,0,1 Cr5,9,8,4,9 S1(1x0)1,3]"},
    )
    loaded = load_data(config)
    (note,) = [
        note for note in loaded.notes if "more characters than time steps" in note
    ]
    kept = loaded.splits["train"]
    assert note.startswith("skipped ") and 0 < len(kept.inputs) < 128
    assert re.search(r"such as \d+\.png: '", note)
    spec = MODELS["vgsl"].line_spec(config, 5)
    assert (spec.steps(kept.lengths) >= (kept.targets != 0).sum(-1)).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model.spec": "[1,16,0,1 Cr5,3 Lbx8]"}, "character 16"),
        ({"model.spec": "[1,16,0,1 Lbx8 O2s5]"}, "text recognition uses CTC"),
        ({"data.size": 20}, "needs lines of 16 pixels"),
        ({"model": "classifier"}, "text_recognition has vgsl and crnn"),
        ({"augment.translate": 1}, "is an option of --task=classification"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, options, words, capsys):
    flags = SMALL | {"data": str(folder)}
    flags = {k.replace("__", "."): v for k, v in flags.items()} | options
    if "model" in options:
        del flags["model.spec"]
    line = [f"--{k.replace('_', '-')}={v}" for k, v in flags.items()]
    from experiments.train import main as train_main

    assert train_main(["text-lines", *line]) == 2
    assert words in capsys.readouterr().err


def test_another_preset_says_which_one_reads_lines(folder, command):
    code, _, err = command("train", "digits", f"--data={folder}")
    assert code == 2 and "use the preset text-lines" in err


def test_live_reading_begins_before_all_is_read(run, folder):
    predictor = prediction.predictor(run.directory)
    answers = predictor.kind.predict(predictor, [folder])
    assert next(answers)["path"].endswith("000.png")


def test_one_file_of_weights_reads_and_is_fine_tuned(run, folder, tmp_path, command):
    file = tmp_path / "lines.safetensors"
    code, _, _ = command("export", run.directory, f"--out={file}")
    assert code == 0 and str(folder.parent) not in file.read_bytes().decode("latin-1")
    paths = [folder / f"{k:03}.png" for k in range(4)]
    want, got = predict(run.directory, *paths), predict(file, *paths)
    assert [row["text"] for row in got] == [row["text"] for row in want]
    code, out, _ = command("predict", file, paths[0])
    assert code == 0 and out == f"{paths[0]}\t{want[0]['text']}\n"
    code, _, err = command("export", run.directory, "--out=x.jaxexport")
    assert code == 2 and "only the weights can be exported" in err
    config = override(preset("text-lines"), {"init_from": str(file)})
    assert known_labels(config, tmp_path / "none") == [" ", "L", "o", "x"]
    bad = tmp_path / "bad.safetensors"
    write_safetensors(bad, {"a": np.zeros(3)})
    code, _, err = command("predict", bad, paths[0])
    assert code == 2 and "does not say which network" in err


@pytest.mark.slow
def test_the_report_shows_lines_and_rates(run, monkeypatch):
    monkeypatch.setattr("experiments.reporting.page.DPI", 40)
    made = report(run.directory)
    assert made.numbers["test"]["cer"] == pytest.approx(run.report["test"]["cer"])
    low, high = made.numbers["intervals"]["cer"]
    assert low <= made.numbers["test"]["cer"] <= high
    page = made.path.read_text()
    assert "character error rate" in page and "The worst lines" in page


def test_reading_beside_tesseract_where_there_is_none(run, folder, monkeypatch, capsys):
    monkeypatch.setattr("shutil.which", lambda name: None)
    found = tesseract.text_recognition(
        tesseract.TextRecognition(run.directory, split="test", data=str(folder))
    )
    want = run.report["test"]["cer"]
    assert found["ours"]["cer"] == pytest.approx(want) and "tesseract" not in found
    normalized = (
        tesseract._normalized_cer(["à ‘b’—"], ["a 'b' -"]),
        tesseract._normalized_cer("a", "b"),
    )
    assert normalized == (0, 1)
    assert "apt install tesseract-ocr" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no split unseen_fonts"):
        tesseract.text_recognition(
            tesseract.TextRecognition(run.directory, data=str(folder))
        )


@pytest.mark.slow
def test_the_report_also_has_what_is_read_of_unseen_fonts(tmp_path, monkeypatch):
    few = {"train": 40, "test": 6, "unseen_fonts": 5}
    monkeypatch.setattr(line_builder, "NUMBERS", few)
    options = SMALL | dict(
        steps=2, eval_every=2, model__spec=SPEC.replace("1,16", "1,32", 1)
    )
    found = train("text-lines", data__dir=tmp_path / "data", run_dir="run", **options)
    report = json.loads((found.directory / "report.json").read_text())
    assert report["unseen_fonts"]["examples"] == 5 and report["test"]["examples"] == 6
    assert report["unseen_fonts"]["cer"] > 0 and report["test"]["cer"] > 0
