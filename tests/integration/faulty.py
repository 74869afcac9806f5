"""An experiment of one `command` stage, submitted with one fault at one kind of place.

Coordinators are forks of this process, which has imported everything already; supervisors and workers are programs as
always. A place is a program, an operation and a kind of file; all of them are found by tracing an untouched run.
"""

import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from stx import cli
from stx.verbs import submit

FAULTS = Path(__file__).parents[2] / "tools" / "chaos" / "faults"
COORDINATOR = "stx.cli submit"
PROGRAMS = (COORDINATOR, "jobs.exec", "stx.worker run")
EXPERIMENT = """
name: one
stages:
  only: {kind: command, argv: [sh, -c, 'mkdir $STX_OUTPUT/d; seq 500 > $STX_OUTPUT/d/numbers; echo 1 > $STX_OUTPUT/a']}
"""
CLUSTER = """
launcher: local
poll_s: 0.05
lease_s: 3
backoff_s: [0]
stages: {default: {mem_gb: 1, time: 1h}}
"""
NEW = re.compile(r"\d+-[0-9a-f]{8}\.tmp")  # the end of a temporary name
COPIED = re.compile(r"/code/\.?[0-9a-f]{64}[^/]*(/.*)?$")  # one place for all sources


@dataclass(frozen=True)
class Place:
    """Where a fault may strike: `path` in the store, with NEW for what differs from run to run."""

    program: str
    operation: str
    path: str

    @property
    def match(self) -> str:
        """A regular expression for the paths that are meant."""
        if self.path == "/code/*":
            return "/code/"
        return re.escape(self.path).replace("NEW", r"[0-9]+-[0-9a-f]+\.tmp") + "$"

    def __str__(self) -> str:
        return f"{self.program} {self.operation} {self.path}"


@dataclass(frozen=True)
class Said:
    """How a submit ended."""

    code: int
    words: str


class Run:
    """One store, and the tickets of its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store, self.tickets = folder, folder / "store", folder / "tickets"
        self.tickets.mkdir(parents=True)
        (folder / "e.yaml").write_text(EXPERIMENT)
        (folder / "c.yaml").write_text(CLUSTER)

    def submit(self, ticket: dict[str, Any] | None = None) -> Said:
        """Submit, with this ticket for the program that it names."""
        ours = ticket if ticket and ticket["program"] == COORDINATOR else None
        if ticket and not ours:
            (self.tickets / "0001.ticket").write_text(json.dumps(ticket))
        pid = os.fork()
        if pid == 0:
            self._child(ours)
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except BaseException:  # a test's time is over
            os.kill(pid, signal.SIGKILL)
            raise
        return Said(code, (self.folder / "words").read_text())

    def _child(self, ticket: dict[str, Any] | None) -> NoReturn:
        code: Any = 99
        try:
            self._redirect()
            self._environment()
            self._inject(ticket)
            submit.write_report = lambda *_, **__: None  # a process of its own, and not what is tried here
            sys.argv = ["stx", "submit", str(self.folder / "e.yaml"), "--cluster", str(self.folder / "c.yaml")]
            cli.main()
        except SystemExit as ended:
            code = ended.code
        except BaseException:  # noqa: BLE001 - a fork must not return into pytest
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 98)

    def _redirect(self) -> None:
        words = os.open(self.folder / "words", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for number in (1, 2):
            os.dup2(words, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - as long as the process
        sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115

    def _environment(self) -> None:
        path = os.pathsep.join([str(FAULTS), *filter(None, [os.environ.get("PYTHONPATH")])])
        os.environ.update(PYTHONPATH=path, STX_STORE=str(self.store), STX_FAULT_TICKETS=str(self.tickets))
        os.environ.update(STX_SLOTS=str(self.folder / "slots"), STX_CORES="2")

    def _inject(self, ticket: dict[str, Any] | None) -> None:
        sys.path.insert(0, str(FAULTS))
        from injection import clock, operations, streams, tickets

        sys.orig_argv = ["python", "-m", *COORDINATOR.split()]
        injector = tickets.Injector(str(self.tickets), ticket=ticket, clock=clock.install())
        operations.install(injector)
        streams.install(injector)

    def happened(self) -> list[dict[str, Any]]:
        """The faults that struck."""
        path = self.tickets / "faults.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def digests(self) -> dict[str, str]:
        """Payload digest by stage directory."""
        found = sorted(self.store.glob("stages/*/artifact.json"))
        return {path.parent.name: json.loads(path.read_text())["digest"] for path in found}

    def endings(self) -> list[str]:
        """How every attempt ended, in order: its cause, or its result where there is none."""
        told = []
        for intent in sorted(self.store.glob("stages/*/attempts/*.intent.json")):
            folder = intent.with_name(intent.name.partition(".")[0])
            said = [*folder.glob("outcome-0.json"), *folder.glob("verdict.json")]
            records = [json.loads(path.read_text()) for path in said]
            told.append(next((record["cause"] or record["result"] for record in records), "nothing"))
        return told

    def told(self, number: int) -> str:
        """What was said of how attempt `number` ended."""
        (folder,) = self.store.glob(f"stages/*/attempts/{number:03d}")
        found = [*folder.glob("outcome-0.json"), *folder.glob("verdict.json")]
        return "\n".join(str(json.loads(path.read_text())["message"]) for path in found)

    def processes(self) -> list[int]:
        """What still runs for this store."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if str(self.folder).encode() in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found


def places(folder: Path) -> tuple[list[Place], dict[str, str]]:
    """Every place that an untouched run passes, and the digests it ends with."""
    run = Run(folder)
    (run.tickets / "trace").mkdir()
    said = run.submit()
    assert said.code == 0, said.words
    found: dict[Place, None] = {}
    for path in sorted((run.tickets / "trace").iterdir()):
        first, *points = [json.loads(line) for line in path.read_text().splitlines()]
        program = next((one for one in PROGRAMS if one in first["program"]), None)
        if program is not None:
            found.update(dict.fromkeys(_place(program, point, store=run.store) for point in points))
    return list(found), run.digests()


def _place(program: str, point: dict[str, Any], *, store: Path) -> Place:
    path = NEW.sub("NEW", COPIED.sub("/code/*", point["path"].removeprefix(str(store))))
    return Place(program, point["operation"], path)


def can_strike(fault: str, place: Place) -> bool:
    """Whether the operation can suffer the fault."""
    if fault == "short":
        return place.operation == "write"
    return fault != "enospc" or place.operation not in ("unlink", "rmdir", "truncate", "touch")


def ticket(fault: str, place: Place, **more: Any) -> dict[str, Any]:
    """The ticket of a fault at the first operation there."""
    where = {"program": place.program, "operation": place.operation, "match": place.match}
    return {"fault": fault, "point": 1, "seconds": -7200, **where, **more}


def until_done(run: Run, first: dict[str, Any], *, submits: int = 4) -> Sequence[Said]:
    """Submit with the fault, then again without until everything is done."""
    said = [run.submit(first)]
    while said[-1].code != 0 and len(said) < submits:
        said.append(run.submit())
    return said
