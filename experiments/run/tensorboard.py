"""The rows of metrics.jsonl and the pictures of a run, for TensorBoard.

tensorboardX encodes and writes them; its SummaryWriter is not used, since it writes
from a thread: what a killed run had logged would be lost.
"""

import time
from pathlib import Path
from typing import Any

from experiments.choices import flat


class Board:
    """Writes RUN/tensorboard/ as a run goes; by split, so that curves lie together.

    Args:
      directory: the run's.
      start: the step it goes on from; what a killed run wrote after it is hidden.
      rows: those up to `start`, which a run that had no board before writes now.
    """

    def __init__(self, directory: Path, start: int, rows: list[dict[str, Any]]):
        self._root, self._start, self._files = directory / "tensorboard", start, {}
        for row in () if self._root.exists() else rows:
            self.append(row)

    def append(self, row: dict[str, Any]) -> None:
        """Adds one row; it is on the disk when this returns."""
        values = [
            dict(tag=name, simple_value=value)
            for name, value in row.items()
            if name != "step" and isinstance(value, int | float)
        ]
        self._write(row["split"], row["step"], values, self._start + 1)

    def finish(self, step: int, report: dict[str, Any], pictures: list[Path]) -> None:
        """Adds the test at the end, in place of what an earlier end left.

        Args:
          step: the last.
          report: of the task; its measured numbers are taken.
          pictures: PNG files.
        """
        from PIL import Image
        from tensorboardX.proto.summary_pb2 import Summary

        values = [
            dict(tag=name.replace(".", "/"), simple_value=value)
            for name, value in flat(report).items()
            if isinstance(value, float)
        ]
        for path in pictures:
            with Image.open(path) as picture:
                image = Summary.Image(width=picture.width, height=picture.height)
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
            # Two files of one second would have one name.
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
