"""What a state has to tell a person who is not looking: `on_event` of the cluster file. Pure.

    stage_failed   a stage is FAILED: its budget is spent
    paused         nothing is started: the disk is full, or the scheduler does not answer or takes no more jobs
    resumed        it goes on
    finished       every stage rests; exit_code 0: all are done

A notice has a name. The same happening has the same name whoever looks at it and however often: a stage failed with
its n-th attempt, the experiment rests in this very state. So it is told once, also when a coordinator starts anew.
Pauses belong to one coordinator: their names bear its token.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stx import records
from stx.coordinator.state import Stage, State, Status
from stx.coordinator.topology import Vertex
from stx.paths import Store

SCHEMA = 1
WORDS = 4000  # of a reason: the whole of it is in the log


@dataclass(frozen=True)
class Notice:
    """One thing to tell. `record` is what the program reads on its standard input."""

    name: str
    record: dict[str, Any]


class Teller:
    """Says what is new in a state since the last one that it saw."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._before: State | None = None
        self._paused = ""
        self._pauses = 0

    def look(self, state: State) -> list[Notice]:
        """What this state has to tell; again, if it was told before: names tell."""
        if state is self._before:
            return []
        self._before = state
        return [*self._pause(state), *self._failures(state), *self._finish(state)]

    def _pause(self, state: State) -> Iterator[Notice]:
        reason = state.paused
        if bool(reason) == bool(self._paused):
            return
        self._pauses += bool(reason)
        event = "paused" if reason else "resumed"
        why = reason or self._paused
        self._paused = reason
        yield self._notice(state, f"{event}-{state.token}-{self._pauses}", event=event, why=why[:WORDS])

    def _failures(self, state: State) -> Iterator[Notice]:
        if not state.counts.get(Status.FAILED, 0):
            return
        for vertex, stage in state.rows():
            if stage.status is Status.FAILED:
                name = f"stage_failed-{vertex.key[:12]}-{stage.facts.last}"
                yield self._notice(state, name, event="stage_failed", **self._about(vertex, stage))

    def _about(self, vertex: Vertex, stage: Stage) -> dict[str, Any]:
        attempt = self._store.stage(vertex.node.spec.kind, vertex.key).attempt(stage.facts.last)
        return {
            "stage": vertex.node.name,
            "kind": vertex.node.spec.kind,
            "key": vertex.key,
            "attempt": stage.facts.last,
            "cause": stage.facts.ended.cause if stage.facts.ended else None,
            "why": stage.why[:WORDS],
            "log": str(attempt.log(0)),
        }

    def _finish(self, state: State) -> Iterator[Notice]:
        if not state.finished:
            return
        rest = [[vertex.key, stage.status.value, stage.facts.last] for vertex, stage in state.rows()]
        counts = {status.value: count for status, count in state.counts.items() if count}
        name = f"finished-{records.digest(rest)[:12]}"
        yield self._notice(state, name, event="finished", exit_code=state.exit_code, stages=counts)

    def _notice(self, state: State, name: str, **facts: Any) -> Notice:
        head = {"schema": SCHEMA, "id": name, "experiment": state.plan.experiment, "store": str(self._store.root)}
        return Notice(name, head | facts)
