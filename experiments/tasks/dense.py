"""The common part of segmentation and detection: predictions located in the image."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

from experiments.errors import UsageError
from experiments.options import Images, Joint
from experiments.spec import DataSpec
from experiments.tasks.kind import PerFileTask

SHOWN = 6  # best, median and worst examples in a figure


class DensePrediction(PerFileTask):
    """Predictions for all pixels or locations of images, or of all frames of clips."""

    data = Images
    augment = Joint
    located = True
    to_onnx = False
    writes_files = True
    columns = ("image", "found", "")
    note = ""

    @property
    def cross_validates(self) -> str:
        return f"--folds does not support {self.name}"

    def check_data(self, config, dataset) -> None:
        super().check_data(config, dataset)
        from experiments.models import model_kind

        halvings = model_kind(config).halvings(config)
        h, w = dataset.image_shape[-3:-1]
        times = 2**halvings
        if h % times or w % times:
            raise UsageError(
                f"images are {h}x{w}, but the network needs multiples of {times}; "
                "resize them, such as with "
                f"--data.size={max(times, round(max(h, w) / times) * times)}"
            )
        model_kind(config).check_data(config, dataset)

    def predict_clip(self, predictor, path: Path) -> dict[str, Any]:
        import numpy as np

        clip, length = predictor.read_clip(path)
        batch = dict(inputs=clip[None], lengths=np.asarray([length], np.int32))
        output = predictor(**batch)[0][:length]
        return self.describe(predictor.spec, clip[:length], output, path)

    def save_outputs(self, experiment, predictions, directory: Path) -> None:
        import numpy as np

        from experiments.run import record
        from lstm_jax import figures

        test, classes = experiment.dataset.splits["test"], experiment.dataset.classes
        predictions, targets = self.align_targets(test, predictions)
        losses = experiment.task.example_losses(predictions, targets)
        figure = self.examples(test.inputs, classes, predictions, targets, losses)
        record.save_figure(directory / "examples.png", figure)
        if test.inputs.ndim == 5:
            middle = int(np.argsort(losses)[len(losses) // 2])
            shown = test.inputs[middle], predictions[middle], classes, targets[middle]
            pages = self.draw(*shown)
            record.write_bytes(directory / "example.gif", figures.encode_gif(pages))

    def worst(self, evaluation):
        from experiments.reporting.page import Picture

        dataset = evaluation.dataset
        inputs, classes = dataset.splits["test"].inputs, dataset.classes
        figure = self.examples(inputs, classes, *evaluation.known, evaluation.losses)
        return [Picture(figure, "The best and the worst predictions.", photo=True)]

    def examples(self, inputs, classes, predictions, targets, losses):
        """A Figure of the best and the worst predictions with their targets."""
        import numpy as np

        from lstm_jax import figures

        order = np.argsort(losses, kind="stable")
        shown, middle = min(SHOWN, len(order)), len(order) // 2

        def one(k: int, prediction, truth):
            image = inputs[k]
            if image.ndim == 4:
                at = image.shape[0] // 2
                image, prediction, truth = image[at], prediction[at], truth[at]
            return self.draw(image, prediction, classes, truth)

        rows = []
        for name, chosen in (
            ("best", order[:shown]),
            ("around the median", order[middle : middle + shown]),
            ("worst", order[::-1][:shown]),
        ):
            drawn = [
                (one(k, predictions[k], targets[k]), f"loss {losses[k]:.3g}")
                for k in chosen
            ]
            rows.append((name, drawn))
            rows += self.truths(lambda k: one(k, targets[k], targets[k]), chosen)
        return figures.image_rows(rows, title=f"Test predictions{self.note}")

    @abstractmethod
    def draw(self, image, prediction, classes, truth=None):
        """An image, or each frame of a clip, with the prediction drawn on it.

        Args:
          image: uint8 `[H, W, C]` or `[T, H, W, C]`.
          prediction: of the task.
          classes: names.
          truth: targets, if the task draws them on the same image.
        """

    @abstractmethod
    def draw_on_file(self, image, found: dict, spec: DataSpec, scale: int):
        """A prediction with its labels, drawn on the image at the size of its file.

        Args:
          image: uint8 `[H, W, 3]`, of the file.
          found: the prediction, as `describe` returns it.
          spec: of the run.
          scale: integer magnification of the result.
        """

    def drawn(self, found: dict, spec: DataSpec):
        """The drawing of a prediction: on the image file, or on each input frame.

        Raises:
          DataError: the image file cannot be read.
        """
        from lstm_jax import data, figures

        seen, path = found["seen"], Path(found["path"])
        if seen.ndim == 4:
            return self.draw(seen, found["raw"], spec.classes)
        size = size_of(seen, path)
        image = data.read_image(path, (*size, 3))
        return self.draw_on_file(image, found, spec, figures.magnification(size))

    def truths(self, drawn, chosen) -> list[tuple[str, list]]:
        """A row of targets, if `draw` does not show them."""
        return []

    def save(self, spec, predictions, folder: Path) -> None:
        from experiments.run import record
        from lstm_jax import data, figures

        used: set[str] = set()
        for found in predictions:
            if "seen" not in found:
                continue
            try:
                page = self.drawn(found, spec)
            except data.DataError as error:  # the file was removed meanwhile
                found["error"] = str(error)
                continue
            name = _unused(Path(found["path"]).stem, used)
            single = page.ndim == 3
            drawn = folder / (f"{name}.drawn.png" if single else f"{name}.gif")
            record.write_bytes(
                drawn, figures.encode_png(page) if single else figures.encode_gif(page)
            )
            found["drawn"] = str(drawn)
            self.save_one(found, folder / (f"{name}.png" if single else name))

    def save_one(self, prediction: dict, place: Path) -> None:
        """Writes one prediction as data, if the task has a file for each."""

    def row(self, prediction):
        return prediction["path"], self.words(prediction), prediction["drawn"]

    @abstractmethod
    def words(self, prediction: dict) -> str:
        """A prediction as one line of text."""


def size_of(seen, path: Path) -> tuple[int, int]:
    """Height and width of an image file; of a clip, those of the network's input."""
    from lstm_jax import data

    size = data.image_size(path) if seen.ndim == 3 else None
    return size or seen.shape[-3:-1]


def placement_of(spec: DataSpec, seen, path: Path):
    """Where an image file is in the network's input; of a clip, a frame of it."""
    from lstm_jax import data

    return data.place_image(size_of(seen, path), seen.shape[-3:-1], spec.fit)


def _unused(stem: str, used: set[str]) -> str:
    """A file name that is not used yet; two folders may contain the same name."""
    name, number = stem, 1
    while name in used:
        number += 1
        name = f"{stem}-{number}"
    used.add(name)
    return name
