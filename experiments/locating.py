"""What a network that finds leaves behind: masks, boxes, best and worst answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments import record
from experiments.options import Config
from lstm_jax import data, figures, metrics

SHOWN = 6  # of the best and of the worst


def leave(
    config: Config, dataset: data.Dataset, predictions, targets, directory: Path
) -> None:
    """The best and the worst answers of a test split; of clips also a film."""
    test = dataset.splits["test"]
    losses = metrics.example_losses(config.task.name, predictions, targets)
    figure = examples(config, dataset, predictions, targets, losses)
    record.save_figure(directory / "examples.png", figure)
    if test.inputs.ndim == 5:
        middle = int(np.argsort(losses)[len(losses) // 2])
        pages = figures.draw_predictions(
            config.task.name,
            test.inputs[middle],
            predictions[middle],
            dataset.classes,
            truth=targets[middle],
        )
        record.write_bytes(directory / "example.gif", figures.encode_gif(pages))


def examples(config: Config, dataset: data.Dataset, predictions, targets, losses):
    """The best and the worst answers beside what is true, a Figure."""
    task, inputs = config.task.name, dataset.splits["test"].inputs
    classes = dataset.classes
    order = np.argsort(losses, kind="stable")
    shown = min(SHOWN, len(order))
    middle = len(order) // 2

    def one(k: int, answer, truth):
        picture, true = inputs[k], truth
        if picture.ndim == 4:
            at = picture.shape[0] // 2
            picture, answer, true = picture[at], answer[at], true[at]
        return figures.draw_predictions(task, picture, answer, classes, truth=true)

    rows = []
    for name, chosen in (
        ("best", order[:shown]),
        ("around the median", order[middle : middle + shown]),
        ("worst", order[::-1][:shown]),
    ):
        answers = [
            (one(k, predictions[k], targets[k]), f"error {losses[k]:.3g}")
            for k in chosen
        ]
        rows.append((name, answers))
        if task == "segmentation":
            truth = [(one(k, targets[k], targets[k]), "true") for k in chosen]
            rows.append(("", truth))
    note = "" if task == "segmentation" else "; white boxes are true"
    return figures.image_rows(rows, title=f"Test answers{note}")


def describe(task: str, output, classes: list[str], seen, path: Path) -> dict[str, Any]:
    """The answer to a picture or a clip, in pixels of the file.

    Args:
      task: "segmentation" or "detection".
      output: a prediction of the task, without its batch.
      classes: names.
      seen: what the network saw, uint8 [H, W, C]; of a clip [T, H, W, C].
      path: the file. A clip's answers stay in pixels of what was seen.

    Returns:
      `mask`, uint8 [H, W], and `shares`, the part of the pixels of each class that
      occurs; or `boxes`, dicts of `label`, `score` and `box` [x, y, w, h], a list of
      them for each frame of a clip. And `seen`, and `raw`, the prediction.
    """
    row: dict[str, Any] = {"seen": seen, "raw": output}
    single = seen.ndim == 3
    size = (data.picture_size(path) if single else None) or seen.shape[-3:-1]
    if task == "segmentation":
        mask = figures.resize_mask(output, size) if single else output
        counts = np.bincount(mask.ravel(), minlength=len(classes)) / mask.size
        shares = {n: float(c) for n, c in zip(classes, counts, strict=True) if c}
        return row | {"mask": mask, "shares": shares}
    scale = size[1] / seen.shape[-2], size[0] / seen.shape[-3]
    frames = [
        _boxes(rows, classes, scale) for rows in (output[None] if single else output)
    ]
    return row | {"boxes": frames[0] if single else frames}


def _boxes(rows, classes: list[str], scale: tuple[float, float]) -> list[dict]:
    found = []
    for x0, y0, x1, y1, score, label in rows.tolist():
        if score >= metrics.SCORE_THRESHOLD:
            corner, sides = (x0, y0), (x1 - x0, y1 - y0)
            box = [v * s for v, s in zip(corner + sides, scale * 2, strict=True)]
            found.append({"label": classes[int(label)], "score": score, "box": box})
    return sorted(found, key=lambda box: -box["score"])


def write(run: Path, task: str, classes: list[str], answers: list[dict]) -> None:
    """Masks as PNG, boxes as COCO JSON, and pictures of both, in RUN/predictions/.

    Each answer gets the path of its picture, "drawn", and of its mask, "file".
    """
    folder, used = run / "predictions", set()
    coco = {"images": [], "annotations": [], "categories": []}
    coco["categories"] = [{"id": k, "name": n} for k, n in enumerate(classes, 1)]
    for row in answers:
        if "seen" not in row:
            continue
        name = _fresh(Path(row["path"]).stem, used)
        page = figures.draw_predictions(task, row["seen"], row["raw"], classes)
        single = page.ndim == 3
        drawn = folder / (f"{name}.drawn.png" if single else f"{name}.gif")
        record.write_bytes(
            drawn, figures.encode_png(page) if single else figures.encode_gif(page)
        )
        row["drawn"] = str(drawn)
        if task == "segmentation":
            place = folder / (f"{name}.png" if single else name)
            for t, mask in enumerate(row["mask"][None] if single else row["mask"]):
                file = place if single else place / f"{t:04}.png"
                record.write_bytes(file, figures.encode_mask(mask))
            row["file"] = str(place)
        else:
            _add(coco, row, single)
    if task == "detection":
        text = json.dumps(coco, indent=1)
        record.write_bytes(folder / "detections.json", text.encode())


def _fresh(stem: str, used: set[str]) -> str:
    """A name for a file: two folders may hold pictures of one name."""
    name, number = stem, 1
    while name in used:
        number += 1
        name = f"{stem}-{number}"
    used.add(name)
    return name


def _add(coco: dict[str, list], row: dict[str, Any], single: bool) -> None:
    """Adds a picture, or each frame of a clip, and its boxes."""
    ids = {category["name"]: category["id"] for category in coco["categories"]}
    size = (data.picture_size(Path(row["path"])) if single else None) or row[
        "seen"
    ].shape[-3:-1]
    height, width = map(int, size)
    for t, boxes in enumerate([row["boxes"]] if single else row["boxes"]):
        image = {"id": len(coco["images"]) + 1, "file_name": row["path"]}
        image |= {"height": height, "width": width} | ({} if single else {"frame": t})
        coco["images"].append(image)
        for box in boxes:
            _, _, w, h = box["box"]
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": ids[box["label"]],
                    "bbox": box["box"],
                    "area": w * h,
                    "iscrowd": 0,
                    "score": box["score"],
                }
            )


def words(row: dict[str, Any]) -> str:
    """An answer in a line."""
    if "mask" in row:
        return ", ".join(f"{name} {share:.1%}" for name, share in row["shares"].items())
    boxes = row["boxes"]
    if boxes and isinstance(boxes[0], list):
        return f"{sum(map(len, boxes))} boxes in {len(boxes)} frames"
    return ", ".join(f"{b['label']} {b['score']:.0%}" for b in boxes) or "nothing found"
