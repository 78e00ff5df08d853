"""Semantic segmentation: a class for every pixel."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.choices import Amount
from experiments.numbers import percent
from experiments.options import TaskOptions
from experiments.tasks.dense import DensePrediction, placement_of, size_of
from experiments.tasks.kind import past_the_end


@dataclass(frozen=True)
class Options(TaskOptions):
    """Semantic segmentation: a class for every pixel."""

    name = "segmentation"
    dice: Amount = 1.0
    """Weight of the Dice loss, added to the cross-entropy."""


class Segmentation(DensePrediction):
    options = Options
    models = ("renet", "unet")
    target_type = "masks"
    metrics = (
        ("mean_iou", "mean IoU", "max"),
        ("dice", "Dice, mean over classes", "max"),
        ("pixel_accuracy", "pixel accuracy", "max"),
        ("foreground_iou", "IoU of all but background", "max"),
    )
    headlines = ("mean_iou", "dice", "pixel_accuracy")
    by_class = ("class", ("iou", "dice", "precision", "recall", "pixels"))

    def objective(self, config, spec):
        from lstm_jax import tasks

        return tasks.segmentation(spec.classes, dice_weight=config.task.dice)

    def align_targets(self, split, predictions):
        from lstm_jax.targets import VOID

        past = past_the_end(split)
        if past is None:
            return predictions, split.targets
        targets = split.targets.copy()
        targets[past] = VOID
        return predictions, targets

    def moved_targets(self, targets, affine, size):
        from lstm_jax.targets import VOID

        return affine.masks(targets, VOID)

    score = "pixel_accuracy"
    baseline_metrics = ("mean_iou", "dice", "pixel_accuracy", "foreground_iou")

    def baselines(self, config):
        from experiments.evaluation import baselines as made

        return {"one class": made.Baseline(made.most_frequent_pixel, trivial=True)}

    def example_scores(self, predictions, targets):
        import numpy as np

        from lstm_jax.targets import VOID

        axes, known = tuple(range(1, targets.ndim)), targets != VOID
        right = (predictions == targets) & known
        return right.sum(axes) / np.maximum(known.sum(axes), 1)

    def describe(self, spec, seen, output, path: Path) -> dict[str, Any]:
        """`mask`, uint8 `[H, W]` in pixels of the file, 255 outside of a crop (of a
        clip: of the network's input), and `shares`, the fraction of pixels of each
        class that occurs."""
        import numpy as np

        mask, classes = output, spec.classes
        if seen.ndim == 3:
            placement = placement_of(spec, seen, path)
            mask = placement.mask_on_image(output, size_of(seen, path))
        counts = np.bincount(mask.ravel(), minlength=len(classes))[: len(classes)]
        counts = counts / counts.sum()
        shares = {n: float(c) for n, c in zip(classes, counts, strict=True) if c}
        return {"seen": seen, "raw": output, "mask": mask, "shares": shares}

    def save_one(self, prediction, place: Path) -> None:
        from experiments.run import record
        from lstm_jax import figures

        mask = prediction["mask"]
        if mask.ndim == 2:
            record.write_bytes(place, figures.encode_mask(mask))
        else:
            for t, one in enumerate(mask):
                record.write_bytes(place / f"{t:04}.png", figures.encode_mask(one))
        prediction["file"] = str(place)

    def words(self, prediction) -> str:
        shares = prediction["shares"].items()
        return ", ".join(f"{name} {percent(share)}" for name, share in shares)

    def draw(self, image, prediction, classes, truth=None):
        from lstm_jax import figures

        return figures.overlay_mask(image, prediction)

    def draw_on_file(self, image, found, spec, scale):
        from lstm_jax import figures

        return figures.overlay_mask(image, found["mask"], scale, classes=spec.classes)

    def truths(self, drawn, chosen):
        return [("", [(drawn(k), "true") for k in chosen])]


KIND = Segmentation()
