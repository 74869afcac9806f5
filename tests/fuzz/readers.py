"""Who reads what: every reader of a kind of record, as a function of its folder, with a real record of that kind.

A strict reader gives its answer or an StxError. A tolerant one (`tolerant`) shows or skips what it must, and goes on.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs import outcome
from jobs.files import AttemptDir
from jobs.outcome import Outcome
from jobs.spec import Handle, JobSpec, Resources, Result
from stx import endings, records, spec
from stx.coordinator import hearts, inbox, journal, lease, prepare, roots, status, survey
from stx.coordinator.events import Facts, Live, Opened, Policy, Surveyed, dump
from stx.paths import ExperimentDir, StageDir, Store
from stx.report import history
from stx.spec import Artifact, Cost, Graph, Input, Node, StageSpec
from stx.verbs import select

LATENTS = StageSpec("latents", 1, {"seed": 0})
TRAIN = StageSpec(
    "train", 2, {"seed": 0, "model": {"depth": 2}, "lr": 1e-3}, {"latents": Input("latents", LATENTS.key)}
)
GRAPH = Graph(
    "e",
    (
        Node("latents", "latents", LATENTS),
        Node("run:seed=0", "run", TRAIN, wants=(8, 16), point={"seed": 0}, cost=Cost(1e9, 1.0, 5.0), priority=2.0),
    ),
    {"y": "frechet_distance"},
)
JOB = JobSpec("stx-1-2-1", ("python",), Path("/s/attempts/001"), Path("/"), Resources(), {"A": "b"})
INTENT = {
    "tag": JOB.tag,
    "token": 1,
    "number": 1,
    "experiment": "e",
    "host": "h",
    "launcher": "local:h",
    "cluster": "local",
    "code": "c",
    "before": {"parts": 0, "images": 0, "files": 0},
    "job": JOB.dump(),
    "attempt": {"accept_code": False, "layout": {"ranks": 1}, "threads": 1},
}
FACTS = Facts(last=1, live=Live(1, "e", "h", "local:h", reachable=True, job_id="1:2:b:m"), spent={"LOST": 1})
POLICY = Policy(retries={"lost": 3}, backoff_s=(0.0, 1.0), queued=2, running=3, stop_lead_s=9.0)
EVENTS = [
    Opened(1.0, "boot", 1, POLICY, {TRAIN.key: FACTS}),
    Surveyed(2.0, TRAIN.key, Facts(parts=(8,), last=1, ended=endings.Ended(1, "YIELDED"))),
]


@dataclass(frozen=True)
class Reader:
    """`read` finds the file at `name` in a folder."""

    name: str
    record: dict[str, Any]
    read: Callable[[Path], Any]
    tolerant: bool = False


def store(folder: Path) -> Store:
    return Store(folder)


def stage(folder: Path) -> StageDir:
    return store(folder).stage("train", TRAIN.key)


def attempt(folder: Path) -> AttemptDir:
    return stage(folder).attempt(1)


def experiment(folder: Path) -> ExperimentDir:
    return store(folder).experiment("e")


def place(path: Path) -> str:
    return str(path.relative_to("/"))


ROOT = Path("/")
A, S, E = attempt(ROOT), stage(ROOT), experiment(ROOT)


def read_outcome(folder: Path) -> Any:
    with records.understood(attempt(folder).outcome(0)):
        return outcome.read(attempt(folder), 0)


def read_intent(folder: Path) -> Any:
    """All that takes something from a claim."""
    intent = records.read(attempt(folder).intent)
    with records.understood(attempt(folder).intent):
        endings.num_ranks(intent)
        endings.claim_of(intent)
        JobSpec.parse(intent["job"])
    return endings.unfinished(stage(folder))


def read_lease(folder: Path) -> Any:
    lease.code_in_use(experiment(folder))
    lease.was_released(experiment(folder))
    return lease.holder(experiment(folder)), lease.Observer(experiment(folder)).free()


def read_heartbeat(folder: Path) -> Any:
    patient = hearts.Patient("k", 1, attempt(folder), running=True)
    return hearts.Hearts({"other": 1.0}, clock=lambda: 1.0, poll_s=1.0).look([patient], well=True)


def show_heartbeat(folder: Path) -> Any:
    state = journal.new(GRAPH)
    from stx.coordinator.transitions import step

    for event in EVENTS[:1]:
        state, _ = step(state, event)
    return [line.dump() for line in status.overview(state, store=store(folder))]


def read_graph(folder: Path) -> Any:
    list(roots.wanted_by(store(folder), "e"))
    return records.dumps(select.load_graph(experiment(folder)).dump())


def read_stage(folder: Path) -> Any:
    list(roots.sources(stage(folder)))
    record = records.read(stage(folder).record)
    with records.understood(stage(folder).record):
        return StageSpec.parse(record).key


def read_store(folder: Path) -> Any:
    return prepare.check_store(store(folder))


READERS = {
    "store": Reader("store.json", {"id": "01234567", "format": 1}, read_store),
    "graph": Reader(place(E.graph), GRAPH.dump(), read_graph),
    "stage": Reader(place(S.record), TRAIN.hashed(), read_stage),
    "mark": Reader(place(S.mark("e")), {"experiment": "e", "images": [8, 16]}, lambda at: spec.wanted(stage(at))),
    "artifact": Reader(
        place(S.part("train", 8).artifact),
        Artifact("train", TRAIN.key, 8, {"weights.safetensors": "0" * 64}, {"seconds": 1.0}).dump(),
        lambda at: spec.read_artifact(stage(at).part("train", 8).artifact),
    ),
    "intent": Reader(place(A.intent), INTENT, read_intent),
    "outcome": Reader(
        place(A.outcome(0)), json.loads(Outcome(0, Result.COMPLETED, info={"n": 1}).encode()), read_outcome
    ),
    "verdict": Reader(
        place(A.verdict),
        {"result": "FAILED", "cause": "LOST", "message": "gone", "experiment": "e", "host": "h"},
        lambda at: endings.ending(attempt(at), number=1, ranks=1),
    ),
    "handle": Reader(place(A.handle), Handle("t", "1:2:b:m").dump(), lambda at: survey.find_job(attempt(at))),
    "lease": Reader(
        place(E.lease / "1"), lease.content("1:2:b:m", beat=0, lease_s=20.0, released=False, code="c"), read_lease
    ),
    "inbox": Reader(
        place(E.inbox / "1.json"), asdict(inbox.Command("cancel", ("k",))), lambda at: inbox.letters(experiment(at))
    ),
    "heartbeat": Reader(
        place(A.heartbeat),
        {"counter": 7, "phase": "step", "time": 1.0, "numbers": {"images": 8, "total": 16, "loss": 0.5}},
        read_heartbeat,
        tolerant=True,
    ),
    "shown heartbeat": Reader(
        place(A.heartbeat),
        {"counter": 7, "phase": "step", "time": 1.0, "numbers": {"images": 8, "total": 16, "loss": 0.5}},
        show_heartbeat,
        tolerant=True,
    ),
    "shown outcome": Reader(
        place(A.outcome(0)), json.loads(Outcome(0, Result.YIELDED).encode()), show_heartbeat, tolerant=True
    ),
    "told attempt": Reader(
        place(A.attempt),
        {"layout": {"ranks": 2, "cpus_per_rank": 1}, "threads": 1, "code": "c"},
        lambda at: history.attempts(stage(at)),
        tolerant=True,
    ),
    "told outcome": Reader(
        place(A.outcome(0)),
        json.loads(Outcome(0, Result.COMPLETED, info={"recomputed_images": 1, "versions": {"torch": "2"}}).encode()),
        lambda at: history.attempts(stage(at)),
        tolerant=True,
    ),
    "told verdict": Reader(
        place(A.verdict),
        {"result": "FAILED", "cause": "LOST", "message": "gone"},
        lambda at: history.attempts(stage(at)),
        tolerant=True,
    ),
}


def write_journal(folder: Path, lines: list[bytes]) -> None:
    experiment(folder).path.mkdir(parents=True, exist_ok=True)
    experiment(folder).events(1).write_bytes(b"".join(line + b"\n" for line in lines))


JOURNAL = [{"at": 1.0, "event": dump(event)} for event in EVENTS]
