"""The TensorBoard logger, which writes event files into the run folder.

It uses tensorboardX's event files, but not its SummaryWriter, which writes from a
thread and would lose rows when a run is killed.
"""

import time

from experiments.run.loggers.logger import Logger, measured


class TensorBoard(Logger):
    """Writes RUN/tensorboard/ with a folder for each split, to overlay their curves.

    Args:
      config: of the run.
      directory: of the run.
      start: the step from which it is resumed; later events of a killed run are hidden.
    """

    def __init__(self, config, directory, start):
        self._root, self._start, self._files = directory / "tensorboard", start, {}
        self.is_new = not self._root.exists()

    def on_log(self, row):
        """Writes one row and flushes it."""
        self._write(row["split"], row["step"], _scalars(row), self._start + 1)

    def on_report(self, step, report, images):
        """Writes the test metrics and figures; hides those of an earlier test."""
        from PIL import Image
        from tensorboardX.proto.summary_pb2 import Summary

        values = _scalars(report)
        for path in images:
            with Image.open(path) as opened:
                image = Summary.Image(width=opened.width, height=opened.height)
            image.encoded_image_string = path.read_bytes()
            values.append(dict(tag=path.stem, image=image))
        self._write("test", step, values, hidden_from=step)

    def _write(self, split: str, step: int, values: list[dict], hidden_from: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        if split not in self._files:
            folder = self._root / split
            folder.mkdir(parents=True, exist_ok=True)
            # Files written within one second need different names.
            number = len(list(folder.iterdir()))
            self._files[split] = EventsWriter(str(folder / "events"), f".{number}")
            session = SessionLog(status=SessionLog.START)
            self._files[split].write_event(
                Event(wall_time=time.time(), step=hidden_from, session_log=session)
            )
        summary = Summary(value=[Summary.Value(**value) for value in values])
        event = Event(wall_time=time.time(), step=step, summary=summary)
        self._files[split].write_event(event)
        self._files[split].flush()


def _scalars(values):
    return [dict(tag=k, simple_value=x) for k, x in measured(values).items()]
