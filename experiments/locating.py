"""What a network that finds leaves behind: masks, boxes, best and worst answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments import record
from experiments.options import Config
from lstm_jax import data, tasks

SHOWN = 6  # of the best and of the worst


def leave(
    config: Config, dataset: data.Dataset, predictions, targets, directory: Path
) -> None:
    """The best and the worst answers of a test split; of clips also a film."""
    test = dataset.splits["test"]
    losses = tasks.example_losses(config.task.name, predictions, targets)
    figure = examples(config, dataset, predictions, targets, losses)
    record.save_figure(directory / "examples.png", figure)
    if test.inputs.ndim == 5:
        middle = int(np.argsort(losses)[len(losses) // 2])
        pages = tasks.drawn(
            config.task.name,
            test.inputs[middle],
            predictions[middle],
            things(dataset.classes, config.task.name),
            truth=targets[middle],
        )
        record.write_bytes(directory / "example.gif", tasks.gif(pages))


def examples(config: Config, dataset: data.Dataset, predictions, targets, losses):
    """The best and the worst answers beside what is true, a Figure."""
    task, inputs = config.task.name, dataset.splits["test"].inputs
    classes = things(dataset.classes, task)
    order = np.argsort(losses, kind="stable")
    shown = min(SHOWN, len(order))
    middle = len(order) // 2

    def one(k: int, answer, truth):
        picture, true = inputs[k], truth
        if picture.ndim == 4:
            at = picture.shape[0] // 2
            picture, answer, true = picture[at], answer[at], true[at]
        return tasks.drawn(task, picture, answer, classes, truth=true)

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
    return tasks.sheet(rows, title=f"Test answers{note}")


def things(classes, task: str) -> list[str]:
    """Names as boxes and masks number them."""
    return [str(name) for name in classes]


def describe(task: str, output, classes: list[str], path: Path, shape) -> dict:
    """The answer to a picture or clip, in pixels of the file as it is.

    Returns:
      `{"mask": uint8 [H, W]}`, or `{"boxes": [{"label", "score", "box": [x, y, w, h]},
      …]}` with a list by frame for a clip; and "picture", what the network saw.
    """
    if task == "segmentation":
        return {"mask": output}
    found = data.picture_size(path) if len(output.shape) == 2 else None
    height, width = found or shape[-3:-1]
    scale = width / shape[-2], height / shape[-3]

    def boxes(rows):
        return [
            {
                "label": classes[int(row[5])],
                "score": float(row[4]),
                "box": [
                    float(row[0] * scale[0]),
                    float(row[1] * scale[1]),
                    float((row[2] - row[0]) * scale[0]),
                    float((row[3] - row[1]) * scale[1]),
                ],
            }
            for row in rows
            if row[4] >= tasks.SURE
        ]

    if output.ndim == 3:
        return {"boxes": [boxes(rows) for rows in output], "raw": output}
    return {"boxes": boxes(output), "raw": output}


def write(run: Path, task: str, classes: list[str], answers: list[dict]) -> None:
    """Masks as PNG, boxes as COCO JSON, and pictures of both, in RUN/predictions/.

    Each answer gets the path of its picture as "drawn", and of its mask as "file".
    """
    folder, used = run / "predictions", set()
    images, found = [], []
    for row in answers:
        if "seen" not in row:
            continue
        name = stem = Path(row["path"]).stem
        number = 1
        while name in used:  # two folders may hold the same name
            number += 1
            name = f"{stem}-{number}"
        used.add(name)
        answer = row.get("mask", row.get("raw"))
        page = tasks.drawn(task, row["seen"], answer, classes)
        if page.ndim == 4:
            row["drawn"] = str(folder / f"{name}.gif")
            record.write_bytes(Path(row["drawn"]), tasks.gif(page))
        else:
            row["drawn"] = str(folder / f"{name}.drawn.png")
            record.write_bytes(Path(row["drawn"]), tasks.png(page))
        if task == "segmentation":
            masks = answer if answer.ndim == 3 else answer[None]
            for t, mask in enumerate(masks):
                where = folder / (
                    f"{name}.png" if answer.ndim == 2 else f"{name}/{t:04}.png"
                )
                full = data.picture_size(Path(row["path"])) or mask.shape
                full = full if answer.ndim == 2 else mask.shape
                record.write_bytes(where, tasks.mask_png(tasks.resized(mask, full)))
            row["file"] = str(where if answer.ndim == 2 else where.parent)
            continue
        frames = row["boxes"] if answer.ndim == 3 else [row["boxes"]]
        size = data.picture_size(Path(row["path"])) if answer.ndim == 2 else None
        height, width = size or row["seen"].shape[-3:-1]
        for t, boxes in enumerate(frames):
            image = {"id": len(images) + 1, "file_name": row["path"]}
            image |= {"height": int(height), "width": int(width)}
            images.append(image | ({"frame": t} if answer.ndim == 3 else {}))
            found += [
                {
                    "id": len(found) + 1 + k,
                    "image_id": image["id"],
                    "category_id": classes.index(box["label"]) + 1,
                    "bbox": box["box"],
                    "area": box["box"][2] * box["box"][3],
                    "iscrowd": 0,
                    "score": box["score"],
                }
                for k, box in enumerate(boxes)
            ]
    if task == "detection" and images:
        categories = [{"id": k, "name": n} for k, n in enumerate(classes, 1)]
        record.write_bytes(
            folder / "detections.json",
            json.dumps(
                {"images": images, "annotations": found, "categories": categories},
                indent=1,
            ).encode(),
        )


def words(row: dict[str, Any]) -> str:
    """An answer in a line."""
    if "mask" in row:
        return f"mask: {row.get('file', '')}"
    boxes = row["boxes"]
    if boxes and isinstance(boxes[0], list):
        return f"{sum(map(len, boxes))} boxes in {len(boxes)} frames"
    said = [f"{b['label']} {b['score']:.0%}" for b in boxes]
    return ", ".join(said) or "nothing found"
