"""`stx submit`: plan, refuse, check, then drive the experiment where the cluster file says, or watch the coordinator
that drives it already.

Order: everything that can be refused is refused before anything is queued. An edited file under a known name needs a
person's yes or --update. An unchanged one under a live lease is attached to: watching reads only, and leaving it
stops nothing.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence

from stx import sharing
from stx.coordinator import inbox, lease, snapshot
from stx.coordinator.prepare import check_store, writing
from stx.coordinator.snapshot import Code
from stx.coordinator.state import Status
from stx.coordinator.status import Observer, counts
from stx.errors import ConfigError, LeaseHeld
from stx.plan.smoke import smoke as smoked
from stx.report.words import plural
from stx.verbs import advice, console, detached, differences, driving, homes, live, models, plan, smoke
from stx.verbs.driving import Passed
from stx.verbs.plan import Planned
from stx.verbs.refuse import path_with
from stx.verbs.wishes import Wishes

REPORT_LIMIT_S = 300
WATCH_S = 0.5
PASSES = ("once", "cron", "chain")
SHOWN = 8


def run(wishes: Wishes) -> int:
    """The verb; its exit code."""
    planned = plan.prepare(
        wishes.file, sets=wishes.sets, cluster=wishes.cluster, store=wishes.store, change=wishes.change
    )
    if wishes.within:
        return _within_a_job(wishes, planned)
    where = wishes.where(planned.cluster)
    small = _smoke(wishes, planned)
    if not wishes.once:
        console.say(plan.show(planned, every=False, stream=sys.stderr))
    if told := sharing.exposed(planned.store):
        console.say(f"warning: {told[0]}\n  {told[1]}")
    if _attachable(planned, wishes):
        _take_back(wishes, planned, where="")
        return _busy(planned, where=where)
    check_store(planned.store)
    with writing(planned.store.root):
        code = snapshot.snapshot(planned.store)
    if where != "detached":  # the detached one does
        models.check(planned.graph, planned.lines, code=code)
    if small is not None and where == "foreground":
        ended = smoke.run(small, code=code, accept_code=wishes.accept_code)
        if ended != 0:
            return ended
    _take_back(wishes, planned, where=where)
    try:
        return _begin(where, wishes, planned, small, code=code)
    except LeaseHeld:
        # Two submits of one file at the same moment: the second watches the first.
        return _busy(planned, where=where)


def _begin(where: str, wishes: Wishes, planned: Planned, small: Planned | None, *, code: Code) -> int:
    """The coordinator, or its first pass."""
    if where == "foreground":
        return drive(wishes, planned, code=code)
    if where == "detached":
        return detached.start(wishes, planned, small, code=code)
    if where == "job":
        return homes.start(wishes, planned, code=code)
    passed, ended = one_pass(wishes, planned, code=code)
    if where == "chain":
        homes.add_links(wishes, planned, code=code, state=passed.state)
    if where == "cron" and not passed.state.finished:
        console.say("stx writes into nobody's crontab; add this line (crontab -e, or scrontab -e):")
        console.out(homes.cron_line(wishes, planned, code=code))
    if where != "once" and not passed.state.finished:
        console.next_commands(f"stx status {planned.experiment.name} --watch", f"{wishes.again}   (one more pass)")
    return ended


def _within_a_job(wishes: Wishes, planned: Planned) -> int:
    """The coordinator in a job of its own, or one link of a chain. Somebody else's lease is no failure of this job."""
    with writing(planned.store.root):
        code = snapshot.snapshot(planned.store)
    try:
        if wishes.within == "chain":
            homes.add_patrol(wishes, planned, code=code)
            passed, ended = one_pass(wishes, planned, code=code)
            homes.add_links(wishes, planned, code=code, state=passed.state)
            return ended
        tenure = homes.Tenure(wishes, planned, code=code)
        return drive(wishes, planned, code=code, tenure=tenure)
    except LeaseHeld as error:
        console.say(f"{planned.experiment.name}: {error.what}; this job is not needed")
        return 0


def one_pass(wishes: Wishes, planned: Planned, *, code: Code) -> tuple[Passed, int]:
    """Look, act, leave, and say in a line what was done; with the exit code. The report is written by the pass that
    finds everything at rest.
    """
    passed = driving.once(planned, code=code, accept_code=wishes.accept_code)
    names = ", ".join(passed.started[:SHOWN]) + (", ..." if len(passed.started) > SHOWN else "")
    did = f"started {plural(len(passed.started), 'attempt')} ({names})" if passed.started else "started nothing"
    now = ", ".join(f"{count:,} {state}" for state, count in counts(passed.state).items())
    paused = f"; paused: {passed.state.paused}" if passed.state.paused else ""
    console.say(f"{planned.experiment.name}: {did}; now {now}{paused}")
    if passed.state.finished and not passed.rested:
        return passed, conclude(planned, passed.code, code=code, command=wishes.again)
    return passed, passed.code


def _busy(planned: Planned, *, where: str) -> int:
    """Somebody drives it. A pass has nothing to do then, and nothing is wrong; anybody else watches."""
    if where not in PASSES:
        return watch(planned)
    console.say(f"{planned.experiment.name}: another coordinator is at it; nothing to do")
    return 0


def _smoke(wishes: Wishes, planned: Planned) -> Planned | None:
    """The smoke run that goes before, if one was asked for and there is something to run."""
    if not wishes.smoke or all(str(line.verb) == "cached" for line in planned.lines):
        return None
    if lease.holder(planned.directory) is not None:
        what = f"{planned.experiment.name} is being driven already: a smoke run would come too late"
        raise ConfigError(what, where=str(planned.file), hint="without --smoke, submit watches it")
    small = plan.prepare(wishes.file, sets=wishes.sets, cluster=wishes.cluster, store=wishes.store, change=smoked)
    smoke.refuse(small)
    return small


def _attachable(planned: Planned, wishes: Wishes) -> bool:
    """Whether a live coordinator drives exactly this; asks about differences and makes a live one leave on a yes.
    --accept-code makes it leave too: what it accepts was decided when it started.
    """
    experiment = planned.directory
    changed = differences.between(planned.previous, planned.graph)
    lives = _lives(planned)
    if not changed and not (lives and wishes.accept_code):
        return lives
    if changed:
        _ask_about(changed, planned, update=wishes.update)
    if lives:
        console.say("asking the running coordinator to leave; its jobs run on")
        inbox.put(experiment, inbox.Command(verb="leave"))
        _wait_until_free(planned)
    return False


def _ask_about(changed: Sequence[differences.Difference], planned: Planned, *, update: bool) -> None:
    """ConfigError unless somebody accepts the difference to what was submitted before."""
    console.say(differences.words(planned.experiment.name, changed))
    if not update and not (console.interactive() and console.ask("submit the changed experiment?")):
        raise ConfigError(
            f'"{planned.experiment.name}" was submitted before with other content',
            where=str(planned.file),
            hint="--update accepts the difference (finished stages stay cached); or give the experiment another name",
        )


def _take_back(wishes: Wishes, planned: Planned, *, where: str) -> None:
    """What was cancelled runs again when a person submits it again; a pass that a machine repeats changes no mind. A
    detached coordinator sees to it itself.
    """
    if wishes.once or not planned.directory.graph.exists():
        return
    rows = Observer(planned.store, experiment=planned.directory, graph=planned.graph).state.rows()
    names = {vertex.key: vertex.node.name for vertex, stage in rows if stage.cancelled and stage.status != Status.DONE}
    if not names:
        return
    shown = ", ".join(list(names.values())[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    console.say(f"what was cancelled runs again: {shown}")
    if where != "detached":
        with writing(planned.store.root):
            inbox.put(planned.directory, inbox.Command(verb="retry", keys=tuple(names)))


def _lives(planned: Planned) -> bool:
    holder = lease.holder(planned.directory)
    if holder is None or holder.here:
        return holder is not None
    console.say(
        f"{holder.host} holds the lease; watching whether it still renews it (up to {planned.cluster.lease_s:.0f} s)"
    )
    try:
        lease.acquire(planned.directory, lease_s=planned.cluster.lease_s).release()
    except LeaseHeld:
        return True
    return False


def _wait_until_free(planned: Planned) -> None:
    limit = time.monotonic() + 2 * planned.cluster.poll_s + planned.cluster.lease_s + 30
    while lease.holder(planned.directory) is not None:
        if time.monotonic() > limit:
            raise LeaseHeld("the running coordinator did not leave", where=str(planned.directory.path))
        time.sleep(0.1)


def drive(wishes: Wishes, planned: Planned, *, code: Code, tenure: homes.Tenure | None = None) -> int:
    """Be the coordinator until everything rests, then write the report. `tenure`: in a job of its own."""
    on_tick = {} if tenure is None else {"on_tick": tenure.tick}
    driven = driving.drive(planned, code=code, accept_code=wishes.accept_code, interrupts=tenure, **on_tick)
    if tenure is not None:
        tenure.close(done=not driven.left)
    if driven.left:
        return driven.code
    return conclude(planned, driven.code, code=code, command=wishes.again)


def conclude(planned: Planned, result: int, *, code: Code, command: str) -> int:
    """The last words: what failed, the report, and what to do next."""
    name = planned.experiment.name
    if result == 130:
        console.say("interrupted; what was finished or saved is kept")
        console.next_commands(f"{command}   (goes on where it stopped)", f"stx status {name}")
        return result
    failed = driving.say_failures(planned)
    if failed:
        console.next_commands(*advice.after_failure(name, failed[0]))
    write_report(planned, code=code)
    if result == 0:
        console.say(f"{name}: all {plural(len(planned.graph.nodes), 'stage')} done")
        console.next_commands(f"stx status {name}", f"stx report {name}")
    return result


def write_report(planned: Planned, *, code: Code) -> None:
    """In a child with a time limit: a report that hangs or crashes costs no experiment."""
    argv = [sys.executable, "-m", "stx.cli", "report", planned.experiment.name, "--store", str(planned.store.root)]
    env = os.environ | {"PYTHONPATH": path_with(code.path)}
    try:
        done = subprocess.run(argv, env=env, stdout=subprocess.PIPE, text=True, timeout=REPORT_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        console.say(
            f"the report was not done within {REPORT_LIMIT_S} s; write it with: stx report {planned.experiment.name}"
        )
        return
    if done.returncode == 0:
        console.out(done.stdout.strip())
    else:
        console.say(f"the report failed; again with: stx report {planned.experiment.name}")


def watch(planned: Planned) -> int:
    """Show what another coordinator does; read-only. Leaving it stops nothing."""
    name = planned.experiment.name
    observer = Observer(planned.store, experiment=planned.directory, graph=planned.graph)
    console.say(f"{name} is being driven already; watching (Ctrl-C leaves the watch, nothing stops)")
    look = observer.look()
    try:
        with live.shown(planned.store) as display:
            while look.driver is not None:
                display.tick(observer.state)
                time.sleep(WATCH_S)
                look = observer.look(keys=())
    except KeyboardInterrupt:
        console.say(f"left the watch; {name} goes on")
        console.next_commands(f"stx status {name} --watch")
        return 130
    counts = observer.look().counts
    console.say(f"{name}: " + ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items())))
    console.next_commands(f"stx status {name}", f"stx report {name}")
    return 0 if set(counts) <= {"DONE"} else 3
