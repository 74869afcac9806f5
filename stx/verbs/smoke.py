"""`stx submit --smoke`: the same experiment, two steps of everything, on the real machine; then the real one.

It runs as an experiment of its own, NAME-smoke, in the same store, and shares with the real one what no option makes
smaller. It is resumed, watched and forgotten like any other.
"""

import sys
import time

from stx import records
from stx.coordinator import lease
from stx.coordinator.snapshot import Code
from stx.errors import ConfigError, LeaseHeld
from stx.plan.smoke import is_smoke
from stx.report import history
from stx.report.words import duration, plural
from stx.verbs import advice, console, driving
from stx.verbs.plan import Planned


def refuse(small: Planned) -> None:
    """What stands in its way: another experiment of its name, or a smoke run that is still being driven."""
    file = small.directory.file
    if file.exists() and not is_smoke(records.text(file)):
        what = f'there is an experiment called "{small.experiment.name}" already'
        raise ConfigError(what, where=str(file), hint="submit without --smoke, or give this experiment another name")
    if lease.holder(small.directory) is not None:
        hint = f"stx status {small.experiment.name} --watch"
        raise LeaseHeld("its smoke run is being driven already", where=str(small.directory.path), hint=hint)


def run(small: Planned, *, code: Code, accept_code: bool) -> int:
    """Run it to its end. 0: all is done, the real one may begin; else the exit code of the submit."""
    name = small.experiment.name
    console.say(f"smoke: {plural(len(small.graph.nodes), 'stage')} as {name}, two steps each; command stages run whole")
    began = time.monotonic()
    driven = driving.drive(small, code=code, accept_code=accept_code)
    if driven.left:
        return driven.code or 3  # the real one is not begun behind a closed terminal
    if driven.code == 130:
        console.say("interrupted in the smoke run; what it saved is kept")
        return driven.code
    console.say(took(small))
    failed = driving.say_failures(small)
    if driven.code == 0:
        console.say(f"smoke: all done in {duration(time.monotonic() - began)}; stx gc --forget {name} makes room again")
        return 0
    if failed:
        console.say(driving.log_tail(small, failed[0]))
    console.say("smoke: it failed, and nothing else was started")
    commands = [f"stx logs {advice.stage(name, failed[0].name)} --failed"] if failed else []
    console.next_commands(*commands, f"stx status {name}")
    return driven.code


def took(small: Planned) -> str:
    """Every stage of the smoke run with what its attempts took."""
    rows = []
    for node in {node.key: node for node in small.graph.nodes}.values():
        attempts = history.attempts(small.store.stage(node.spec.kind, node.key))
        seconds = sum(one.seconds or 0.0 for one in attempts)
        last = attempts[-1].result.lower() if attempts else "not started"
        rows.append((node.name, node.spec.kind, last, duration(seconds) if attempts else "-"))
    return console.table(("stage", "kind", "ended", "time"), rows, right=frozenset({"time"}), stream=sys.stderr)
