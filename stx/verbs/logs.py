"""`stx logs`: what one rank of one attempt printed."""

import sys
import time
from pathlib import Path

from jobs.files import AttemptDir
from stx.coordinator.earlier import supervisor_log
from stx.errors import ConfigError
from stx.paths import StageDir
from stx.report import history
from stx.spec import Node
from stx.verbs import advice, console
from stx.verbs.select import choose_one, existing_store


def run(pattern: str, *, store: str | None, follow: bool, rank: int, attempt: int | None, failed: bool) -> None:
    """The verb `logs`: one rank's output of one attempt, the last one unless asked. Of several stages that bear the
    name, --failed means the one that failed.
    """
    place = existing_store(store)

    def fit(node: Node) -> bool:
        return not failed or bool(_failed(place.stage(node.spec.kind, node.key)))

    chosen, node = choose_one(place, pattern, fit=fit)
    stage = place.stage(node.spec.kind, node.key)
    number = _attempt_number(stage, node=node, attempt=attempt, failed=failed)
    folder = stage.attempt(number)
    path = folder.log(rank)
    if not path.exists():
        path = _other_log(folder, rank=rank)
    console.say(console.styled(f"{node.name} attempt {number}: {path}", "dim", stream=sys.stderr))
    position = _copy(path, start=0)
    while follow and not _is_over(folder):
        time.sleep(0.5)
        position = _copy(path, start=position)
    _copy(path, start=position)
    if stacks := folder.all_stacks():
        console.say(f"it hung; where its threads were: {', '.join(map(str, stacks))}")
    if not follow:
        name = advice.stage(chosen.experiment, node.name)
        more = [] if _is_over(folder) else [f"stx logs {name} -f"]
        console.next_commands(*more, f"stx show {name}")


def _attempt_number(stage: StageDir, *, node: Node, attempt: int | None, failed: bool) -> int:
    numbers = _failed(stage) if failed else stage.attempts()
    if attempt is not None:
        if attempt in numbers:
            return attempt
        raise ConfigError(
            f"{node.name} has no attempt {attempt}", hint=f"there are: {', '.join(map(str, numbers)) or 'none'}"
        )
    if not numbers:
        which = "failed attempt" if failed else "attempt"
        raise ConfigError(
            f"{node.name} has no {which} yet", where=str(stage.path), hint="`stx status` says what it waits for"
        )
    return numbers[-1]


def _failed(stage: StageDir) -> list[int]:
    """The attempts that failed."""
    return [one.number for one in history.attempts(stage) if one.result in {"FAILED", "LOST"}]


def _other_log(folder: AttemptDir, *, rank: int) -> Path:
    """A rank that never started leaves the supervisor's words only; on a cluster they are with the job's."""
    ranks = [path.name for path in folder.logs()]
    if ranks:
        raise ConfigError(f"no log of rank {rank}", where=str(folder.path), hint=f"there are: {', '.join(ranks)}")
    if (path := supervisor_log(folder, rank=rank)) is not None:
        return path
    raise ConfigError(
        "no log yet: the job has not started", where=str(folder.path), hint="`stx status` says what it waits for"
    )


def _copy(path: Path, *, start: int) -> int:
    """Everything from a position on to stdout, as bytes; the new position."""
    with path.open("rb") as stream:
        stream.seek(start)
        while chunk := stream.read(1 << 20):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return stream.tell()


def _is_over(folder: AttemptDir) -> bool:
    return folder.outcome(0).exists() or folder.verdict.exists()
