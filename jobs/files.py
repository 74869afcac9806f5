"""Files that survive a kill at any instruction, on a local disk, NFS or Lustre. Standard library only.

write    replaces: temp file beside the target, fsync, rename, fsync of the directory. Readers see old or new bytes.
publish  first wins: temp file, fsync, link(2), fsync of the directory. Of many publishers exactly one gets True.
append   one line, one write(2) on an O_APPEND descriptor, fsync.
read     a plain file of at most so many bytes: others may write here, too. A pipe never hangs us, an endless file
         never fills the memory.

No symbolic link is followed: neither the file nor the directory that it lies in may be one, for whoever planted it
chose what would be read or overwritten. The directory is opened first, and what was opened is fsynced at the end.
Modes follow the umask, which `share` opens for the group in a directory that is shared with one.

Everything goes through os.open, os.write, os.fsync, os.rename, os.link: the crash tests kill before and after each.
`AttemptDir` spells the names inside an attempt directory, the only files that the job layer and a worker share.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader, BufferedWriter
from pathlib import Path

MODE = 0o666  # less the umask
RECORD_BYTES = 4 << 20  # more than any record but those whose readers say otherwise
_AT_ONCE = 1 << 16


class Unreadable(OSError):
    """What is no plain file, or larger than whatever is written under this name; `filename` names it."""

    def __init__(self, what: str, path: Path, number: int = errno.EINVAL) -> None:
        super().__init__(number, what, os.fspath(path))


class SymlinkError(Unreadable):
    """A symbolic link where there must be none."""

    def __init__(self, path: Path) -> None:
        super().__init__("is a symbolic link, and stx follows none inside a store", path, errno.ELOOP)


def share(folder: Path) -> None:
    """Let the group write what this process and its children make from now on, if `folder` is shared with a group."""
    if is_shared(folder.stat().st_mode):
        os.umask(os.umask(0o077) & ~stat.S_IRWXG)


def is_shared(mode: int) -> bool:
    """Whether a directory's mode says so, as `git init --shared=group` leaves it: setgid and writable by the group."""
    return bool(mode & stat.S_ISGID) and bool(mode & stat.S_IWGRP)


def new_temp(path: Path) -> Path:
    """A fresh name beside `path`; readers skip names that start with a dot."""
    return path.parent / f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp"


def write(path: Path, data: bytes) -> None:
    """Replace `path` by `data`."""
    temp = new_temp(path)
    with _changing(path.parent):
        try:
            _create(temp, [data])
            os.rename(temp, path)
        except OSError:
            _discard(temp)
            raise


def publish(path: Path, data: bytes) -> bool:
    """Make `path` with `data` unless it exists. True: ours is the one that stands."""
    return not path.exists() and publish_file(write_temp(path, [data]), path)


def publish_file(temp: Path, path: Path) -> bool:
    """Link a finished, fsynced temp file of the same directory to `path`, remove the temp name. True: ours stands."""
    with _changing(path.parent):
        try:
            os.link(temp, path)
            ours = True
        except FileExistsError:
            # An NFS server may make the link, lose the answer, and say EEXIST to the retry: the link count tells.
            ours = os.stat(temp).st_nlink == 2
        finally:
            _discard(temp)
    return ours


def write_temp(path: Path, chunks: Iterable[bytes]) -> Path:
    """Write chunks to a fresh, fsynced temp file beside `path`, for `publish_file`; an error leaves nothing behind."""
    temp = new_temp(path)
    os.close(open_dir(path.parent))
    try:
        _create(temp, chunks)
    except OSError:
        _discard(temp)
        raise
    return temp


def append(path: Path, line: bytes) -> None:
    """Append one line (its newline is added here) in one write."""
    descriptor = _open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        with _named(path):
            write_all(descriptor, line + b"\n")
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cut(path: Path, length: int) -> None:
    """Shorten a file of ours to `length` bytes."""
    descriptor = _open(path, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, length)
    finally:
        os.close(descriptor)


def open_log(path: Path) -> BufferedWriter:
    """A stream that appends to a log; the caller closes it."""
    return open(_open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")


def read(path: Path, *, limit: int = RECORD_BYTES) -> bytes | None:
    """The bytes of a file, or None if there is none; Unreadable if it is no plain file or larger than `limit`."""
    found = read_owned(path, limit=limit)
    return None if found is None else found[0]


def read_owned(path: Path, *, limit: int = RECORD_BYTES) -> tuple[bytes, int] | None:
    """The bytes of a file and the number of the user who owns it, or None if there is none."""
    try:
        descriptor, status = _open_plain(path)
    except FileNotFoundError:
        return None
    size, total = status.st_size, 0
    try:
        found: list[bytes] = []
        while max(size, total) <= limit and (chunk := os.read(descriptor, max(_AT_ONCE, size - total + 1))):
            found.append(chunk)
            total += len(chunk)
    finally:
        os.close(descriptor)
    if max(size, total) > limit:
        raise Unreadable(f"has {max(size, total):,} bytes, and no such file has more than {limit:,}", path)
    return (found[0] if len(found) == 1 else b"".join(found)), status.st_uid


def tail(path: Path, size: int) -> bytes:
    """The last bytes of a file that may be long; nothing if there is none."""
    try:
        descriptor, status = _open_plain(path)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(descriptor, size, max(0, status.st_size - size))
    finally:
        os.close(descriptor)


def opened(path: Path) -> BufferedReader:
    """A stream of a plain file that may be long; the caller closes it."""
    return open(_open_plain(path)[0], "rb")


def check_plain(path: Path) -> int:
    """The size of a plain file, for readers that open it themselves; Unreadable if it is none."""
    return _plain(os.stat(path), path).st_size


def _open_plain(path: Path) -> tuple[int, os.stat_result]:
    """A descriptor of a plain file, and what it is. O_NONBLOCK: opening a pipe would wait for its writer."""
    descriptor = _open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return descriptor, _plain(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise


def _plain(found: os.stat_result, path: Path) -> os.stat_result:
    if not stat.S_ISREG(found.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise Unreadable(f"is {kinds.get(stat.S_IFMT(found.st_mode), 'a device')}, not a regular file", path)
    return found


def names(folder: Path) -> list[str]:
    """The names in a directory, in no order; none if it does not exist. A symbolic link among them is an error."""
    return [name for name, _ in _listed(folder)]


def refuse_links(folder: Path) -> None:
    """SymlinkError for a symbolic link at any depth of a directory, if it exists."""
    for name, is_dir in _listed(folder):
        if is_dir:
            refuse_links(folder / name)


def _listed(folder: Path) -> list[tuple[str, bool]]:
    """Names, and which of them are directories: the listing itself says what is a link, without a call per entry."""
    try:
        descriptor = open_dir(folder)
    except FileNotFoundError:
        return []
    try:
        with os.scandir(descriptor) as entries:
            found = list(entries)
            for entry in found:
                if entry.is_symlink():
                    raise SymlinkError(folder / entry.name)
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    finally:
        os.close(descriptor)


def make_dir(path: Path) -> None:
    """Make a directory unless it is there; what is there must be one, and no symbolic link."""
    try:
        path.mkdir()
    except FileExistsError:
        os.close(open_dir(path))


def open_dir(path: Path) -> int:
    """A descriptor of a directory."""
    return _open(path, os.O_RDONLY | os.O_DIRECTORY)


def fsync_dir(path: Path) -> None:
    """Make the names in a directory durable."""
    with _changing(path):
        pass


@contextlib.contextmanager
def _changing(folder: Path) -> Iterator[None]:
    """Around a change of the names in a directory: it is durable at the end."""
    descriptor = open_dir(folder)
    try:
        yield
        with _named(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW, MODE)
    except OSError as error:
        # A link is ELOOP, or ENOTDIR where a directory was asked for.
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and path.is_symlink():
            raise SymlinkError(path) from error
        raise


def _create(path: Path, chunks: Iterable[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
    try:
        with _named(path):
            for chunk in chunks:
                write_all(descriptor, chunk)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Around calls on a descriptor: write(2) and fsync(2) do not say which file met the full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or os.fspath(path)
        raise


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it: one write(2) may take less than it was given."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _discard(path: Path) -> None:
    """Remove a temporary file. One that cannot be removed costs nothing: nobody looks for it, and gc finds it."""
    with contextlib.suppress(OSError):
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
        """Published by the supervisor: which job and process runs this attempt. job_id null: none may any more."""
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
    def hang(self) -> Path:
        """Which rank hung first, and in what (jobs/hangs.py)."""
        return self.path / "hang.json"

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

    @property
    def scheduler_logs(self) -> Path:
        """Where a scheduler keeps what the job itself prints: its script and its supervisors."""
        return self.path / "scheduler"

    def outcome(self, rank: int) -> Path:
        """What a rank says of its attempt."""
        return self.path / f"outcome-{rank}.json"

    def outcomes(self) -> list[Path]:
        """What the ranks said so far, in order of their names."""
        return sorted(self.path.glob("outcome-*.json"))

    def logs(self) -> list[Path]:
        """The logs of all ranks, in order of their names."""
        return sorted(self.path.glob("rank-*.log"))

    def stacks(self, rank: int) -> Path:
        """The stacks of all threads of a rank, when it or another one hung."""
        return self.path / f"stacks-{rank}.txt"

    def all_stacks(self) -> list[Path]:
        """The stacks of all ranks, in order of their names; none where nobody hung."""
        return sorted(self.path.glob("stacks-*.txt"))

    def alive(self, rank: int) -> Path:
        """Made by a worker once its signal handlers stand; without it an end is a failed start."""
        return self.path / f"alive-{rank}"

    def log(self, rank: int) -> Path:
        """Standard output and error of a rank."""
        return self.path / f"rank-{rank}.log"
