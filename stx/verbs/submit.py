"""`stx submit`: plan, refuse, check, then drive the experiment here, in a detached process, or watch the coordinator
that drives it already.

Order: everything that can be refused is refused before anything is queued. An edited file under a known name needs a
person's yes or --update. An unchanged one under a live lease is attached to: watching reads only, and leaving it
stops nothing.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs import files
from stx import records, sharing
from stx.coordinator import inbox, lease, snapshot
from stx.coordinator.prepare import check_store, writing
from stx.coordinator.snapshot import Code
from stx.coordinator.status import Observer
from stx.errors import ConfigError, LeaseHeld, StxError
from stx.plan.smoke import smoke as smoked
from stx.report.words import plural
from stx.verbs import advice, console, differences, driving, live, models, plan, smoke
from stx.verbs.plan import Planned
from stx.verbs.refuse import path_with

REPORT_LIMIT_S = 300
START_LIMIT_S = 600
WATCH_S = 0.5


@dataclass(frozen=True)
class Wishes:
    """The flags of one submit."""

    file: Path
    sets: tuple[str, ...]
    cluster: str | None
    store: str | None
    detach: bool | None
    update: bool
    accept_code: bool
    smoke: bool


def run(wishes: Wishes) -> int:
    """The verb; its exit code."""
    planned = plan.prepare(wishes.file, sets=wishes.sets, cluster=wishes.cluster, store=wishes.store)
    small = _smoke(wishes, planned)
    console.say(plan.show(planned, every=False, stream=sys.stderr))
    if told := sharing.exposed(planned.store):
        console.say(f"warning: {told[0]}\n  {told[1]}")
    if _attachable(planned, wishes):
        return watch(planned)
    detach = planned.cluster.coordinator.where == "detached" if wishes.detach is None else wishes.detach
    check_store(planned.store)
    with writing(planned.store.root):
        code = snapshot.snapshot(planned.store)
    if not detach:  # the detached one does
        models.check(planned.graph, planned.lines, code=code)
    if small is not None and not detach:
        ended = smoke.run(small, code=code, accept_code=wishes.accept_code)
        if ended != 0:
            return ended
    try:
        return start_detached(wishes, planned, small, code=code) if detach else drive(wishes, planned, code=code)
    except LeaseHeld:
        # Two submits of one file at the same moment: the second watches the first.
        return watch(planned)


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


def drive(wishes: Wishes, planned: Planned, *, code: Code) -> int:
    """Be the coordinator until everything rests, then write the report."""
    driven = driving.drive(planned, code=code, accept_code=wishes.accept_code)
    return driven.code if driven.left else conclude(planned, driven.code, code=code, command=_again(wishes))


def _again(wishes: Wishes) -> str:
    return advice.submit(wishes.file, sets=wishes.sets, cluster=wishes.cluster)


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


def start_detached(wishes: Wishes, planned: Planned, small: Planned | None, *, code: Code) -> int:
    """Start the same submit in a session of its own; return once it holds the lease (of the smoke run, if one goes
    before), or with its error.
    """
    first = planned if small is None else small
    log = planned.directory.log
    with records.no_links():
        for folder in (planned.store.experiments, log.parent):
            files.make_dir(folder)
    argv = [sys.executable, "-m", "stx.cli", "submit", str(wishes.file.absolute()), "--foreground", "--update"]
    argv += [part for one in wishes.sets for part in ("--set", one)]
    argv += ["--store", str(planned.store.root)] + (["--accept-code"] if wishes.accept_code else [])
    argv += ["--smoke"] if small is not None else []
    argv += ["--cluster", wishes.cluster] if wishes.cluster else []
    env = os.environ | {"PYTHONPATH": path_with(code.path)}
    with records.no_links(), files.open_log(log) as stream:
        start = stream.tell()
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=env, start_new_session=True
        )
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit:
        holder = lease.holder(first.directory)
        if child.poll() is not None:
            return _ended_at_once(child.returncode, log=log, start=start, name=planned.experiment.name)
        if holder is not None and holder.pid == child.pid:
            console.say(
                f"detached: process {child.pid} on {socket.gethostname()} drives {first.experiment.name}; log {log}"
            )
            attach = [f"{_again(wishes)}   (attaches)"] if small is None else []
            console.next_commands(f"stx status {first.experiment.name} --watch", *attach)
            return 0
        time.sleep(0.1)
    raise StxError("the detached coordinator did not take the lease in time", where=str(log))


def _ended_at_once(returncode: int, *, log: Path, start: int, name: str) -> int:
    """It had nothing to do, or it refused: its words are ours."""
    with log.open("rb") as stream:
        stream.seek(start)
        console.say(stream.read().decode(errors="replace").rstrip())
    if returncode == 0:
        console.next_commands(f"stx status {name}", f"stx report {name}")
    return returncode if returncode >= 0 else 1
