"""While an experiment is driven, its Ray cluster is kept up: the coordinator brings one up as long as stages wait, and
the next one when it was preempted, lost its head or came to its time limit. At most `ray.allocations` of them.

A cluster that a person brought up is used, and left alone at the end. One that a coordinator asked for is ended by the
last one whose jobs are on it.
"""

import time
from collections.abc import Callable
from pathlib import Path

from stx.coordinator.snapshot import Code
from stx.coordinator.state import State, Status
from stx.coordinator.throttle import Throttle
from stx.errors import BackendError
from stx.report.words import plural
from stx.verbs import console
from stx.verbs.own_ray import Look, OwnRay, Standing
from stx.verbs.plan import Planned

LOOK_S, LOOK_SLURM_S = 2.0, 15.0
MOST_HERE = 10  # on one machine: one that dies so often is not well
MISSES = 2  # looks that must find it over
IN_A_ROW = 2  # clusters that failed before they were up: the next one would, too
IN_NEED = (Status.READY, Status.DELAYED, Status.RUNNING)  # what waits for others' results needs no cluster


def of(planned: Planned, *, code: Code) -> "Allocations | None":
    """Those of an experiment whose cluster file has a Ray cluster of our own; None for all others."""
    cluster = planned.cluster
    if cluster.launcher != "ray" or cluster.ray.address is not None:
        return None
    most = cluster.ray.allocations if cluster.ray.where == "slurm" else MOST_HERE
    every_s = LOOK_SLURM_S if cluster.ray.where == "slurm" else LOOK_S
    own = OwnRay(cluster, planned.store)
    return Allocations(own, experiment=planned.experiment.name, most=most, code=code.path, every_s=every_s)


class Allocations:
    """Those of one experiment, for as long as it is driven by this process."""

    def __init__(
        self,
        own: OwnRay,
        *,
        experiment: str,
        most: int,
        code: Path,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own, self._experiment, self._most, self._code = own, experiment, most, code
        self._every_s, self._clock = every_s, clock
        self._due = clock()
        self._used = self._failed = self._counted = self._gone = 0
        self._told = ""
        self._throttle = Throttle(clock)

    def tick(self, state: State) -> None:
        """Look whether stages have a cluster. BackendError where none can be had any more."""
        needed = any(state.counts.get(status) for status in IN_NEED)
        if state.finished or state.stopping or not needed or self._clock() < self._due:
            return
        self._due = self._clock() + self._every_s
        try:
            look = self._own.look()
        except BackendError as error:
            self._say(f"the Ray cluster is not seen: {error.what}")
            return
        if look.standing is not Standing.OVER:
            self._gone = 0
        if look.standing.lives:
            self._say(f"Ray cluster: {look.standing}" + (f", {look.words}" if look.words else ""))
            return
        self._gone += 1
        if look.standing is Standing.NONE or self._gone >= MISSES:
            self._next(look)

    def _next(self, look: Look) -> None:
        if self._used and look.number != self._counted:
            self._counted = look.number
            self._failed = self._failed + 1 if look.never_up else 0
        if not self._throttle.lifted(0):
            return
        if self._failed >= IN_A_ROW:
            raise BackendError(f"the Ray cluster does not come up: {look.words}", hint="stx ray status; then submit")
        if self._used >= self._most:
            what = f"stages wait, and {self._most} Ray clusters (ray.allocations) are used up; the last: {look.words}"
            raise BackendError(what, hint="the same submit again goes on where this one stopped")
        if self._used:
            self._say(f"Ray cluster {look.number} is over ({look.words}); the next one is asked for")
        try:
            self._own.up(look.number, experiment=self._experiment, code=self._code)
        except BackendError as error:
            if not error.later:
                raise
            self._throttle.refused(error)
            self._say(f"no Ray cluster yet: {error.what}")
            return
        self._throttle.taken()
        self._used += 1

    def close(self) -> None:
        """Nothing is left to do: end the cluster, unless a person keeps it up, or others have jobs there."""
        try:
            look = self._own.look()
            if not look.standing.lives or look.asked is None or not look.asked.experiment:
                return
            if others := self._own.others(look):
                console.say(f"the Ray cluster stays up for {plural(others, 'job')} of others; stx ray down ends it")
            else:
                self._own.end(look, f"{self._experiment} needs it no more")
                console.say("its Ray cluster is told to end")
        except BackendError as error:
            console.say(f"the Ray cluster may still be up: {error.what}; stx ray down")

    def _say(self, words: str) -> None:
        if words != self._told:
            self._told = words
            console.say(words)
