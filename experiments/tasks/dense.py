"""What segmentation and detection share: answers with a place in the picture."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

from experiments.errors import UsageError
from experiments.options import Images, Noise
from experiments.tasks.kind import PerFileTask

SHOWN = 6  # of the best and of the worst


class DensePrediction(PerFileTask):
    """Answers for every pixel or place, of pictures or of all frames of clips."""

    data = Images
    augment = Noise  # what moves pixels would have to move their targets
    to_onnx = False
    columns = ("picture", "found", "")
    note = ""

    @property
    def cross_validates(self) -> str:
        return f"folds are not for a {self.name}, whose targets are no classes"

    def check_data(self, config, dataset) -> None:
        super().check_data(config, dataset)
        from experiments.models import MODELS

        halvings = MODELS[config.model.name].halvings(config)
        h, w = dataset.image_shape[-3:-1]
        times = 2**halvings
        if h % times or w % times:
            raise UsageError(
                f"pictures are {h}x{w}, but the network halves them {halvings} times; "
                "resize them, such as "
                f"--data.size={max(times, round(max(h, w) / times) * times)}"
            )
        MODELS[config.model.name].check_data(config, dataset)

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
        return [Picture(figure, "The best and the worst answers.", photo=True)]

    def examples(self, inputs, classes, predictions, targets, losses):
        """The best and the worst answers beside what is true, a Figure."""
        import numpy as np

        from lstm_jax import figures

        order = np.argsort(losses, kind="stable")
        shown, middle = min(SHOWN, len(order)), len(order) // 2

        def one(k: int, answer, truth):
            picture = inputs[k]
            if picture.ndim == 4:
                at = picture.shape[0] // 2
                picture, answer, truth = picture[at], answer[at], truth[at]
            return self.draw(picture, answer, classes, truth)

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
            rows += self.truths(lambda k: one(k, targets[k], targets[k]), chosen)
        return figures.image_rows(rows, title=f"Test answers{self.note}")

    @abstractmethod
    def draw(self, picture, answer, classes, truth=None):
        """A picture, or each frame of a clip, with the answer drawn on it.

        Args:
          picture: uint8 `[H, W, C]` or `[T, H, W, C]`.
          answer: a prediction of the task.
          classes: names.
          truth: targets, where the task shows them in the same picture.
        """

    def truths(self, drawn, chosen) -> list[tuple[str, list]]:
        """A row of what is true, where the answers' own pictures do not show it."""
        return []

    def save(self, spec, answers, folder: Path) -> None:
        from experiments.run import record
        from lstm_jax import figures

        used: set[str] = set()
        for answer in answers:
            if "seen" not in answer:
                continue
            name = _fresh(Path(answer["path"]).stem, used)
            page = self.draw(answer["seen"], answer["raw"], spec.classes)
            single = page.ndim == 3
            drawn = folder / (f"{name}.drawn.png" if single else f"{name}.gif")
            record.write_bytes(
                drawn, figures.encode_png(page) if single else figures.encode_gif(page)
            )
            answer["drawn"] = str(drawn)
            self.save_one(answer, folder / (f"{name}.png" if single else name))

    def save_one(self, answer: dict, place: Path) -> None:
        """Writes one answer as data, where it is not written with all others."""

    def row(self, answer):
        return answer["path"], self.words(answer), answer["drawn"]

    @abstractmethod
    def words(self, answer: dict) -> str:
        """An answer in a line."""


def size_of(seen, path: Path) -> tuple[int, int]:
    """Height and width of the file of a picture; of a clip, of what was seen."""
    from lstm_jax import data

    size = data.image_size(path) if seen.ndim == 3 else None
    return size or seen.shape[-3:-1]


def _fresh(stem: str, used: set[str]) -> str:
    """A name for a file: two folders may hold pictures of one name."""
    name, number = stem, 1
    while name in used:
        number += 1
        name = f"{stem}-{number}"
    used.add(name)
    return name
