"""What the README and the page on the library show runs as it stands there."""

import importlib
import json
import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import experiments
from experiments import cli, train
from experiments.config import flag, options, preset
from experiments.experiment import Experiment
from experiments.flags import SHORT, parse
from experiments.presets import PRESETS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LIBRARY = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
REPOSITORY = "https://github.com/lstm-jax/lstm_jax"
PYTHON = re.compile(r"(?:chrt -r 10 )?(?:python -m )?experiments\.(\w+)\b(.*)")
COPIES = 24  # of each file of a data set, so that every split has some
SMALL = {  # in place of what the README trains
    "steps": 8,
    "eval_every": 8,
    "accelerator": "cpu",
    "model__features": 8,
    "model__layers": 1,
    "model__bidirectional": False,
}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def shell_lines() -> list[str]:
    """Lines of bash, and those of consoles that begin with a prompt."""
    consoles = "".join(blocks(README, "console"))
    prompts = re.findall(r"^\$ (.*)$", consoles, re.MULTILINE)
    return "".join(blocks(README, "bash")).splitlines() + prompts


def in_prose() -> list[str]:
    """What stands between backticks outside of blocks."""
    return re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))


def output_lines(text: str) -> set[str]:
    """Lines whose numbers and spaces do not matter."""
    lines = (re.sub(r"\d[\d,.]*", "#", line) for line in text.splitlines())
    return {" ".join(line.split()) for line in lines}


# Commands


@pytest.fixture
def parsed(monkeypatch):
    """Parses a command of ours without running it; fails for one that it refuses."""
    run = cli.run

    def only_parse(name, kinds, command, *rest, **more):
        return run(name, kinds, lambda chosen: None, *rest, **more)

    monkeypatch.setattr(cli, "run", only_parse)

    def read(name, words):
        module = importlib.import_module(f"experiments.{name}")
        if name == "train":
            parse(words)
        elif name == "sweep":
            module.parse(words)
        else:
            assert module.main(words) == 0

    return read


def test_every_command_of_the_readme_parses(parsed):
    count = 0
    for line in shell_lines():
        for words in " ".join(shlex.split(line, comments=True)).split(" && "):
            if found := PYTHON.fullmatch(words):
                parsed(found[1], found[2].split())
                count += 1
            elif words.startswith("make "):
                target = words.split()[1]
                assert f"\n{target}:" in (ROOT / "Makefile").read_text()
            else:
                assert words in {
                    f"git clone {REPOSITORY}",
                    "cd lstm_jax",
                    "source .venv/bin/activate",
                }
    assert count >= 10


def test_every_flag_in_the_prose_of_the_readme_exists(parsed):
    known = {flag(option.name) for option in options(preset("digits"))}
    known.add("--check-data")
    commands = flags = 0
    for words in in_prose():
        first = words.split()[0]
        if found := PYTHON.fullmatch(words.replace("PRESET", "digits")):
            parsed(found[1], found[2].split())
            commands += 1
        elif first in PRESETS and words != first:
            parsed("train", words.split())
            commands += 1
        elif first.startswith("--"):
            assert first.partition("=")[0] in known | SHORT.keys(), words
            flags += 1
    assert commands >= 6 and flags >= 3


def test_the_table_of_the_readme_names_every_preset():
    rows = [row.split("|")[1] for row in README.splitlines() if row.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([\w-]+)`", row)]
    # `digits` also begins a row of results.
    assert sorted({*named}) == sorted(PRESETS) and len(named) == len(PRESETS) + 1


def test_the_readme_is_short_and_installs_nothing_unpublished():
    assert len(README.splitlines()) <= 130
    assert "pip install lstm_jax" not in README


@pytest.mark.parametrize("page", ["README.md", "docs/library.md"])
def test_what_a_page_links_to_is_there(page):
    path = ROOT / page
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert links
    missing = [link for link in links if not (path.parent / link).exists()]
    assert not missing, missing


# A first run


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A working folder, and one of prepared data that is nobody's."""
    jax.devices()  # started, so that no command gives this process other devices
    monkeypatch.setenv("LSTM_JAX_DATA", str(tmp_path / "prepared"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_first_run_of_the_readme_prints_and_answers_what_it_says(
    own_folder, monkeypatch, capsys
):
    def smaller(name, **given):
        return train(name, **given | SMALL)

    (console,) = blocks(README, "console")
    command, *output = console.splitlines()
    name, given = parse(shlex.split(PYTHON.search(command)[2]))
    smaller(name, baselines=given.baselines)
    expected = output_lines("\n".join(output)) - {"…"}
    assert len(expected) >= 3 and expected <= output_lines(capsys.readouterr().out)

    # The same again, with nothing left to train.
    monkeypatch.setattr(experiments, "train", smaller)
    block = next(b for b in blocks(README, "python") if "train(" in b)
    assert f'train("{name}", steps={given.steps})' in block
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save("digit.png")
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    run = names["run"]
    assert run.directory == Path("runs", name)
    assert all(hasattr(figure, "savefig") for figure in (run.curves(), run.confusion()))
    shown = re.search(r"predict\(.*# \[(.*)\]", block)[1]
    (answer,) = run.predict("digit.png")
    keys = re.findall(r'"(\w+)":', shown)
    assert len(keys) >= 3 and list(answer)[: len(keys)] == keys


# Data of one's own


def trees() -> dict[str, list[str]]:
    """The files of each folder that the README draws, side by side."""
    (drawn,) = blocks(README, "text")
    first, *rest = (re.split(r"\s{2,}", line.strip()) for line in drawn.splitlines())
    assert all(len(row) == len(first) for row in rest)
    files = zip(*rest, strict=True)
    return {
        name.removesuffix("/"): [re.sub("[├└─ ]", "", file) for file in column]
        for name, column in zip(first, files, strict=True)
    }


def write_video(path: Path, frames) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        for frame in frames:
            frame = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write(path: Path, number: int, rng) -> None:
    """A copy of a file of the README, as its name says what it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        write_video(path, rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8))
    elif path.name.endswith(".gt.txt"):
        path.write_text(f"line {number}", encoding="utf-8")
    elif path.parent.name == "masks":
        Image.fromarray(rng.integers(0, 3, (32, 48), dtype=np.uint8)).save(path)
    else:
        Image.fromarray(rng.integers(0, 256, (32, 48), dtype=np.uint8)).save(path)


def annotations(images: list[str]) -> dict:
    """A box in each image, as COCO has them."""
    size = {"width": 48, "height": 32}
    boxes = [
        {"id": k, "image_id": k, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400}
        for k in range(len(images))
    ]
    return {
        "images": [{"id": k, "file_name": f} | size for k, f in enumerate(images)],
        "annotations": [box | {"iscrowd": 0} for box in boxes],
        "categories": [{"id": 1, "name": "thing"}],
    }


def test_there_is_a_command_for_every_folder_that_the_readme_draws():
    given = re.findall(r"train.* --data=(\w+)", "\n".join(shell_lines()))
    assert {*given} == trees().keys() and len(trees()) >= 5


@pytest.mark.parametrize("folder", sorted(trees()))
def test_a_folder_as_the_readme_draws_it_can_be_trained_on(folder, own_folder):
    command = next(x for x in shell_lines() if re.search(rf"train.*data={folder}\b", x))
    rng, images = np.random.default_rng(0), []
    for file in trees()[folder]:
        if file == "annotations.json":
            continue
        for number in range(COPIES):
            own = file.replace("1.", f"{number}.")
            write(Path(folder, own), number, rng)
            images.append(Path(own).name)
    if "annotations.json" in trees()[folder]:
        Path(folder, "annotations.json").write_text(json.dumps(annotations(images)))
    _, config = parse(shlex.split(PYTHON.search(command.partition("#")[0])[2]))
    experiment = Experiment(config)
    assert experiment.spec is not None  # what the task asks of data is there
    sizes = {name: len(s.inputs) for name, s in experiment.dataset.splits.items()}
    classes = 2 if folder in ("photos", "clips") else 1
    assert sum(sizes.values()) == COPIES * classes and min(sizes.values()) > 0


# The library


def run_blocks(text: str, at_least: int) -> dict:
    """Runs the Python blocks of a text, one after another."""
    found = blocks(text, "python")
    assert len(found) >= at_least
    names: dict = {}
    for block in found:
        exec(compile(block, "page", "exec"), names)
        if "logits" in block:
            assert names.pop("logits").shape == (32, 10)
    return names


def test_the_code_of_the_page_on_the_library_runs():
    names = run_blocks(LIBRARY, 4)
    assert names["ys"].shape == (20, 32, 28)
    assert not names["ys"][15:].any() and jnp.abs(names["ys"][:15]).min() > 0
    classify, images = names["model"].init_with_output, names["images"]
    logits, _ = jax.eval_shape(classify, jax.random.key(0), images[..., None])
    assert logits.shape == (32, 10)


def test_the_cell_of_the_readme_is_the_equation_of_a_leaky_rnn():
    section = README.split("## As a library")[1].split("\n## ")[0]
    names = run_blocks(section, 1)
    assert names["ys"].shape == (20, 8, 32)
    assert not names["ys"][15:].any() and jnp.abs(names["ys"][:15]).min() > 0

    cell = names["rnn"](32)._replace(gates=names["leaky_gates"])
    params = cell.init(jax.random.key(0), (3,))
    xs = jax.random.normal(jax.random.key(1), (5, 2, 3))
    h = jnp.zeros((2, 32))
    for x in xs:
        new = jnp.tanh(x @ params["w_x"] + h @ params["w_h"] + params["b"])
        h = 0.9 * h + 0.1 * new
    ys, carry = names["unroll"](cell, params, xs)
    # Float32, five steps of sums of a few products.
    np.testing.assert_allclose(ys[-1], h, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(carry.h, ys[-1])


def test_the_tests_that_the_page_on_reliability_names_exist():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"\| `(\S+\.py)` \| `(test_\w+)` \|", page)
    assert len(named) > 20
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")
