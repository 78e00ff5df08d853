"""The MLflow logger."""

import os
import time

from experiments.choices import flat, to_dict
from experiments.run import record
from experiments.run.loggers.logger import Logger, measured


class MLflow(Logger):
    """Logs to MLflow; set MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME.

    RUN/mlflow_id contains the id of the MLflow run, so that a resumed run continues it.
    """

    def __init__(self, config, directory, start):
        from mlflow import MlflowClient
        from mlflow.entities import Param

        client, file = MlflowClient(), directory / "mlflow_id"
        self._client, self.is_new = client, not file.exists()
        if self.is_new:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "lstm_jax")
            found = client.get_experiment_by_name(name)
            place = found.experiment_id if found else client.create_experiment(name)
            run = client.create_run(place, run_name=directory.name).info.run_id
            options = flat(to_dict(config)).items()
            client.log_batch(run, params=[Param(k, str(v)) for k, v in options])
            record.write_bytes(file, run.encode())
        self._id = file.read_text()
        client.update_run(self._id, status="RUNNING")

    def on_log(self, row):
        from mlflow.entities import Metric

        at = int(1e3 * time.time()), row["step"]
        values = {f"{row['split']}/{k}": value for k, value in measured(row).items()}
        metrics = [Metric(name, value, *at) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def on_report(self, step, report, images):
        self.on_log({**report, "split": "test", "step": step})
        for path in images:
            self._client.log_artifact(self._id, str(path))
        self._client.set_terminated(self._id)
