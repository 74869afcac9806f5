"""Lets the faults of one schedule happen, each when it is due and there is something to break, and counts them."""

import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stx.paths import CHECKPOINT
from tools.chaos import damage
from tools.chaos.damage import Damaged
from tools.chaos.processes import Member, has_mapped, members
from tools.chaos.schedule import Damage, Fault, Second, Signal, Site, Store, Ticket
from tools.chaos.site import DevCluster

FAULTS = Path(__file__).parent / "faults"
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}


@dataclass
class Injector:
    """The faults of one run. `run` is its folder and mark; `folder` holds tickets, and what became of them."""

    run: Path
    folder: Path
    pending: list[Fault]
    site: DevCluster | None = None
    happened: Counter[str] = field(default_factory=Counter)
    damaged: list[Damaged] = field(default_factory=list)
    # Attempts of which a process was stopped, or that lived when a node died: they may be taken to hang, or not leave
    # when they are asked to.
    stopped: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)
    twins: int = 0
    share: bool = False
    _spoiled: set[Path] = field(default_factory=set)  # checkpoints
    _in_save: int = 0
    _given: int = 0
    _began: float = field(default_factory=time.monotonic)
    _undo: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    _dead: str = ""  # the node that is down

    @property
    def store(self) -> Path:
        """What is broken."""
        return self.run / "store"

    def environment(self, base: dict[str, str]) -> dict[str, str]:
        """What makes faults happen to a process and all it starts."""
        path = os.pathsep.join([str(FAULTS), *filter(None, [base.get("PYTHONPATH")])])
        return base | {"STX_FAULT_TICKETS": str(self.folder), "PYTHONPATH": path}

    def tick(self, *, between: bool = False) -> None:
        """Let happen what is due; `between`: no coordinator lives just now."""
        now = time.monotonic() - self._began
        self._end_what_is_over(now)
        for fault in [one for one in self.pending if one.at <= now]:
            if self._happen(fault, now=now, between=between):
                self.pending.remove(fault)

    def is_full(self) -> bool:
        """Whether the disk is full for everybody just now."""
        return (self.folder / "full").exists()

    def end(self) -> None:
        """No more faults: what is stopped goes on, the store answers, damaged files are as they were."""
        self.pending.clear()
        self._end_what_is_over(float("inf"))
        for one in self.damaged:
            if one.is_standing():
                one.restore()

    def tickets(self) -> list[dict[str, object]]:
        """What processes did with their tickets: one record for each ticket that had an effect."""
        path = self.folder / "faults.jsonl"
        text = path.read_text() if path.exists() else ""
        # A kill in the middle of a record leaves a torn line.
        records: dict[object, dict[str, object]] = {}
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                records.setdefault(record["number"], record)
        return list(records.values())

    def counts(self) -> Counter[str]:
        """How many faults of each kind happened."""
        return self.happened + Counter(str(record["kind"]) for record in self.tickets())

    def in_save(self) -> int:
        """How many met a checkpoint or a result while it was written or published."""
        return self._in_save + sum(bool(record["in_save"]) for record in self.tickets())

    def _happen(self, fault: Fault, *, now: float, between: bool) -> bool:
        """True: it happened, or was put where it will."""
        match fault:
            case Ticket():
                self._give(fault)
                return True
            case Signal():
                done = self._signal(fault, now=now)
            case Store():
                done = self._trouble(fault, now=now)
            case Site():
                done = self._take_nodes(fault, now=now)
            case Damage():
                done = self._damage(fault, between=between)
            case Second():
                self.twins += fault.kind == "twins"
                self.share = self.share or fault.kind == "share"
                return True  # counted when it is there
            case _:
                raise TypeError(fault)
        self.happened[fault.kind] += done
        return done

    def _give(self, fault: Ticket) -> None:
        self._given += 1
        path = self.folder / f"{self._given:04d}.ticket"
        aside = path.with_suffix(".new")
        aside.write_text(json.dumps(fault.content(self._given)))
        aside.rename(path)

    def _signal(self, fault: Signal, *, now: float) -> bool:
        found = [member for member in members(self.run) if member.role == fault.role]
        if not found:
            return False
        victim = found[int(fault.pick * len(found))]
        if fault.kind == "kill" and _phase(victim) == "save":
            self._in_save += 1
        if not victim.send(SIGNALS[fault.kind]):
            return False
        if fault.kind == "stop":
            self.stopped.add(victim.attempt)
            self._undo.append((now + fault.seconds, lambda: victim.send(signal.SIGCONT)))
        self._tell(f"{fault.kind} {victim.role} pid={victim.pid} {Path(victim.attempt).parent.parent.name}")
        return True

    def _trouble(self, fault: Store, *, now: float) -> bool:
        """The store stalls or is full: a file beside the tickets says so to every process of the run."""
        path = self.folder / fault.kind
        if path.exists() or not any(member.role == "rank" for member in members(self.run)):
            return False
        self._undo.append((now + fault.seconds, path.unlink))
        aside = path.with_suffix(".new")
        aside.write_text(f"{time.time() + fault.seconds}\n")
        aside.rename(path)
        self._tell(f"{fault.kind} {fault.seconds:.1f} s")
        return True

    def _end_what_is_over(self, now: float) -> None:
        for due in [one for one in self._undo if one[0] <= now]:
            self._undo.remove(due)
            due[1]()

    def _take_nodes(self, fault: Site, *, now: float) -> bool:
        """Preempt, or let a node die; one is dead at a time."""
        if self.site is None or not self._lives("rank") or (fault.kind == "node" and self._dead):
            return False
        if fault.kind == "preempt":
            self.site.preempt(fault.nodes, seconds=fault.seconds)
            self._tell(f"preempt {fault.nodes} nodes")
            return True
        nodes = self.site.nodes()
        self.stopped |= {member.attempt for member in members(self.run) if member.attempt}
        self._dead = nodes[int(fault.pick * len(nodes))]
        self.site.node("down", self._dead)
        self._undo.append((now + fault.seconds, self._bring_back))
        self._tell(f"node {self._dead} {fault.seconds:.0f} s")
        return True

    def _bring_back(self) -> None:
        assert self.site is not None
        self.site.node("up", self._dead)
        self._dead = ""

    def _damage(self, fault: Damage, *, between: bool) -> bool:
        if fault.target == "journal" and not (between and not self._lives("coordinator")):
            return False
        found = self._targets(fault)
        if not found:
            return False
        path = found[int(fault.pick * len(found))]
        # A claim holds much that is for people only (host, token): another bit there is no damage worth a refusal.
        truncate = fault.truncate or path.name.endswith(".intent.json")
        number = len(self.damaged) + 1
        one = damage.spoil(path, truncate=truncate, where=fault.where, backups=self.run / "backups", number=number)
        if one is None:
            return False
        if fault.kind == "published" or (fault.target == "journal" and not truncate):
            self.damaged.append(one)
        elif fault.target == "checkpoint":
            self._spoiled.add(path.parent)
        self._tell(f"{fault.kind} {'cut' if truncate else 'bit'} {path.relative_to(self.store)}")
        return True

    def _targets(self, fault: Damage) -> Sequence[Path]:
        live = [Path(member.attempt).parent.parent for member in members(self.run) if member.attempt]
        with contextlib.suppress(FileNotFoundError):
            found = damage.targets(self.store, fault.target, busy=lambda stage: stage in live)
            broken = {one.path for one in self.damaged if one.is_standing()}
            if fault.target == "checkpoint":
                found = [path for path in found if self._has_another(path.parent)]
            return [path for path in found if path not in broken and not has_mapped(self.run, path)]
        return ()

    def _has_another(self, checkpoint: Path) -> bool:
        """Whether an older one is whole: with none at all a stage refuses to go on, as it should."""
        others = [path for path in checkpoint.parent.iterdir() if CHECKPOINT.fullmatch(path.name)]
        return any(path not in self._spoiled and path != checkpoint for path in others)

    def _lives(self, role: str) -> bool:
        return any(member.role == role for member in members(self.run))

    def _tell(self, text: str) -> None:
        self.told.append(f"{time.monotonic() - self._began:7.1f} {text}")


def _phase(member: Member) -> str:
    """What a rank does, as it said last."""
    try:
        return str(json.loads((Path(member.attempt) / "heartbeat.json").read_bytes())["phase"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
