"""Object detection: boxes, each with a class and a score."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.options import TaskOptions
from experiments.tasks.dense import DensePrediction, placement_of, size_of
from experiments.tasks.kind import past_the_end

SEEN = 0.25  # boxes of which augmentation leaves less in the image are dropped


@dataclass(frozen=True)
class Options(TaskOptions):
    """Object detection: boxes, each with a class and a score."""

    name = "detection"


class Detection(DensePrediction):
    options = Options
    models = ("recurrent_detector", "bottleneck")
    target_type = "boxes"
    note = "; white: true boxes"
    metrics = (
        ("ap50", "AP50", "max"),
        ("ap", "AP (COCO)", "max"),
        ("ap75", "AP75", "max"),
        ("f1", "F1 of boxes", "max"),
        ("precision", "precision", "max"),
        ("recall", "recall", "max"),
        ("hidden.ap50", "AP50 of occluded objects", "max"),
        ("hidden.ar50", "recall of occluded objects", "max"),
    )
    headlines = ("ap50", "ap", "f1")
    by_class = ("class", ("ap50", "ap", "ar50", "things"))

    def objective(self, config, spec):
        from experiments.models import model_kind
        from lstm_jax import tasks

        sequential = model_kind(config).sequential(config)
        size = tuple(spec.image_shape[-3:-1])
        return tasks.detection(spec.classes, size, sequential=sequential)

    def moved_targets(self, targets, affine, size):
        import jax.numpy as jnp

        from lstm_jax.targets import CLASS, CORNERS

        targets = jnp.asarray(targets)
        boxes, inside = affine.boxes(targets[..., CORNERS], size)
        classes = jnp.where(inside < SEEN, -1.0, targets[..., CLASS])
        targets = targets.at[..., CORNERS].set(boxes)
        return targets.at[..., CLASS].set(classes)

    def align_targets(self, split, predictions):
        past = past_the_end(split)
        if past is None:
            return predictions, split.targets
        predictions, targets = predictions.copy(), split.targets.copy()
        targets[past, :, 4] = predictions[past, :, 4] = -1
        return predictions, targets

    def describe(self, spec, seen, output, path: Path) -> dict[str, Any]:
        """`boxes`, dicts of `label`, `score` and `box` [x, y, w, h] in pixels of the
        file (of a clip: of the network's input); for a clip a list for each frame."""
        placement = placement_of(spec, seen, path)
        frames = output[None] if seen.ndim == 3 else output
        boxes = [_boxes(_on_file(rows, placement), spec.classes) for rows in frames]
        boxes = boxes[0] if seen.ndim == 3 else boxes
        return {"seen": seen, "raw": output, "boxes": boxes}

    def draw(self, image, prediction, classes, truth=None):
        from lstm_jax import figures

        return figures.overlay_boxes(image, prediction, classes, truth=truth)

    def draw_on_file(self, image, found, spec, scale):
        from lstm_jax import figures

        placement = placement_of(spec, found["seen"], Path(found["path"]))
        rows = _on_file(found["raw"], placement)
        return figures.overlay_boxes(image, rows, spec.classes, scale=scale)

    def save(self, spec, predictions, folder: Path) -> None:
        """Also writes all boxes to detections.json, in COCO format."""
        from experiments.run import record

        super().save(spec, predictions, folder)
        if not any("boxes" in prediction for prediction in predictions):
            return
        coco: dict[str, list] = {"images": [], "annotations": [], "categories": []}
        coco["categories"] = [
            {"id": k, "name": name} for k, name in enumerate(spec.classes, 1)
        ]
        for prediction in predictions:
            if "boxes" in prediction:
                _add(coco, prediction)
        text = json.dumps(coco, indent=1)
        record.write_bytes(folder / "detections.json", text.encode())

    def words(self, prediction) -> str:
        boxes = prediction["boxes"]
        if boxes and isinstance(boxes[0], list):
            return f"{sum(map(len, boxes))} boxes in {len(boxes)} frames"
        words = ", ".join(f"{b['label']} {100 * b['score']:.0f} %" for b in boxes)
        return words or "no detections"


def _on_file(rows, placement):
    """Rows of boxes in pixels of the image file, clipped to the part that was seen."""
    import numpy as np

    boxes = placement.on_image(rows[:, :4])
    x0, y0, x1, y1 = placement.source
    boxes = np.clip(boxes, (x0, y0, x0, y0), (x1, y1, x1, y1))
    return np.concatenate([boxes, rows[:, 4:]], -1)


def _boxes(rows, classes: list[str]) -> list[dict]:
    from lstm_jax import metrics

    found = []
    for x0, y0, x1, y1, score, label in rows.tolist():
        if score >= metrics.SCORE_THRESHOLD:
            box = [x0, y0, x1 - x0, y1 - y0]
            found.append({"label": classes[int(label)], "score": score, "box": box})
    return sorted(found, key=lambda box: -box["score"])


def _add(coco: dict[str, list], prediction: dict[str, Any]) -> None:
    """Adds an image, or each frame of a clip, and its boxes."""
    ids = {category["name"]: category["id"] for category in coco["categories"]}
    seen, path, boxes_of = (prediction[key] for key in ("seen", "path", "boxes"))
    single = seen.ndim == 3
    height, width = map(int, size_of(seen, Path(path)))
    for t, boxes in enumerate([boxes_of] if single else boxes_of):
        image = {"id": len(coco["images"]) + 1, "file_name": path}
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


KIND = Detection()
