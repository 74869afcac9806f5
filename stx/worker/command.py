"""The command stage: a program of the user's. It knows nothing of stx but its environment, and starts without torch.

    STX_INPUT_<NAME>   the folder with the files of that input (upper case; what is no letter or digit becomes _)
    STX_OUTPUT         a folder, empty at first; at exit code 0 its content becomes the payload (no links)
    STX_ATTEMPT        the attempt directory

Exit code 0 = done, 75 = saved and to be run again, anything else = failed. When the attempt is asked to stop, the
program gets TERM; one that then dies of it is run again too. What a program left in STX_OUTPUT before exit code 75 lies
there when it is run again; after any other end it starts from an empty folder, so that a killed program's half-written
files are never published.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from jobs import files, runtime
from jobs.runtime import Heart
from stx.errors import DataError, StageFailed
from stx.worker import publish
from stx.worker.attempt import Attempt, InputPath, Yielded, check_external

POLL_S = 0.2
TAIL_LINES = 20
SPACE_BYTES = 1 << 20  # a store with less than this left is full
_STOPPED_BY = (-signal.SIGTERM, -signal.SIGUSR2, 128 + signal.SIGTERM, 128 + signal.SIGUSR2)
_CHUNK = 1 << 20


def run(attempt: Attempt) -> None:
    """Start the program, wait for it, publish what it wrote."""
    began = time.monotonic()
    finished = attempt.stage.output_finished
    if not finished.exists():
        _run_program(attempt, finished=finished)
    info = {"experiment": attempt.experiment, "attempt": attempt.number, "seconds": time.monotonic() - began}
    names = _publish(finished, payload=attempt.stage.payload, heart=attempt.heart)
    publish.finish(attempt, attempt.stage.result, names=names, images=None, info=info)
    shutil.rmtree(finished, ignore_errors=True)  # the result stands; what is left is gc's


def _run_program(attempt: Attempt, *, finished: Path) -> None:
    """Run it to exit code 0; its whole output then bears the name `finished`, so that no two runs are mixed."""
    output, kept = attempt.folder.output, attempt.stage.output_kept
    _take_over(kept, output)
    code = _wait(attempt, _start(attempt, output=output))
    stopped = runtime.stop_requested()
    if code == runtime.EXIT_YIELDED:
        output.rename(kept)
        files.fsync_dir(kept.parent)
        raise Yielded
    if stopped and code in _STOPPED_BY:
        raise Yielded
    if code != 0:
        _check_space(output)
        raise StageFailed(
            f"the program ended with {_said(code)}", where=shlex.join(attempt.science["argv"]), hint=_tail(attempt)
        )
    _refuse_links(output)
    output.rename(finished)
    files.fsync_dir(finished.parent)


def environment(attempt: Attempt, *, output: Path) -> dict[str, str]:
    """The program's environment: ours and the three kinds of names."""
    folders = {name.removeprefix("inputs."): _folder(value) for name, value in attempt.inputs.items()}
    for name, path in attempt.where["inputs"].items():
        check_external(attempt, name=name, path=Path(path))
        folders[name] = Path(path)
    inputs = {f"STX_INPUT_{re.sub('[^A-Z0-9]', '_', name.upper())}": str(path) for name, path in folders.items()}
    return {**os.environ, **inputs, "STX_OUTPUT": str(output), "STX_ATTEMPT": str(attempt.folder.path)}


def _folder(source: InputPath) -> Path:
    """Where the files of an input lie."""
    return source.path if source.images is not None else source.payload


def _take_over(kept: Path, output: Path) -> None:
    """What a yielded run left, or an empty folder."""
    try:
        kept.rename(output)
    except FileNotFoundError:
        files.make_dir(output)


def _start(attempt: Attempt, *, output: Path) -> "subprocess.Popen[bytes]":
    argv = attempt.science["argv"]
    try:
        return subprocess.Popen(argv, env=environment(attempt, output=output), stdin=subprocess.DEVNULL)
    except OSError as error:
        raise StageFailed(f"cannot be started: {error}", where=shlex.join(argv)) from error


def _wait(attempt: Attempt, child: "subprocess.Popen[bytes]") -> int:
    """The program's exit code. A request to stop is passed on once, as TERM."""
    told = False
    while True:
        try:
            return child.wait(timeout=POLL_S)
        except subprocess.TimeoutExpired:
            attempt.heart.beat("other")
        if runtime.stop_requested() and not told:
            child.terminate()
            told = True


def _check_space(output: Path) -> None:
    """A program that met a full disk cannot say so in a log on that disk. What it wrote so far makes room again."""
    probe = files.new_temp(output.with_name("space"))
    try:
        files.write(probe, bytes(SPACE_BYTES))
    except OSError:
        shutil.rmtree(output)
        raise
    probe.unlink()


def _refuse_links(output: Path) -> None:
    for path in sorted(output.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise DataError("STX_OUTPUT may hold files and folders only, no links, pipes or devices", where=str(path))


def _publish(output: Path, *, payload: Path, heart: Heart) -> Mapping[str, str]:
    """Publish every file of the output folder, in order of its name; sha256 by relative name."""
    found = {path.relative_to(output).as_posix(): path for path in sorted(output.rglob("*")) if path.is_file()}
    made = {}
    for name, path in found.items():
        heart.beat("save")
        made[name] = publish.publish_chunks(payload / name, _chunks(path))
    return made


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _said(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def _tail(attempt: Attempt) -> str:
    """The last lines of the log, where the program said what happened."""
    data = files.read(attempt.folder.log(attempt.rank)) or b""
    lines = data[-(1 << 16) :].decode(errors="replace").splitlines()[-TAIL_LINES:]
    return "last lines of its log:\n    " + "\n    ".join(lines) if lines else "its log is empty"
