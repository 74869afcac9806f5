"""Which state a stage is in, given its facts, its inputs' and the time; and how a change reaches what depends on it.

`Work` is the only mutable thing of the pure core: the changes of one event, folded into a new State at its end.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from stx.coordinator.events import Action, Facts, Start, Want
from stx.coordinator.policy import decide
from stx.coordinator.state import BROKEN, Stage, State, Status
from stx.coordinator.topology import Vertex


@dataclass
class Work:
    """The changes that one event makes."""

    before: State
    now: float
    changed: dict[int, Stage] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)

    def __getitem__(self, index: int) -> Stage:
        return self.changed.get(index) or self.before.stages[index]

    def put(self, index: int, stage: Stage) -> None:
        """Replace one stage; its state is settled separately."""
        if stage != self[index]:
            self.changed[index] = stage

    def update(self, index: int, stage: Stage) -> None:
        """Replace one stage, settle it, and settle what depends on it as far as the change reaches."""
        pending = [(index, stage)]
        while pending:
            place, given = pending.pop()
            old, settled = self[place], self._settled(place, given)
            self.put(place, settled)
            if settled.status != old.status or settled.facts.parts != old.facts.parts:
                dependents = self.before.plan.vertices[place].dependents
                pending.extend((dependent, self[dependent]) for dependent in dependents)

    def settle(self, index: int) -> None:
        """Settle one stage alone, when all stages are visited inputs first."""
        self.put(index, self._settled(index, self[index]))

    def finish(self, state: State) -> State:
        """`state` (the old one, its scalars perhaps changed) with the changed stages and what follows from them."""
        changed = {place: stage for place, stage in self.changed.items() if stage != self.before.stages[place]}
        if not changed:
            return state
        counts, live, delayed = dict(state.counts), set(state.live), set(state.delayed)
        for place, stage in changed.items():
            old = self.before.stages[place]
            counts[old.status] -= 1
            counts[stage.status] = counts.get(stage.status, 0) + 1
            (live.add if _is_live(stage) else live.discard)(place)
            (delayed.add if stage.status == Status.DELAYED else delayed.discard)(place)
        return replace(
            state,
            stages=state.stages.updated(changed),
            counts=counts,
            live=state.live if live == state.live else frozenset(live),
            delayed=state.delayed if delayed == state.delayed else frozenset(delayed),
        )

    def _settled(self, index: int, stage: Stage) -> Stage:
        status, why = self._classify(index, stage)
        if status == Status.DELAYED:
            stage = self._delayed(stage)
            status = Status.DELAYED if stage.due is not None and self.now < stage.due else Status.READY
            why = why if status == Status.DELAYED else ""
        held = status in (Status.RUNNING, Status.ELSEWHERE)
        if held and not (stage.marked or stage.starting or stage.cancelled):
            self.actions.append(Want(self.before.plan.vertices[index].key))
            stage = replace(stage, marked=True)
        return replace(stage, status=status, why=why)

    def _delayed(self, stage: Stage) -> Stage:
        """A delay begins when it is first needed after an attempt, not at every look."""
        if stage.due is not None and stage.due_after == stage.facts.last:
            return stage
        delay = decide(stage.facts, self.before.policy).delay_s
        return replace(stage, due=self.now + delay, due_after=stage.facts.last, delay_s=delay)

    def _classify(self, index: int, stage: Stage) -> tuple[Status, str]:
        vertex, facts = self.before.plan.vertices[index], stage.facts
        if is_done(vertex, facts):
            return Status.DONE, ""
        held = self._held(stage)
        if held is not None:
            return held
        if stage.cancelled:
            return Status.CANCELLED, "cancelled"
        decision = decide(facts, self.before.policy)
        if decision.fail:
            return Status.FAILED, decision.why
        missing = self._missing(vertex, facts)
        if missing is not None:
            return missing
        return (Status.DELAYED if decision.delay_s > 0 else Status.READY), decision.why

    def _held(self, stage: Stage) -> tuple[Status, str] | None:
        live = stage.facts.live
        if live is None:
            return (Status.RUNNING, "") if stage.starting else None
        mine = self.before.is_mine(live)
        if stage.cancelled and (live.shared or not mine):
            others = ", ".join(live.shared) or live.experiment
            return Status.CANCELLED, f"cancelled here; attempt {live.number} goes on for {others}"
        if mine:
            return Status.RUNNING, _ending_words(stage)
        who = f"{live.user}, experiment {live.experiment}," if live.user else f"experiment {live.experiment}"
        held = f"held by {who} on {live.host}"
        if not live.reachable:
            held += f" (launcher {live.launcher}, out of reach; if it is surely gone: stx retry --take-over)"
        elif live.user and live.orphan:
            held += " (claimed, and perhaps never started; if it is surely gone: stx retry --take-over)"
        return Status.ELSEWHERE, held

    def _missing(self, vertex: Vertex, facts: Facts) -> tuple[Status, str] | None:
        """WAITING or BLOCKED with the reason, or None when the stage can start."""
        for fixed in vertex.fixed:
            source = self[fixed.index]
            if not has(self.before.plan.vertices[fixed.index], source.facts, images=fixed.images):
                return self._stuck(fixed.index) if self._never(fixed.index) else self._waits(fixed.index)
        outstanding = [images for images in vertex.wants if images not in facts.parts]
        for index in vertex.streams:
            outstanding = [images for images in outstanding if images in self[index].facts.parts]
            if not outstanding:
                return self._stuck(index) if self._never(index) else self._waits(index)
        return None

    def _never(self, index: int) -> bool:
        """A stage that is broken, or done without the part that is missed, will not make it."""
        return self[index].status in BROKEN or self[index].status == Status.DONE

    def _stuck(self, index: int) -> tuple[Status, str]:
        source, name = self[index], self.before.plan.vertices[index].node.name
        if source.status == Status.DONE:
            return Status.BLOCKED, f"{name} is done and does not hold the result that is needed"
        return Status.BLOCKED, f"{name} is {source.status}"

    def _waits(self, index: int) -> tuple[Status, str]:
        return Status.WAITING, f"waits for {self.before.plan.vertices[index].node.name}"


def is_done(vertex: Vertex, facts: Facts) -> bool:
    """Whether everything this experiment wants of the stage is published."""
    return set(vertex.wants) <= set(facts.parts) if vertex.node.grows else facts.artifact


def has(vertex: Vertex, facts: Facts, *, images: int | None) -> bool:
    """Whether one result is published (`images`), or all that is wanted."""
    return images in facts.parts if images is not None else is_done(vertex, facts)


def startable(state: State) -> Iterator[tuple[int, Start]]:
    """Starts that the limits allow now, by priority. Jobs that wait for GPUs may be counted apart: others pass them."""
    if not state.counts.get(Status.READY, 0) or state.stopping or state.leaving or state.full or state.throttled:
        return
    mine = [index for index in state.live if state.stages[index].status == Status.RUNNING]
    room = dict.fromkeys((False, True) if state.policy.apart else (False,), state.policy.queued)
    for index in mine:
        room[_is_apart(state, index)] -= state.stages[index].seen != "RUNNING"
    most = state.policy.running - len(mine)
    for index, stage in enumerate(state.stages):
        if most <= 0 or max(room.values()) <= 0:
            return
        if stage.status == Status.READY and room[apart := _is_apart(state, index)] > 0:
            room[apart] -= 1
            most -= 1
            yield index, Start(state.plan.vertices[index].key, stage.facts.last + 1)


def _is_apart(state: State, index: int) -> bool:
    return state.plan.vertices[index].node.spec.kind in state.policy.apart


def _is_live(stage: Stage) -> bool:
    return stage.facts.live is not None or stage.starting > 0


def _ending_words(stage: Stage) -> str:
    if stage.watch is None or not stage.watch.ending:
        return ""
    return "hangs, is being ended" if stage.watch.ending == "hang" else "was asked to save and leave"
