"""A recogniser of kraken's: predict reads with it, and train goes on from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import train
from experiments.config import UsageError
from experiments.predict import predict
from lstm_jax import tasks
from lstm_jax.models import Reader, load_kraken
from lstm_jax.models.vgsl import parse
from tests.experiments.test_train_lines import SMALL, fill
from tests.models.kraken_files import write

SPEC = "[1,16,0,1 Cr{C_0}5,3,16,4,2 S{S_1}1(1x0)1,3 Lbx{L_2}24 O{O_3}1c4]"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("kraken") / "oxL.safetensors"
    blank = jnp.zeros((1, 16, 40, 1))
    params = Reader(parse(SPEC)).init(jax.random.key(3), blank)["params"]
    params = jax.tree.map(lambda x: 2 * np.asarray(x), params)  # sure of what it reads
    return write(path, SPEC, params, "xoL")


def test_predict_inverts_a_line_and_puts_paper_around_it(file, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 60), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "line.png")
    (answer,) = predict(file, tmp_path / "line.png")
    found = load_kraken(file)
    paper = np.pad(1 - pixels / 255, ((0, 0), (16, 16)))[None, ..., None]
    logits = Reader(found.spec).apply({"params": found.params}, jnp.float32(paper))
    labels = np.asarray(tasks.ctc.greedy(logits).labels[0])
    assert answer["text"] == tasks.text_of(labels, "xoL") and len(answer["text"]) > 3
    places = np.asarray([one["x"] for one in answer["characters"]])
    assert places.min() >= 0 and places.max() <= 60
    assert (places[1:, 0] >= places[:-1, 1]).all()


def test_training_goes_on_from_it(file, tmp_path, capsys):
    folder = fill(tmp_path / "lines", 24, "oxL-", 0)
    options = SMALL | dict(steps=4, eval_every=4, init_from=str(file), data=folder)
    with pytest.raises(UsageError, match="its network is") as caught:
        train("text-lines", run_dir=tmp_path / "no", **options)
    told = str(caught.value).split("its network is ")[1]
    assert f"--model.spec='{load_kraken(file).spec}'" in told
    assert told.endswith(" --model.margin=16 --data.normalize=inverted")
    options |= dict(model__spec=SPEC.replace("O{O_3}", "O"), model__margin=16)
    run = train(
        "text-lines", run_dir=tmp_path / "run", data__normalize="inverted", **options
    )
    assert run.report["test"]["examples"]
    shown = capsys.readouterr().out
    assert "begin as they are there" in shown and "for 3 classes" in shown
    assert (run.directory / "worst_lines.png").stat().st_size > 100


def test_a_damaged_file_is_told_of_in_one_line(file, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UsageError, match=r"broken\.safetensors") as caught:
        predict(broken, tmp_path)
    assert "\n" not in str(caught.value)
