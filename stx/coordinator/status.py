"""What an experiment is doing, for people and programs: the journal's state plus the heartbeats of live attempts.
Reads only.

It needs no coordinator: jobs run on without one, and then the journal is as old as its last entry while the
heartbeats are fresh. So every answer says who drives the experiment, how old the journal is, and of a live attempt
what its own directory says; an attempt that ended after the journal's last entry is shown as ENDED, not as RUNNING.
Ages compare this machine's clock with the file server's: shown to people, never acted upon.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from jobs import typed
from jobs.files import AttemptDir
from jobs.spec import JobState
from stx import records
from stx.coordinator import earlier, lease
from stx.coordinator.earlier import Earlier
from stx.coordinator.journal import Reader
from stx.coordinator.state import Stage, State, Status, Watch
from stx.coordinator.topology import Vertex
from stx.errors import StoreError, printable
from stx.paths import ExperimentDir, StageDir, Store
from stx.spec import Graph

READERS = 32
LOOKED_AT = 200  # of so many stages also those attempts are looked at that lie behind a result
LOG_LINES = 20
FAILURES_QUOTED = 20
QUEUED = "QUEUED"
LIVE = frozenset({Status.RUNNING, Status.ELSEWHERE})


@dataclass(frozen=True)
class Progress:
    """What a live attempt says of itself. `over` is the result of an attempt that ended, or "". `images` of a train
    stage that nobody is at, or whose attempt has said nothing yet: where it goes on. `host`: the first machine of its
    job, where that is a cluster's."""

    phase: str = ""
    images: int | None = None
    total: int | None = None
    images_per_s: float | None = None
    loss: float | None = None
    age_s: float | None = None
    over: str = ""
    layout: Mapping[str, Any] | None = None
    host: str = ""


@dataclass(frozen=True)
class Line:
    """One stage. `state` is the coordinator's word, QUEUED for a live attempt that waits for its scheduler, ENDED for
    one that no coordinator has seen end; `images` are images seen of train stages, and rows of the others; `layout` is
    how the work of the live attempt is spread.

    causes           why earlier attempts ended without finishing the stage: {"preempted": 1, "NODE": 1}
    nodes            where the live one runs, as a scheduler writes it; "" on this machine
    expected_start   when one that waits may start, by its scheduler's clock; "" if it does not say
    log, log_tail    of a stage that FAILED, where there are few: what it printed last
    """

    name: str
    stage: str
    kind: str
    key: str
    state: str
    why: str
    phase: str
    images: int | None
    total: int | None
    images_per_s: float | None
    eta_s: float | None
    loss: float | None
    heartbeat_age_s: float | None
    attempts: int
    attempt: int | None
    job_id: str | None
    host: str | None
    failed: Mapping[str, int]
    layout: Mapping[str, Any] | None = None
    causes: Mapping[str, int] = field(default_factory=dict)
    nodes: str = ""
    expected_start: str = ""
    log: str | None = None
    log_tail: tuple[str, ...] = ()

    def dump(self) -> dict[str, Any]:
        """Its JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Driver:
    """Who drives the experiment. `here`: a process of this machine, surely alive; otherwise its host's word. `job_id`:
    the job that it lives in, if it does.
    """

    host: str
    pid: int
    here: bool
    job_id: str | None = None


class Left(StrEnum):
    """How the last coordinator went, if it gave its lease back: no word of it means that it vanished."""

    ENDED = "ended"
    INTERRUPTED = "interrupted"
    LEFT = "left"
    FAILED = "failed"


@dataclass(frozen=True)
class Overview:
    """One experiment at one moment. `left`: how its last coordinator went; None while one drives it, and where the last
    one vanished. `error`: what ended the one that FAILED. `next_job`: the job that is to drive it, or looks next, as
    its submit or the last pass wrote it down."""

    experiment: str
    driver: Driver | None
    journal_age_s: float | None
    trouble: str
    lines: tuple[Line, ...]
    left: Left | None = None
    error: str = ""
    next_job: str | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Stages by state."""
        return dict(Counter(line.state for line in self.lines))

    def dump(self) -> dict[str, Any]:
        """Its JSON."""
        return {
            "experiment": self.experiment,
            "coordinator": asdict(self.driver) if self.driver else None,
            "journal_age_s": self.journal_age_s,
            "next_job": self.next_job,
            "left": self.left,
            "error": self.error,
            "trouble": self.trouble,
            "counts": self.counts,
            "stages": [line.dump() for line in self.lines],
        }


def is_queued(stage: Stage) -> bool:
    """Whether its attempt is claimed, and no scheduler has said that it runs."""
    return stage.status is Status.RUNNING and stage.seen in (None, JobState.PENDING)


def counts(state: State) -> dict[str, int]:
    """Stages by what people are told of them: RUNNING without those whose job still waits, which are QUEUED."""
    found: dict[str, int] = {status.value: count for status, count in state.counts.items() if count}
    queued = sum(is_queued(state.stages[index]) for index in state.live)
    if queued:
        found |= {Status.RUNNING.value: found[Status.RUNNING.value] - queued, QUEUED: queued}
    return {status: count for status, count in found.items() if count}


class Observer:
    """Looks at one experiment, again and again: only what was appended to the journal since is read."""

    def __init__(self, store: Store, *, experiment: ExperimentDir, graph: Graph) -> None:
        self.store = store
        self.experiment = experiment
        self.graph = graph
        self._reader = Reader(experiment, graph)
        self._earlier = Earlier()
        self.state = self._reader.refresh()

    def look(self, *, keys: Iterable[str] | None = None) -> Overview:
        """The experiment now; of these stages only, if given."""
        self.state = state = self._reader.refresh()
        at = self._reader.at
        holder = lease.holder(self.experiment)
        job = _find(self.experiment.coordinator) or {}
        driver = Driver(holder.host, holder.pid, holder.here, _job_of(holder, job)) if holder else None
        age = max(0.0, time.time() - at) if at is not None else None
        lines = overview(state, store=self.store, keys=keys, driven=driver is not None)
        lines = self._with_past(lines)
        left = _left(state) if driver is None and lease.was_released(self.experiment) else None
        error = "" if driver else state.error
        following = str(job.get("next", job["job_id"])) if driver is None and "job_id" in job else None
        return Overview(self.graph.experiment, driver, age, state.paused, lines, left, error, following)

    def _with_past(self, lines: tuple[Line, ...]) -> tuple[Line, ...]:
        """What became of earlier attempts, and the last words of the first stages that failed."""
        again = [line for line in lines if line.attempts > 1]
        looked = {line.key for line in again if len(again) <= LOOKED_AT or line.state != "DONE"}
        quoted = {line.key for line in [line for line in lines if line.state == "FAILED"][:FAILURES_QUOTED]}
        wanted = {line.key: line for line in lines if line.key in looked | quoted}
        with ThreadPoolExecutor(READERS) as pool:
            told = pool.map(
                lambda line: self._past(line, causes=line.key in looked, log=line.key in quoted), wanted.values()
            )
            wanted = dict(zip(wanted, told, strict=True))
        return tuple(wanted.get(line.key, line) for line in lines)

    def _past(self, line: Line, *, causes: bool, log: bool) -> Line:
        stage = self.store.stage(line.kind, line.key)
        if causes:
            line = replace(line, causes=self._earlier.causes(stage))
        path = earlier.log_of(stage.attempt(line.attempts)) if log and line.attempts else None
        if path is not None:
            line = replace(line, log=str(path), log_tail=tuple(map(printable, earlier.last_lines(path, LOG_LINES))))
        return line


def _job_of(holder: lease.Holder, job: Mapping[str, Any]) -> str | None:
    """The job that the holder of the lease lives in."""
    is_it = (job.get("host"), job.get("pid")) == (holder.host, holder.pid)
    return str(job["job_id"]) if is_it else None


def _left(state: State) -> Left:
    """Of a coordinator that gave its lease back."""
    if state.error:
        return Left.FAILED
    if state.finished:
        return Left.ENDED
    return Left.INTERRUPTED if state.stopping else Left.LEFT


def overview(state: State, *, store: Store, keys: Iterable[str] | None = None, driven: bool = True) -> tuple[Line, ...]:
    """One line per stage, inputs first; the directories of those that were tried and are not done are read by many
    threads, because a network file system answers slowly, not seldom.
    """
    asked = None if keys is None else frozenset(keys)
    rows = [(vertex, stage) for vertex, stage in state.rows() if asked is None or vertex.key in asked]
    tried = [(vertex, stage) for vertex, stage in rows if stage.facts.last and stage.status is not Status.DONE]
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda pair: _progress(pair[0], pair[1], store=store), tried))
    progress = {vertex.key: one for (vertex, _), one in zip(tried, found, strict=True)}
    return tuple(_line(vertex, stage, progress.get(vertex.key), driven=driven) for vertex, stage in rows)


def _progress(vertex: Vertex, seen: Stage, *, store: Store) -> Progress:
    kind, live = vertex.node.spec.kind, seen.facts.live
    stage = store.stage(kind, vertex.key)
    if live is None or seen.status not in LIVE:
        return Progress(images=_saved(vertex, stage))
    folder = stage.attempt(live.number)
    over = _result(folder)
    if over:
        parts = stage.parts(kind) if vertex.node.grows else []
        done = set(vertex.wants) <= set(parts) if vertex.node.grows else stage.result.artifact.exists()
        return Progress(over="DONE" if done else over, images=_saved(vertex, stage) or max(parts, default=None))
    beat = _find(folder.heartbeat) or {}
    told = beat.get("numbers")
    numbers = {name: value for name, value in told.items() if _is_number(value)} if isinstance(told, dict) else {}
    return Progress(
        phase=str(beat.get("phase", "")),
        images=_whole(numbers.get("images")) if "images" in numbers else _saved(vertex, stage),
        total=_whole(numbers.get("total")),
        images_per_s=numbers.get("images_per_s"),
        loss=numbers.get("loss"),
        age_s=_age(folder.heartbeat),
        layout=(_find(folder.attempt) or {}).get("layout"),
        host="" if live.launcher.startswith("local:") else str((_find(folder.started) or {}).get("host", "")),
    )


def _saved(vertex: Vertex, stage: StageDir) -> int | None:
    """Images seen at the newest checkpoint or milestone of a train stage: there its next attempt goes on."""
    if vertex.node.spec.kind != "train":
        return None
    return max([*stage.saved(), *stage.parts("train")], default=None)


def _result(folder: AttemptDir) -> str:
    """Rank 0's outcome, or the verdict: enough to say that an attempt is over."""
    record = _find(folder.outcome(0)) or _find(folder.verdict)
    if record is None:
        return ""
    cause = record.get("cause")
    return f"{record.get('result', 'LOST')} {cause}" if cause else str(record.get("result", "LOST"))


def _find(path: Path) -> dict[str, Any] | None:
    """A record, or None where there is none or its bytes are not there yet."""
    with contextlib.suppress(StoreError, OSError):
        return records.find(path)
    return None


def _age(path: Path) -> float | None:
    with contextlib.suppress(OSError):
        return max(0.0, time.time() - path.stat().st_mtime)
    return None


def _is_number(value: Any) -> bool:
    """Whether it can be shown as one."""
    return type(value) in (int, float) and abs(value) < typed.LARGEST


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _line(vertex: Vertex, stage: Stage, progress: Progress | None, *, driven: bool) -> Line:
    now = progress or Progress()
    state, why = _state(stage, now, driven=driven)
    images, total = _amount(vertex, stage, now, state=state)
    rate = now.images_per_s if state == "RUNNING" else None
    live = stage.facts.live
    left = max(0, total - images) if total is not None and images is not None else None
    return Line(
        name=printable(vertex.node.name).replace("\n", "\\n"),
        stage=vertex.node.stage,
        kind=vertex.node.spec.kind,
        key=vertex.key,
        state=state,
        why=printable(why),
        phase=printable(now.phase),
        images=images,
        total=total,
        images_per_s=rate,
        eta_s=left / rate if left is not None and rate else None,
        loss=now.loss,
        heartbeat_age_s=now.age_s,
        attempts=stage.facts.last,
        attempt=live.number if live else None,
        job_id=live.job_id if live else None,
        host=live.host if live else None,
        failed=dict(stage.facts.spent),
        layout=now.layout,
        nodes=printable(stage.watch.nodes if stage.watch and stage.watch.nodes else now.host),
        expected_start=stage.watch.start if stage.watch and state == QUEUED else "",
    )


def _state(stage: Stage, now: Progress, *, driven: bool) -> tuple[str, str]:
    if now.over == "DONE":
        return "DONE", ""
    if now.over:
        return "ENDED", f"{now.over}; {'about to be seen' if driven else 'submit again to go on'}"
    if is_queued(stage) and now.age_s is None:
        return QUEUED, stage.why or _waits(stage.watch)
    why = stage.why
    if stage.unseen_s:
        why = f"unseen: its heartbeat stands still; {why}".rstrip("; ")
    return stage.status.value, why


def _waits(watch: Watch | None) -> str:
    if watch is None or not (watch.detail or watch.start):
        return "its job waits for its turn"
    start = f"expected to start {watch.start}" if watch.start else ""
    return ", ".join(filter(None, [watch.detail, start]))


def _amount(vertex: Vertex, stage: Stage, now: Progress, *, state: str) -> tuple[int | None, int | None]:
    """Images seen and wanted of a train stage, by its heartbeat or by what is published; of other kinds the rows that a
    live attempt works through.
    """
    if vertex.node.spec.kind != "train":
        return now.images, now.total
    total = max(vertex.wants, default=None)
    if state == "DONE":
        return total, total
    published = [images for images in stage.facts.parts if total is None or images <= total]
    if now.images is None and state == QUEUED and not published:
        return None, total
    images = now.images if now.images is not None else max(published, default=0)
    return images if total is None else min(images, total), total
