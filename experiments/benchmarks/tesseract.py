"""Accuracy and speed of a text recogniser and of Tesseract on the same images."""

import os
import shutil
import subprocess
import tempfile
import time
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from experiments.benchmarks import tables
from experiments.benchmarks.options import TextRecognition
from experiments.config import override
from experiments.errors import UsageError
from experiments.experiment import load_data
from experiments.prediction.trained import predictor as predictor_of
from lstm_jax import tasks
from lstm_jax.tasks.text_recognition import scores


def text_recognition(options: TextRecognition) -> dict[str, Any]:
    """Prints character and word error rates and lines per second of both."""
    predictor = predictor_of(options.run)
    config = predictor.config
    if predictor.kind.target_type != "text":
        raise UsageError(f"{options.run} is not a run of the task text_recognition")
    if options.data:
        config = override(config, {"data": options.data})
    dataset = load_data(config, predictor.spec.classes)
    split = (dataset.splits | (dataset.more or {})).get(options.split)
    if split is None:
        raise UsageError(f"{dataset.name} has no split {options.split}")
    count = min(options.limit, len(split.inputs))
    true = [tasks.text_of(row, dataset.classes) for row in split.targets[:count]]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = _write_images(Path(folder), split, count, 1)
        start = time.perf_counter()
        texts, first = [], 0.0
        for prediction in predictor.kind.predict(predictor, files):
            first = first or time.perf_counter() - start
            texts.append(prediction.get("text", ""))
        found["ours"] = _scored(true, texts, time.perf_counter() - start)
        found["ours"]["first_line_after"] = first
        if shutil.which("tesseract"):
            files = _write_images(Path(folder), split, count, options.scale)
            start = time.perf_counter()
            texts = _tesseract(Path(folder), files)
            found["tesseract"] = _scored(true, texts, time.perf_counter() - start)
    _show(f"{count:,} lines, {dataset.name}, {options.split}", found)
    return found


def _scored(true: list[str], texts: list[str], seconds: float) -> dict[str, float]:
    found = scores(true, texts) | {"lines_per_second": len(true) / seconds}
    return found | {"normalized_cer": _normalized_cer(true, texts)}


def _normalized_cer(true: list[str], texts: list[str]) -> float:
    return scores(list(map(_normalized, true)), list(map(_normalized, texts)))["cer"]


def _normalized(text: str) -> str:
    """The text without spaces and accents, and with one kind of quotes and dashes."""
    parts = unicodedata.normalize("NFD", "".join(text.split()))
    plain = "".join(part for part in parts if not unicodedata.combining(part))
    return plain.translate(str.maketrans("‘’“”—–`", "''\"\"--'"))


def _write_images(folder: Path, split, count: int, scale: int) -> list[Path]:
    files = []
    for k in range(count):
        pixels = split.inputs[k, :, : split.lengths[k], 0]
        image = Image.fromarray(np.ascontiguousarray(pixels))
        if scale > 1:
            size = image.width * scale, image.height * scale
            image = image.resize(size, Image.Resampling.BICUBIC)
            image = ImageOps.expand(image, 10 * scale, 255)
        files.append(folder / f"{scale}-{k:05}.png")
        image.save(files[-1])
    return files


def _tesseract(folder: Path, files: list[Path]) -> list[str]:
    """The text of each image, recognised by one Tesseract process."""
    names = folder / "names.txt"
    names.write_text("".join(f"{file}\n" for file in files))
    words = ["tesseract", str(names), "stdout", "--psm", "7", "--oem", "1"]
    done = subprocess.run(
        [*words, "-l", "eng", "--dpi", "300"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_THREAD_LIMIT": str(os.cpu_count())},
    )
    if done.returncode:
        raise UsageError(f"tesseract: {done.stderr.strip()[-200:]}")
    pages = done.stdout.split("\f")
    return [" ".join(page.split()) for page in pages[: len(files)]]


def _show(title: str, found: dict[str, Any]) -> None:
    keys = "cer", "normalized_cer", "wer", "exact"
    rows = [
        (
            who,
            *(f"{100 * numbers[k]:.2f} %" for k in keys),
            f"{numbers['lines_per_second']:.1f}",
        )
        for who, numbers in found.items()
    ]
    heads = ("", "CER", "normalised", "WER", "exact", "lines per second")
    tables.console().print(tables.table(title, heads, rows))
    print(f"first line after {found['ours']['first_line_after']:.2f} s")
    print("normalised: CER without spaces and accents, with one kind of quotes, dashes")
    if "tesseract" not in found:
        print("Tesseract is not installed; Debian: apt install tesseract-ocr")
