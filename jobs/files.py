"""Files that survive a kill at any instruction, on a local disk, NFS or Lustre. Standard library only.

write    replaces: temp file beside the target, fsync, rename, fsync of the directory. Readers see old or new bytes.
publish  first wins: temp file, fsync, link(2), fsync of the directory. Of many publishers exactly one gets True.
append   one line, one write(2) on an O_APPEND descriptor, fsync.

Everything goes through os.open, os.write, os.fsync, os.rename, os.link: the crash tests kill before and after each.
`AttemptDir` spells the names inside an attempt directory, the only files that the job layer and a worker share.
"""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MODE = 0o644


def new_temp(path: Path) -> Path:
    """A fresh name beside `path`; readers skip names that start with a dot."""
    return path.parent / f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp"


def write(path: Path, data: bytes) -> None:
    """Replace `path` by `data`."""
    temp = new_temp(path)
    try:
        _create(temp, [data])
        os.rename(temp, path)
    except OSError:
        _discard(temp)
        raise
    fsync_dir(path.parent)


def publish(path: Path, data: bytes) -> bool:
    """Make `path` with `data` unless it exists. True: ours is the one that stands."""
    if path.exists():
        return False
    temp = new_temp(path)
    try:
        _create(temp, [data])
    except OSError:
        _discard(temp)
        raise
    return publish_file(temp, path)


def publish_file(temp: Path, path: Path) -> bool:
    """Link a finished, fsynced temp file of the same directory to `path`, remove the temp name. True: ours stands."""
    try:
        try:
            os.link(temp, path)
            ours = True
        except FileExistsError:
            # An NFS server may make the link, lose the answer, and say EEXIST to the retry: the link count tells.
            ours = os.stat(temp).st_nlink == 2
    finally:
        _discard(temp)
    fsync_dir(path.parent)
    return ours


def write_temp(path: Path, chunks: Iterable[bytes]) -> Path:
    """Write chunks to a fresh, fsynced temp file beside `path`, for `publish_file`; an error leaves nothing behind."""
    temp = new_temp(path)
    try:
        _create(temp, chunks)
    except OSError:
        _discard(temp)
        raise
    return temp


def append(path: Path, line: bytes) -> None:
    """Append one line (its newline is added here) in one write."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, MODE)
    try:
        _write_all(descriptor, line + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> bytes | None:
    """The bytes of a file, or None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def fsync_dir(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(path: Path, chunks: Iterable[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
    try:
        for chunk in chunks:
            _write_all(descriptor, chunk)
        os.fsync(descriptor)
    except OSError as error:
        error.filename = error.filename or os.fspath(path)  # write(2) does not say which file met the full disk
        raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _discard(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


@dataclass(frozen=True)
class AttemptDir:
    """attempts/NNN of a stage, and the intent file NNN.intent.json beside it."""

    path: Path

    @property
    def intent(self) -> Path:
        """The claim: tag, token, experiment, launcher identity, the job. Its existence reserves the number."""
        return self.path.with_name(f"{self.path.name}.intent.json")

    @property
    def attempt(self) -> Path:
        """What the worker reads: spec, layout, deadline, input paths."""
        return self.path / "attempt.json"

    @property
    def request(self) -> Path:
        """The exact request given to the scheduler."""
        return self.path / "request.txt"

    @property
    def handle(self) -> Path:
        """What the launcher needs to find the job again."""
        return self.path / "handle.json"

    @property
    def started(self) -> Path:
        """Published by the supervisor: which job and process runs this attempt."""
        return self.path / "started.json"

    @property
    def stop(self) -> Path:
        """Written when the attempt was asked to yield; a supervisor that starts later obeys it."""
        return self.path / "stop.json"

    @property
    def verdict(self) -> Path:
        """A coordinator's conclusion about an attempt that left no outcome."""
        return self.path / "verdict.json"

    @property
    def heartbeat(self) -> Path:
        """Rank 0's progress: a counter and what it is doing."""
        return self.path / "heartbeat.json"

    @property
    def metrics(self) -> Path:
        """Numbers for plots, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def rendezvous(self) -> Path:
        """Address and port that rank 0 bound."""
        return self.path / "rendezvous.json"

    @property
    def output(self) -> Path:
        """What a program of the user's writes."""
        return self.path / "output"

    @property
    def supervisor_log(self) -> Path:
        """What jobs.exec itself has to say."""
        return self.path / "supervisor.log"

    def outcome(self, rank: int) -> Path:
        """What a rank says of its attempt."""
        return self.path / f"outcome-{rank}.json"

    def outcomes(self) -> list[Path]:
        """What the ranks said so far, in order of their names."""
        return sorted(self.path.glob("outcome-*.json"))

    def logs(self) -> list[Path]:
        """The logs of all ranks, in order of their names."""
        return sorted(self.path.glob("rank-*.log"))

    def alive(self, rank: int) -> Path:
        """Made by a worker once its signal handlers stand; without it an end is a failed start."""
        return self.path / f"alive-{rank}"

    def log(self, rank: int) -> Path:
        """Standard output and error of a rank."""
        return self.path / f"rank-{rank}.log"
