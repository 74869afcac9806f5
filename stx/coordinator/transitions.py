"""The coordinator's mind: step(state, event) -> (state, actions). Pure and total: any event in any state gives a state.

At most one attempt of a stage is live: Start is asked for only when the facts say that the last attempt is over, and
its claim is a file that one claimant gets. A job is judged only after it was gone twice in a row; UNKNOWN is never a
verdict; outcomes arrive as facts and beat both. An event that changes nothing returns the very same state, and is not
journaled.
"""

from collections.abc import Iterable
from dataclasses import replace

from jobs.spec import Cause, JobState
from stx.coordinator.events import (
    Action,
    Adopt,
    Cancel,
    Crashed,
    Event,
    Facts,
    Forgive,
    Hung,
    Interrupted,
    Judge,
    Live,
    Observed,
    Opened,
    Ordered,
    Paused,
    Resubmit,
    Sought,
    Stop,
    Surveyed,
    Throttled,
    Tick,
    Troubled,
    Unmark,
    Unseen,
)
from stx.coordinator.settle import Work, startable
from stx.coordinator.state import State, Status, Watch, evolve, new
from stx.spec import Graph

MISSES = 2
CANCEL_AGAIN_S = 30.0
Step = tuple[State, tuple[Action, ...]]


def replay(graph: Graph, events: Iterable[Event]) -> State:
    """The state after these events."""
    state = new(graph)
    for event in events:
        state, _ = step(state, event)
    return state


def step(state: State, event: Event) -> Step:
    """The next state and what is to be done."""
    match event:
        case Opened():
            return _opened(state, event)
        case Surveyed() | Observed() | Sought() | Unseen() | Hung():
            return _about_one(state, event)
        case Ordered():
            return _ordered(state, event)
        case Interrupted():
            return _stopping(state, event.now)
        case Paused():
            # While it lasts its first reason stands: another file meets it at every try.
            return evolve(state, full=event.reason and (state.full or event.reason)), ()
        case Troubled():
            return evolve(state, trouble=event.message), ()
        case Throttled():
            return evolve(state, throttled=event.reason), ()
        case Crashed():
            return evolve(state, error=event.error), ()
        case Tick():
            return _tick(state, event)


def _opened(state: State, event: Opened) -> Step:
    # Delays are durations on one clock: a coordinator on another machine, or after a reboot, begins them anew.
    same_clock = event.clock == state.clock
    state = replace(
        state,
        token=event.token,
        policy=event.policy,
        clock=event.clock,
        stopping=False,
        leaving=False,
        full="",
        trouble="",
        throttled="",
        error="",
    )
    work = Work(state, event.now)
    for index in state.plan.order:
        old = state.stages[index]
        facts = event.facts.get(state.plan.vertices[index].key, old.facts)
        watch = _watch(None if facts.live is None else old.watch, facts.live, work=work, anew=not same_clock)
        due = old.due if same_clock else None
        work.put(index, replace(old, facts=facts, starting=0, marked=False, watch=watch, due=due))
        work.settle(index)
        _end_if_unwanted(work, index)
    return work.finish(state), tuple(work.actions)


def _watch(old: Watch | None, live: Live | None, *, work: Work, anew: bool = False) -> Watch | None:
    """What is known of the live attempt; nothing yet if it is another one than before."""
    if live is None:
        return None
    watch = old if old is not None and old.number == live.number else Watch(live.number)
    if live.stopped and not watch.ending:
        watch = replace(watch, ending="stop")
    if watch.ending and (anew or watch.cancel_at is None):
        watch = replace(watch, cancel_at=work.now + work.before.policy.stop_lead_s)
    return watch


def _about_one(state: State, event: Surveyed | Observed | Sought | Unseen | Hung) -> Step:
    """Events about one stage. Of a key this graph lacks, or of an attempt that is no longer live, they say nothing."""
    index = state.plan.index.get(event.key)
    if index is None:
        return state, ()
    work = Work(state, event.now)
    stage = state.stages[index]
    if isinstance(event, Surveyed):
        _surveyed(work, index, event.facts)
    elif stage.watch is not None and stage.watch.number == event.number:
        work.update(index, replace(stage, watch=_watched(work, stage.watch, event)))
    return work.finish(state), tuple(work.actions)


def _surveyed(work: Work, index: int, facts: Facts) -> None:
    stage = work[index]
    if facts == stage.facts and not stage.starting:
        return
    watch = _watch(stage.watch, facts.live, work=work)
    work.update(index, replace(stage, facts=facts, starting=0, watch=watch))
    _end_if_unwanted(work, index)


def _watched(work: Work, watch: Watch, event: Observed | Sought | Unseen | Hung) -> Watch:
    match event:
        case Observed(state=JobState.ENDED):
            full = watch.full or work.before.full
            watch = replace(
                watch,
                seen=event.state,
                misses=watch.misses + 1,
                detail=event.detail,
                cause=event.cause or watch.cause,
                failed=event.failed or watch.failed,
                full=full,
            )
            if watch.misses >= MISSES:
                work.actions.append(_judgement(watch, key=event.key, detail=event.detail))
            return watch
        case Observed(state=JobState.UNKNOWN):
            return replace(watch, seen=event.state, detail=event.detail)
        case Observed():
            there = replace(watch, seen=event.state, misses=0, nodes=event.nodes, start=event.start)
            return replace(there, detail=event.detail)
        case Sought():
            return replace(watch, sought=watch.sought + 1)
        case Unseen():
            return replace(watch, unseen_s=event.seconds)
        case Hung():
            work.actions.append(Cancel(event.key, event.number))
            return replace(watch, ending="hang", unseen_s=event.seconds, cancel_at=work.now + CANCEL_AGAIN_S)


def _judgement(watch: Watch, *, key: str, detail: str) -> Judge:
    if watch.ending == "hang":
        message = f"no heartbeat for {watch.unseen_s:.0f} s while the store and other attempts were well; cancelled"
        return Judge(key, watch.number, Cause.HANG, message)
    words = f"the scheduler says: {detail}" if detail else "the scheduler no longer knows the job"
    if watch.full:  # whoever meets a full disk at the start, or with the last word, cannot say so
        return Judge(key, watch.number, Cause.NO_SPACE, f"ended without an outcome ({words}): {watch.full}")
    message = f"ended without an outcome ({words})"
    return Judge(key, watch.number, watch.cause or Cause.LOST, message, watch.failed)


def _end_if_unwanted(work: Work, index: int) -> None:
    """Ask an attempt of ours to leave when the run stops, or when it was cancelled and nobody else wants it."""
    stage = work[index]
    live, watch = stage.facts.live, stage.watch
    if live is None or watch is None or watch.ending or live.job_id is None or not work.before.is_mine(live):
        return
    if work.before.stopping or (stage.cancelled and not live.shared):
        work.actions.append(Stop(work.before.plan.vertices[index].key, live.number))
        cancel_at = work.now + work.before.policy.stop_lead_s
        work.update(index, replace(stage, watch=replace(watch, ending="stop", cancel_at=cancel_at)))


def _stopping(state: State, now: float) -> Step:
    state = evolve(state, stopping=True)
    work = Work(state, now)
    for index in sorted(state.live):
        _end_if_unwanted(work, index)
    return work.finish(state), tuple(work.actions)


def _ordered(state: State, event: Ordered) -> Step:
    if event.command in state.commands:
        return state, ()
    state = replace(state, commands=state.commands | {event.command})
    if event.verb == "leave":
        return evolve(state, leaving=True), ()
    work = Work(state, event.now)
    for index in sorted(state.plan.index[key] for key in event.keys if key in state.plan.index):
        if event.verb == "cancel":
            _cancelled(work, index)
        elif event.verb == "retry":
            _retried(work, index, take_over=event.take_over)
    return work.finish(state), tuple(work.actions)


def _cancelled(work: Work, index: int) -> None:
    if work[index].status == Status.DONE:
        return
    work.actions.append(Unmark(work.before.plan.vertices[index].key))
    work.update(index, replace(work[index], cancelled=True, marked=False))
    _end_if_unwanted(work, index)


def _retried(work: Work, index: int, *, take_over: bool) -> None:
    stage, key = work[index], work.before.plan.vertices[index].key
    live, facts = stage.facts.live, stage.facts
    if stage.status == Status.DONE:
        return
    over = facts.last if live is None else facts.last - 1
    if over > 0:
        work.actions.append(Forgive(key, over))
    # Another user's job cannot be looked for by its tag, and may be hidden from us.
    unseen = live is not None and bool(live.user) and (live.orphan or stage.seen is JobState.UNKNOWN)
    if take_over and live is not None and (unseen or not live.reachable):
        work.actions.append(Judge(key, live.number, Cause.LOST, "a person took the stage over"))
    fresh = replace(facts, spent={}, idle=0, ended=None)
    work.update(index, replace(stage, cancelled=False, facts=fresh, due=None))


def _tick(state: State, event: Tick) -> Step:
    work = Work(state, event.now)
    for index in sorted(state.delayed):
        work.update(index, state.stages[index])
    for index in sorted(state.live):
        _overdue(work, index)
        _orphaned(work, index)
    state = work.finish(state)
    starts = Work(state, event.now)
    for index, start in startable(state):
        starts.actions.append(start)
        starts.update(index, replace(state.stages[index], starting=start.number, marked=True))
    return starts.finish(state), (*work.actions, *starts.actions)


def _overdue(work: Work, index: int) -> None:
    """An attempt that was asked to leave and did not is cancelled, again and again until it is gone."""
    stage = work[index]
    watch = stage.watch
    if watch is None or watch.cancel_at is None or work.now < watch.cancel_at:
        return
    work.actions.append(Cancel(work.before.plan.vertices[index].key, watch.number))
    work.put(index, replace(stage, watch=replace(watch, cancel_at=work.now + CANCEL_AGAIN_S)))


def _orphaned(work: Work, index: int) -> None:
    """A claim without a handle whose owner is gone: look for its job twice, then submit the same attempt. Another
    user's job cannot be looked for, and what he wanted to run is not run as us.
    """
    stage, key = work[index], work.before.plan.vertices[index].key
    live, watch = stage.facts.live, stage.watch
    if live is None or watch is None or not live.orphan or not live.reachable or live.user:
        return
    if watch.sought < MISSES:
        work.actions.append(Adopt(key, live.number))
    elif stage.cancelled:
        work.actions.append(Judge(key, live.number, Cause.LOST, "cancelled before it was submitted"))
    elif not (work.before.stopping or work.before.leaving or work.before.full or work.before.throttled):
        work.actions.append(Resubmit(key, live.number))
        work.put(index, replace(stage, watch=replace(watch, sought=0)))
