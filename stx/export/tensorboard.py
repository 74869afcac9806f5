"""TensorBoard: DIR/<experiment>/<stage>/events.out.tfevents.stx, one file a run, steps in images seen.

The file is a function of what is exported. So exporting again changes nothing; rows that are new are appended, which a
TensorBoard that is running sees; and a file that another lineage has overtaken is replaced as a whole.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jobs import files
from stx.errors import ConfigError, install
from stx.export.runs import Run

FILE = "events.out.tfevents.stx"


@dataclass(frozen=True)
class Written:
    """One run: how many rows it has, and how many bytes had to be written for them."""

    name: str
    rows: int
    bytes: int


def write(runs: Iterable[Run], folder: Path) -> list[Written]:
    """Write each run below `folder`."""
    return [_write(run, folder / run.name.replace("/", "_") / FILE) for run in runs]


def _write(run: Run, path: Path) -> Written:
    data = events(run)
    old = files.read(path) or b""
    if data == old:
        return Written(run.name, len(run.rows), 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    if old and data.startswith(old):
        with path.open("ab") as stream:
            stream.write(data[len(old) :])
        return Written(run.name, len(run.rows), len(data) - len(old))
    files.write(path, data)
    return Written(run.name, len(run.rows), len(data))


def events(run: Run) -> bytes:
    """The event file of a run: a version, then one record a row."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        raise ConfigError(
            "the library tensorboard is not installed", where="--tensorboard", hint=install("export")
        ) from error
    stream = io.BytesIO()
    writer = RecordWriter(stream)
    first = run.rows[0].time if run.rows else 0.0
    writer.write(Event(wall_time=first, file_version="brain.Event:2").SerializeToString(deterministic=True))
    for row in run.rows:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in sorted(row.values.items())]
        event = Event(wall_time=row.time, step=row.images, summary=Summary(value=values))
        writer.write(event.SerializeToString(deterministic=True))
    return stream.getvalue()
