"""tfds builder of text lines, and the decoding of its splits."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from lstm_jax.data.cache import new_array
from lstm_jax.data.catalog import OWN
from lstm_jax.data.files.images import decode
from lstm_jax.data.files.line_reading import PAPER
from lstm_jax.data.files.lines import labels_of
from lstm_jax.data.synthetic import rendering
from lstm_jax.data.synthetic.fonts import LATIN, SYMBOLS, find_fonts, fonts_of
from lstm_jax.data.synthetic.own import OwnBuilder

NUMBERS = {"train": 15_000, "test": 1_000, "unseen_fonts": 1_000}
TRAINED_ON_ALL = 40_000
PAGED = 0.5  # fraction of lines with neighbouring lines around them
FEW = 500

with tfds.core.registered.skip_registration():

    class TextLines(OwnBuilder):
        """Text lines of words, numbers and punctuation, drawn as if scanned.

        The config "matplotlib" has 15,000 training lines; 1,000 test lines of other
        words; and 1,000 such lines in other typefaces, "unseen_fonts"; 95 symbols. The
        config "all" has 40,000 training lines in all fonts found; 170 symbols,
        including accented letters and typographic marks; half of the lines look
        cropped from a page. Lines are 32 pixels high; `font` names the font.
        """

        name = "text_lines"
        VERSION = tfds.core.Version(OWN["text_lines"])
        BUILDER_CONFIGS = [
            tfds.core.BuilderConfig(
                name=name, version=OWN["text_lines"], description=of
            )
            for name, of in (
                ("matplotlib", "with the fonts that Matplotlib ships"),
                ("all", "with all fonts that are installed"),
            )
        ]

        def features(self) -> dict[str, Any]:
            return {
                "image": tfds.features.Image(shape=(rendering.HEIGHT, None, 1)),
                "text": tfds.features.Text(),
                "font": tfds.features.Text(),
            }

        def parts(self) -> dict[str, tuple[int, list]]:
            fonts = find_fonts(self.builder_config.name)
            more = self.builder_config.name == "all"
            numbers = NUMBERS | ({"train": TRAINED_ON_ALL} if more else {})
            return {s: (number, fonts_of(s, fonts)) for s, number in numbers.items()}

        def _generate_examples(self, split: str, part: tuple[int, list]) -> Iterator:
            number, fonts = part
            pages = self.builder_config.name == "all" and split == "train"
            paged = PAGED if pages else 0.0
            # One process per core; for few lines starting them would take longer.
            run = joblib.Parallel(1 if number < FEW else -1, return_as="generator")
            draw = joblib.delayed(rendering.line_file)
            drawn = run(draw(split, fonts, paged, index) for index in range(number))
            for index, (file, text, font) in enumerate(drawn):
                image = io.BytesIO(file)
                yield index, {"image": image, "text": text, "font": font.name}


def decode_lines(builder: Any, label: str, size: int | None, folder: Path) -> dict:
    """Decode the splits to NAME_inputs.npy, NAME_targets.npy and NAME_lengths.npy.

    Lines of all splits are padded to the width of the widest, targets to the longest.
    """
    skip = {"image": tfds.decode.SkipDecoding()}
    alphabet = SYMBOLS + LATIN * (builder.builder_config.name == "all")
    lines, texts, notes = {}, {}, []
    for split in NUMBERS:
        stored = builder.as_data_source(split, decoders=skip)
        lines[split], texts[split], fonts = [], [], set()
        for number, example in enumerate(stored):
            where = f"{label} {split} {number}"
            lines[split].append(_scaled(example["image"], size, where))
            texts[split].append(_text(example["text"]))
            fonts.add(_text(example["font"]))
        notes.append(f"{split} is drawn with {len(fonts)} fonts: {_few(sorted(fonts))}")
    every = [image for images in lines.values() for image in images]
    widest = max(image.shape[1] for image in every)
    longest = max(len(text) for one in texts.values() for text in one)
    for split, images in lines.items():
        shape = (len(images), images[0].shape[0], widest, 1)
        path = folder / f"{split}_inputs.npy"
        inputs = new_array(path, np.uint8, shape)
        for row, image in zip(inputs, images, strict=True):
            row[:, : image.shape[1]], row[:, image.shape[1] :] = image, PAPER
        inputs.flush()
        targets = labels_of(texts[split], alphabet)
        targets = np.pad(targets, ((0, 0), (0, longest - targets.shape[1])))
        np.save(folder / f"{split}_targets.npy", targets)
        widths = np.asarray([image.shape[1] for image in images], np.int32)
        np.save(folder / f"{split}_lengths.npy", widths)
    return {"classes": list(alphabet), "notes": notes}


def _scaled(file: bytes, size: int | None, where: str) -> np.ndarray:
    """An image scaled to a height, uint8 [H, W, 1], keeping the aspect ratio."""
    with Image.open(io.BytesIO(file)) as image:
        width, height = image.size
    if size:
        width, height = max(round(width * size / height), 1), size
    return decode(io.BytesIO(file), (height, width, 1), where)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (", …" if names[6:] else "")
