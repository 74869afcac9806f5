"""Nodes that failed, the evidence against each, and until when they are avoided.

<store>/nodes/<node>-<tag>.json: one attempt that failed for a node, published by link(2). So several coordinators add
to the list without knowing each other, and one piece is found as often as somebody looks and counts once. What counts
is an attempt that ended with the cause NODE, and a node that was named: by the rank that saw it (its outcome's info),
or by the scheduler (a node that went down under a job).

A piece holds for the cluster that it came from, until it is older than the `bad_nodes.expire` of the cluster file under
which it was found, by the clock of the store's file server. `stx doctor --forget-node` marks it as forgotten instead of
removing it: the attempt that it is about is still there, and would be found again.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from jobs import files, outcome
from jobs.files import AttemptDir
from jobs.spec import Cause
from stx import records
from stx.config.cluster import BadNodes
from stx.coordinator import store_clock
from stx.endings import claim_of
from stx.errors import StoreError
from stx.paths import Store

MESSAGE_CHARACTERS = 500
# It becomes part of a file's name and of a scheduler's request, and in a shared store others write here.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Evidence:
    """One attempt that failed for a node. `cluster` is the launcher's identity; `time` the file server's."""

    node: str
    cluster: str
    tag: str
    attempt: str
    experiment: str
    message: str
    time: float
    expire_s: float
    forgotten: bool = False

    @property
    def expires(self) -> float:
        """When it no longer counts."""
        return self.time + self.expire_s


def found(store: Store) -> list[Evidence]:
    """All there is, forgotten and expired included, but for files that are damaged: each is no more than a hint."""
    pieces = []
    for name in records.names(store.nodes):
        if name.endswith(".json") and not name.startswith("."):
            with contextlib.suppress(StoreError, FileNotFoundError):
                pieces.append(records.load(Evidence, store.nodes / name))
    return [one for one in pieces if _NAME.fullmatch(one.node) and _NAME.fullmatch(one.tag)]


def valid(pieces: Sequence[Evidence], *, now: float) -> dict[tuple[str, str], list[Evidence]]:
    """What counts now, by cluster and node, the newest piece first."""
    held: dict[tuple[str, str], list[Evidence]] = {}
    for one in sorted(pieces, key=lambda one: (-one.time, one.tag)):
        if not one.forgotten and now < one.expires:
            held.setdefault((one.cluster, one.node), []).append(one)
    return held


def bad(pieces: Sequence[Evidence], *, cluster: str, now: float, after: int) -> list[str]:
    """The nodes of a cluster that `after` pieces or more speak against: those with the most first, then the newest."""
    held = {node: one for (where, node), one in valid(pieces, now=now).items() if where == cluster}
    return sorted(
        (node for node, one in held.items() if len(one) >= after),
        key=lambda node: (-len(held[node]), -held[node][0].time, node),
    )


def forget(store: Store, node: str) -> int:
    """Let no evidence against a node count any more; how many pieces there were that did."""
    now, _ = store_clock.now(store)
    pieces = [one for (_, name), held in valid(found(store), now=now).items() if name == node for one in held]
    for one in pieces:
        records.write(store.evidence(one.node, one.tag), asdict(replace(one, forgotten=True)))
    return len(pieces)


@dataclass(frozen=True)
class Nodes:
    """The list as one coordinator uses it. `cluster`: the identity of its launcher."""

    store: Store
    cluster: str
    policy: BadNodes

    def to_avoid(self) -> list[str]:
        """Nodes that no new attempt should get, the worst first."""
        pieces = found(self.store)
        if not pieces:
            return []
        now, _ = store_clock.now(self.store)
        return bad(pieces, cluster=self.cluster, now=now, after=self.policy.after)

    def note(self, attempt: AttemptDir) -> None:
        """Add what ranks of an attempt that ended with the cause NODE said of their nodes."""
        for node, message, path in _blamed(attempt):
            self._add(attempt, node, message, time=path.stat().st_mtime)

    def blame(self, attempt: AttemptDir, nodes: Sequence[str], message: str) -> None:
        """Add what the scheduler said."""
        for node in nodes:
            self._add(attempt, node, message, time=store_clock.now(self.store)[0])

    def _add(self, attempt: AttemptDir, node: str, message: str, *, time: float) -> None:
        if not _NAME.fullmatch(node):
            return
        intent = records.read(attempt.intent)
        with records.understood(attempt.intent):
            claim = claim_of(intent)
        piece = Evidence(
            node=node,
            cluster=claim.launcher,
            tag=claim.tag,
            attempt=str(attempt.path.relative_to(self.store.root)),
            message=message[-MESSAGE_CHARACTERS:],
            experiment=claim.experiment,
            time=time,
            expire_s=self.policy.expire,
        )
        if store_clock.now(self.store)[0] < piece.expires:
            files.make_dir(self.store.nodes)
            records.publish(self.store.evidence(node, piece.tag), asdict(piece))


def _blamed(attempt: AttemptDir) -> Iterator[tuple[str, str, Path]]:
    """The ranks that blame the node that they were on: who was ended for another one's failure names none."""
    for path in attempt.outcomes():
        with records.understood(path):
            one = outcome.read(attempt, int(path.stem.removeprefix("outcome-")))
            node = one.info.get("node") if one is not None else None
        if one is not None and one.cause is Cause.NODE and isinstance(node, str):
            yield node, one.message, path
