"""Reads one stage's directories into `Facts`. Writes nothing.

Attempts are read before results: an attempt that is over has published what it will ever publish, so facts that say
"over, and nothing published" are never a race. An attempt's intent and its end never change, and are read once.

An attempt made progress when there was more afterwards than at its claim, where the intent counted: published parts,
the images of the newest checkpoint, payload files. So any coordinator can tell it later, of any kind of stage.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jobs import typed
from jobs.files import AttemptDir
from jobs.spec import Cause, Result
from stx import records, sharing
from stx.coordinator.events import NOTHING, Facts, Live
from stx.coordinator.topology import Topology, Vertex
from stx.endings import Ended, claim_of, ending, num_ranks
from stx.paths import StageDir, Store


@dataclass(frozen=True)
class Progress:
    """What a stage has to show at one moment."""

    parts: int
    images: int
    files: int

    def beyond(self, before: "Progress") -> bool:
        """Whether there is more now."""
        return self.parts > before.parts or self.images > before.images or self.files > before.files

    def dump(self) -> dict[str, int]:
        """Its JSON, in the intent."""
        return asdict(self)


def measure(stage: StageDir, kind: str) -> Progress:
    """What the stage has to show now."""
    return Progress(
        parts=len(stage.parts(kind)),
        images=max(stage.saved(), default=0),
        files=sum(not name.startswith(".") for name in records.names(stage.payload)),
    )


@dataclass(frozen=True)
class Past:
    """An attempt that is over. `ran`: its worker came to life, so it could have made progress."""

    ended: Ended
    code: str
    accept_code: bool
    before: Progress
    ran: bool


class Surveyor:
    """Looks at stages on behalf of one coordinator.

    launcher      the identity of ours: attempts of another one are out of reach
    code          digest of the code used now: failures of a user's own making count under the same code only
    accept_code   whether checkpoints of other science code are accepted now: then failures from before do not count
    is_abandoned  whether no coordinator drives that experiment any more
    """

    def __init__(
        self,
        store: Store,
        *,
        experiment: str,
        launcher: str,
        code: str,
        accept_code: bool,
        is_abandoned: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._experiment = experiment
        self._launcher = launcher
        self._code = code
        self._accept_code = accept_code
        self._is_abandoned = is_abandoned
        self._intents: dict[tuple[str, int], Mapping[str, Any]] = {}
        self._past: dict[tuple[str, int], Past] = {}

    def everything(self, plan: Topology) -> dict[str, Facts]:
        """The facts of every stage that has a directory and something in it."""
        there = set(self._store.stage_names())
        found = [vertex for vertex in plan.vertices if self._stage(vertex).path.name in there]
        looked = {vertex.key: self.look(vertex) for vertex in found}
        return {key: facts for key, facts in looked.items() if facts != NOTHING}

    def look(self, vertex: Vertex) -> Facts:
        """The facts of one stage."""
        stage, kind = self._stage(vertex), vertex.node.spec.kind
        numbers = stage.attempts()
        since = max(stage.retries(), default=0)
        last = numbers[-1] if numbers else 0
        past = {number: self._over(stage, vertex.key, number) for number in numbers if number > since or number == last}
        ended = [one for number, one in past.items() if one is not None and number > since]
        live = self._live(stage, vertex.key, last) if last and past[last] is None else None
        return Facts(
            parts=tuple(stage.parts(kind)) if vertex.node.grows else (),
            artifact=not vertex.node.grows and stage.result.artifact.exists(),
            last=last,
            live=live,
            ended=ended[-1].ended if ended and live is None else None,
            spent=self._spent(ended),
            idle=idle(ended, now=measure(stage, kind)) if ended and live is None else 0,
        )

    def _stage(self, vertex: Vertex) -> StageDir:
        return self._store.stage(vertex.node.spec.kind, vertex.key)

    def _intent(self, stage: StageDir, key: str, number: int) -> Mapping[str, Any]:
        if (key, number) not in self._intents:
            self._intents[key, number] = records.read(stage.attempt(number).intent)
        return self._intents[key, number]

    def _over(self, stage: StageDir, key: str, number: int) -> Past | None:
        if (key, number) in self._past:
            return self._past[key, number]
        intent, attempt = self._intent(stage, key, number), stage.attempt(number)
        with records.understood(attempt.intent):
            ranks, before = num_ranks(intent), typed.build(Progress, intent["before"])
            code, accept_code = claim_of(intent).code, bool(intent["attempt"]["accept_code"])
        ended = ending(attempt, number=number, ranks=ranks)
        if ended is None:
            return None
        past = Past(ended=ended, code=code, accept_code=accept_code, before=before, ran=attempt.alive(0).exists())
        return self._past.setdefault((key, number), past)

    def _live(self, stage: StageDir, key: str, number: int) -> Live:
        intent, attempt = self._intent(stage, key, number), stage.attempt(number)
        with records.understood(attempt.intent):
            claim = claim_of(intent)
        job_id = find_job(attempt)
        mine = claim.experiment == self._experiment
        return Live(
            number=number,
            experiment=claim.experiment,
            host=claim.host,
            launcher=claim.launcher,
            reachable=claim.launcher == self._launcher,
            job_id=job_id,
            orphan=job_id is None and (mine or self._is_abandoned(claim.experiment)),
            stopped=attempt.stop.exists(),
            user=sharing.other(intent.get("user")),
            shared=tuple(name for name in marks(stage) if name != self._experiment),
        )

    def _spent(self, ended: Sequence[Past]) -> dict[str, int]:
        spent: dict[str, int] = {}
        for one in ended:
            cause = one.ended.cause
            if cause is not None and (cause != Cause.USER or self._same_terms(one)):
                spent[cause] = spent.get(cause, 0) + 1
        return spent

    def _same_terms(self, one: Past) -> bool:
        return one.code == self._code and (one.accept_code or not self._accept_code)


def idle(ended: Sequence[Past], *, now: Progress) -> int:
    """How many of the last attempts in a row ended like the last one, and without progress."""
    count, after = 0, now
    last = ended[-1].ended.result
    for one in reversed(ended):
        if last == Result.FAILED or one.ended.result != last or after.beyond(one.before):
            break
        count += one.ran
        after = one.before
    return count


def find_job(attempt: AttemptDir) -> str | None:
    """The job that runs an attempt: who started it says so himself; else the one it was given to."""
    for path in (attempt.started, attempt.handle):
        record = records.find(path)
        with records.understood(path):
            if record is not None and record["job_id"] is not None:  # None: barred, no job begins it any more
                return str(typed.matching(str, record["job_id"]))
    return None


def marks(stage: StageDir) -> list[str]:
    """The experiments that want the stage."""
    names = records.names(stage.wanted_by)
    return [name.removesuffix(".json") for name in names if not name.startswith(".")]
