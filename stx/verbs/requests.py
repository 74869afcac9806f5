"""`stx plan --requests`: what the scheduler would be asked, word for word, for every job that a submit would start.

Each is rendered from the very job that the coordinator would claim next, so it equals the request.txt of that attempt
as long as the store, the file, the sources and the environment stay what they are. Nothing is written, and no
scheduler is needed.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stx.coordinator import snapshot
from stx.coordinator.attempts import Attempts, ask
from stx.coordinator.topology import Topology
from stx.plan import Verb
from stx.report.words import plural
from stx.spec import Node
from stx.verbs.launching import installed, launcher_of
from stx.verbs.plan import Planned

SUBMITTED = frozenset({Verb.RUN, Verb.RERUN, Verb.RESUME, Verb.WAIT})


@dataclass(frozen=True)
class Request:
    """The next attempt of a stage as a request. `alike`: how many more points of its sweep would ask for the same."""

    name: str
    kind: str
    key: str
    attempt: int
    text: str
    alike: int = 0

    def dump(self) -> dict[str, Any]:
        """Its JSON."""
        return {name: getattr(self, name) for name in ("name", "kind", "key", "attempt", "alike")} | {
            "request": self.text
        }


def requests(planned: Planned, *, every: bool) -> Iterator[Request]:
    """One per stage of the file, of a sweep its first point; `every`: one per point."""
    installed(planned.cluster)
    attempts = _attempts(planned)
    plan = Topology.of(planned.graph)
    todo = {line.node.key: line.node for line in reversed(planned.lines) if line.verb in SUBMITTED}  # one job per key
    sweeps: dict[str, list[Node]] = {}
    for node in reversed(todo.values()):
        sweeps.setdefault(node.stage if not every else node.name, []).append(node)
    for node, *others in sweeps.values():
        vertex = plan.vertices[plan.index[node.key]]
        number = max(attempts.stage(vertex).attempts(), default=0) + 1
        job = attempts.option(vertex, number).job
        text = ask(lambda job=job: attempts.launcher.render(job))  # type: ignore[misc]
        yield Request(node.name, node.spec.kind, node.key, number, text, alike=len(others))


def _attempts(planned: Planned) -> Attempts:
    """The hand that would submit, and that never does here."""
    return Attempts(
        store=planned.store,
        experiment=planned.experiment.name,
        token=0,
        launcher=launcher_of(planned.cluster, planned.store),
        cluster=planned.cluster,
        code=snapshot.planned(planned.store),
        python=sys.executable,
        accept_code=False,
        hold=_no_lease,
    )


def _no_lease() -> None:
    raise AssertionError("a plan claims nothing")


def show(found: Sequence[Request], *, launcher: str) -> str:
    """For people: a heading, then the request as it is."""
    if not found:
        return "no job would be submitted"
    parts = []
    for one in found:
        more = f", and {one.alike:,} more like it" if one.alike else ""
        parts.append(f"--- {one.name}: attempt {one.attempt}{more}\n{one.text.rstrip()}")
    heading = f"{plural(sum(1 + one.alike for one in found), 'request')} to the launcher {launcher}:"
    return "\n\n".join([heading, *parts])
