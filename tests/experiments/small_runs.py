"""What tests of the commands share besides fixtures: small runs, pictures, figures."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.run import record

SMALL = dict(accelerator="cpu", steps=20, batch_size=16, baselines=False)
# Tests that agree on a network also share its compiled programs.
SMALL_MODEL = dict(
    model__features=8,
    model__layers=1,
    model__order="rows",
    model__bidirectional=False,
    model__dropout=0.0,
    augment__translate=0,
)
SMALL_FLAGS = (
    "--accelerator=cpu --steps=20 --batch-size=16 --no-baselines "
    "--model.features=8 --model.layers=1 --model.order=rows "
    "--model.no-bidirectional --model.dropout=0 --augment.translate=0"
).split()


def last_of_each(arguments):
    """Arguments without the flags that come again later, which commands refuse."""
    words = [str(argument) for argument in arguments]
    names = [word.partition("=")[0] for word in words]
    return [
        word
        for k, (word, name) in enumerate(zip(words, names, strict=True))
        if not name.startswith("--") or name not in names[k + 1 :]
    ]


ODD_NAMES = [
    "<script>alert(1)</script>",
    '"><img src="http://example.org/x.png">',
    "$x_1$ & </style>",
    "url(//example.org)",
    "&lt;i&gt;",
]

SAVE_FIGURE = record.save_figure


def blank_figure(path, figure):
    """A file of one pixel: most tests read nothing in what costs them half a second."""
    Image.new("L", (1, 1)).save(path)


@contextlib.contextmanager
def kept_figures():
    """Figures are kept by their paths: a test of its own draws them."""
    kept = {}

    def keep(path, figure):
        blank_figure(path, figure)
        kept[path] = figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "save_figure", keep)
        yield kept


def draw(path: Path, label: str, rng, size=(12, 12), mode="L"):
    """A picture with a bright bar, "across" or "down"."""
    width, height = size
    pixels = rng.integers(0, 60, (height, width)).astype(np.uint8)
    if label == "across":
        at = rng.integers(1, height - 2)
        pixels[at : at + 2] = 255
    else:
        at = rng.integers(1, width - 2)
        pixels[:, at : at + 2] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
