"""The weights that are installed with the package."""

from pathlib import Path

import matplotlib
import pytest
from PIL import Image, ImageDraw, ImageFont

from experiments import predict
from experiments.config import check, from_dict
from experiments.errors import UsageError
from experiments.run.load_run import WEIGHTS, saved_run
from experiments.spec import DataSpec

NAMES = [path.stem for path in WEIGHTS.glob("*.safetensors")]


def test_there_are_some():
    assert NAMES == ["text-lines"]


@pytest.mark.parametrize("name", NAMES)
def test_they_tell_of_a_network_of_today(name):
    saved = saved_run(name)
    config = check(from_dict(saved["config"], name, strict=False))
    spec = DataSpec(**saved["data"])
    assert (config.data.normalize == "line") == spec.per_line


def test_a_configuration_of_another_version_is_told():
    saved = saved_run("text-lines")["config"]
    del saved["model"]["name"]
    with pytest.raises(UsageError, match="a.json .format 1. .* another version"):
        from_dict(saved, "a.json")


def test_a_folder_of_that_name_comes_first(own_folder):
    (own_folder / "text-lines").mkdir()
    assert saved_run("text-lines") is None


@pytest.mark.slow
def test_a_line_is_read(tmp_path):
    image = Image.new("L", (420, 48), 255)
    words = "Recurrent networks read lines"
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSerif.ttf")
    font = ImageFont.truetype(str(file), 24)
    ImageDraw.Draw(image).text((8, 8), words, font=font, fill=0)
    image.save(tmp_path / "line.png")
    (answer,) = predict("text-lines", tmp_path / "line.png")
    assert answer["text"] == words
