"""The section of a report with a diagnosis of the network, and how it reads."""

from typing import Any

from experiments.reporting.page import Picture, Section, Table, Words
from experiments.reporting.sections import plural

MEASURED = 32  # examples that a diagnosis looks at


def diagnosis(judged) -> Section | None:
    """Problems of the network, and how it reads the example with the largest loss."""
    if not judged.experiment.model_kind.explains:
        return None
    import numpy as np

    from experiments.experiment import arrays
    from lstm_jax import inspect

    network = judged.experiment.network.module
    train = judged.dataset.splits["train"]
    some = np.linspace(0, len(train.inputs) - 1, min(MEASURED, len(train.inputs)))
    some = some.astype(int)
    batch = {name: array[some] for name, array in arrays(train).items()}
    batch["mask"] = np.ones(len(some), np.float32)
    lengths = batch.get("lengths")
    measures = inspect.measure(
        network,
        judged.params,
        judged.spec.normalize(batch["inputs"]),
        loss=lambda outputs: judged.task.loss(outputs, batch)[0],
        lengths=lengths,
    )
    updates = inspect.logged_updates(judged.rows)
    findings = inspect.diagnose(measures, rows=judged.rows, updates=updates)
    rows = tuple((each.words, each.cure) for each in findings)
    words = f"Measured on {plural(len(some), 'training example')}."
    if rows:
        blocks: list[Any] = [Table(("found", "what may help"), rows, numbers=False)]
    else:
        blocks = []
        words = f"No problems found. {words}"
    blocks.append(Words(words, "quiet"))
    caption = (
        "How gradients, gates and memory go through the steps of a sequence, and how "
        "much of its norm a step of training changed of each matrix."
    )
    blocks.append(Picture(inspect.health(measures, updates), caption))
    if judged.judgeable:
        blocks.append(_reading(judged, network))
    return Section("Diagnosis", tuple(blocks))


def _reading(judged, network) -> Picture:
    import numpy as np

    from lstm_jax import inspect

    test = judged.dataset.splits["test"]
    worst = int(np.nan_to_num(judged.losses, nan=-np.inf).argmax())
    place = judged.shown[worst]
    targets = judged.known[1]
    single = targets.ndim == 1  # one class each
    figure = inspect.reading(
        network,
        judged.params,
        judged.spec.normalize(test.inputs[place]),
        classes=judged.spec.classes or None,
        target=int(targets[worst]) if single else None,
        length=None if test.lengths is None else int(test.lengths[place]),
        shown=test.inputs[place] if test.inputs.dtype == np.uint8 else None,
        predict=judged.task.predict,
    )
    caption = "How it reads, step by step, the test example that it errs on most."
    return Picture(figure, caption, photo=True)
