"""The Weights & Biases logger."""

import os

from experiments.choices import flat, to_dict
from experiments.run import record
from experiments.run.loggers.logger import Logger, measured


class WandB(Logger):
    """Logs to Weights & Biases; set WANDB_MODE, WANDB_PROJECT and so on.

    RUN/wandb_id contains the id of the W&B run, so that a resumed run continues it.
    """

    def __init__(self, config, directory, start):
        import wandb

        file = directory / "wandb_id"
        self.is_new, self._image = not file.exists(), wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "lstm_jax"),
            dir=directory,
            id=None if self.is_new else file.read_text(),
            name=directory.name,
            config=flat(to_dict(config)),
            allow_val_change=True,
            resume="allow",
            reinit="finish_previous",
        )
        record.write_bytes(file, self._run.id.encode())
        self._run.define_metric("*", step_metric="step")

    def on_log(self, row):
        values = {f"{row['split']}/{name}": x for name, x in measured(row).items()}
        self._run.log(values | {"step": row["step"]})

    def on_report(self, step, report, images):
        logged = {path.stem: self._image(str(path)) for path in images}
        self._run.log(logged | {"step": step})
        self._run.summary.update({f"test/{k}": v for k, v in measured(report).items()})
        self._run.finish()
