"""The supervisor of one node of a Ray cluster of ours; jobs/launchers/ray/up/place.py has its command line.

    start   Ray, as our child (ours.py)
    join    the head waits until as many nodes live as were asked for; only then is the address written
    watch   Ray, and everybody's wishes: stop.json, over.json, USR2, TERM, INT. On a node that is not the head, a Ray
            that ended by itself is started again
    leave   jobs save first (USR2 to their supervisors), then Ray ends, then whatever is left of both

The exit code is 1 where the cluster never came up, for which srun ends the other nodes (submission.py). Later it is 0,
whatever happened, which over.json says: jobs on the other nodes save.
A SIGKILL of this process ends Ray on this node, too (daemons.py); jobs see their actors go, save, and end.
"""

import contextlib
import os
import sys
import time
from pathlib import Path

from jobs import files, processes, typed
from jobs.conclusion import log
from jobs.launchers.ray.up import answers, daemons, ours, place, prctl, record, wishes
from jobs.launchers.ray.up import folder as folders
from jobs.launchers.ray.up.folder import Asked, ClusterFolder, Head, Over, Report, Step
from jobs.launchers.ray.up.ours import OurRay
from jobs.launchers.ray.up.place import NoAddress, Place
from jobs.launchers.ray.up.ports import NoPorts
from jobs.launchers.ray.up.size import TooSmall
from jobs.launchers.ray.up.wishes import Wishes
from jobs.spec import Cause

LOOK_S = 0.5
COUNT_S = 10.0  # how often the head counts the nodes
RESTARTS = 3  # of the Ray of one node that is not the head


class Stopped(Exception):
    """Somebody wants the cluster, or this node, to end."""


class Lost(Exception):
    """Ray ended by itself on this node, and is not started again."""


# What ends a node by itself: it could not start, or did not stay.
FAILURES = (ours.Failed, NoAddress, NoPorts, TooSmall, Lost, OSError, ValueError)


def main(arguments: list[str]) -> int:
    """Be the node; returns the exit code."""
    here, path = place.of(arguments)
    folder = ClusterFolder(path)
    prctl.adopt()
    with wishes.heard() as heard:
        try:
            asked = _asked(folder)
        except (OSError, ValueError) as error:
            log(f"cannot begin: {error}")
            return 1
        return Node(folder, asked, here, heard=heard).run()


def _asked(folder: ClusterFolder) -> Asked:
    """What we were asked for, which we act on as ourselves: so it must be ours."""
    found = files.read_owned(folder.asked)
    if found is None:
        raise ValueError(f"{folder.asked} is not seen on this node: is the store mounted here?")
    if found[1] != os.geteuid():
        raise ValueError(f"{folder.asked} belongs to another user (number {found[1]})")
    return typed.build(Asked, typed.mapping(found[0]))


class Node:
    """One node from start to end."""

    def __init__(self, folder: ClusterFolder, asked: Asked, here: Place, *, heard: Wishes) -> None:
        self._folder, self._asked, self._here, self._heard = folder, asked, here, heard
        self._ray = OurRay(asked, name=here.name, output=folder.ray_log(here.number))
        self._me = processes.unique_id(processes.me())
        self._host = self._metrics = ""
        self._targets: list[str] = []
        self._head: Head | None = None
        self._told: Report | None = None
        self._known: dict[int, Report] = {}
        self._up = False

    def run(self) -> int:
        """Start, watch, leave; returns the exit code."""
        over = Over(words="")
        try:
            self._tell(Step.STARTING)
            self._start()
            if self._here.is_head:
                self._gather()
            self._up = True
            self._tell(Step.UP)
            self._watch()
        except Stopped as stopped:
            log(f"leaving: {stopped}")
            over = Over(words=str(stopped))
        except FAILURES as error:
            log(f"failed: {error}")
            cause = Cause.NODE if self._was_up() else Cause.SETUP
            over = Over(words=f"node {self._here.name}: {error}", cause=cause)
        self._leave(over)
        return 1 if over.cause is Cause.SETUP else 0

    def _was_up(self) -> bool:
        """Whether the cluster has been up, and jobs may run on any node: its head has said so."""
        head = self._reports().get(0)
        return self._up and (self._here.is_head or head is None or head.step is not Step.STARTING)

    def _reports(self) -> dict[int, Report]:
        """What the nodes say, by their numbers: where the store does not tell, what they said before."""
        for number in range(self._asked.nodes):
            with contextlib.suppress(OSError, ValueError):
                if (report := folders.load(Report, self._folder.node(number))) is not None:
                    self._known[number] = report
        return self._known

    def _start(self) -> None:
        """Ray of this node, from nothing to registered."""
        self._obey()  # a cluster that is over has no token any more
        if not Path(self._asked.token).is_file():
            raise ours.Failed(f"the token {self._asked.token} is not seen on this node: is its folder mounted here?")
        joined = None if self._here.is_head else self._find_head()
        self._host = place.address(interface=self._asked.interface, head=joined)
        ports = self._ray.start(host=self._host, head=joined, pause=self._heed)
        self._metrics = f"{self._host}:{ports.metrics}"
        self._head = joined or Head(host=self._host, port=ports.gcs, dashboard_port=ports.dashboard)
        if joined is None:
            folders.save(self._folder.head, self._head)

    def _find_head(self) -> Head:
        patience = self._asked.start_s + self._asked.join_s
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                if (head := folders.load(Head, self._folder.head)) is not None:
                    return head
            self._heed()
        raise ours.Failed(f"the head did not say where it is within {patience:g} s")

    def _gather(self) -> None:
        """Until all nodes live; then the address is written, for everybody."""
        assert self._head is not None, "it has started"
        deadline = time.monotonic() + self._asked.join_s
        while len(alive := self._alive()) < self._asked.nodes:
            if time.monotonic() > deadline:
                raise ours.Failed(self._missing(alive))
            self._heed()
            if self._ray.code is not None:
                raise ours.Failed(f"Ray ended with {self._ray.code} before all nodes came: {self._ray.last_words()}")
        port, here = self._head.dashboard_port, self._here
        found = record.Record(
            address=self._head.address,
            token=self._asked.token,
            dashboard=_dashboard(self._head),
            tunnel=f"ssh -N -L {port}:127.0.0.1:{port} {here.host}" if here.via else "",
            nodes=len(alive),
            keeper=here.keeper,
            via=here.via,
        )
        self._show_metrics()
        record.write(Path(self._asked.record), found)
        log(f"up address={found.address} nodes={found.nodes} dashboard={found.dashboard}")

    def _alive(self) -> list[str]:
        """The names of the nodes that live; none while the dashboard does not answer."""
        if self._head is None:
            return []
        try:
            return [node.name for node in answers.alive(_dashboard(self._head), Path(self._asked.token))]
        except answers.Silent:
            return []

    def _missing(self, alive: list[str]) -> str:
        """Who did not come, and how far each of them is."""
        reports = self._reports()
        words = []
        for number in range(self._asked.nodes):
            report = reports.get(number)
            if report is None:
                words.append(f"node {number} never began")
            elif report.name not in alive:
                words.append(f"{report.name} is {report.step}")
        who = "; ".join(words) or "the dashboard does not answer"
        return f"{len(alive)} of {self._asked.nodes} nodes joined within {self._asked.join_s:g} s: {who}"

    def _watch(self) -> None:
        """Until Ray has ended for good, or somebody wishes it."""
        restarts, count_at = 0, time.monotonic() + COUNT_S
        while True:
            self._heed()
            if self._ray.code is not None:
                words = f"Ray ended by itself with {self._ray.code}: {self._ray.last_words()}"
                if self._here.is_head or restarts == RESTARTS:
                    raise Lost(words)
                restarts += 1
                log(f"{words}\nstarting it again restart={restarts}")
                self._again(words)
            if self._here.is_head and time.monotonic() >= count_at:
                count_at = time.monotonic() + COUNT_S
                alive, wanted = len(self._alive()), self._asked.nodes
                self._tell(Step.UP, f"{alive} of {wanted} nodes live" if alive < wanted else "")
                self._show_metrics()

    def _show_metrics(self) -> None:
        """Tell Prometheus which nodes are up, where that is new."""
        reports = sorted(self._reports().items())
        others = [one.metrics for number, one in reports if one.step is Step.UP and number != self._here.number]
        targets = [self._metrics, *others]
        if targets != self._targets:
            with contextlib.suppress(OSError):
                folders.save_targets(self._folder, cluster=self._asked.name, targets=targets)
                self._targets = targets

    def _again(self, words: str) -> None:
        self._tell(Step.STARTING, words)
        self._let_jobs_save()
        self._ray.end()
        self._start()
        self._tell(Step.UP)

    def _heed(self) -> None:
        """Sleep a moment; Stopped when this is to end."""
        self._rest()
        self._obey()

    def _obey(self) -> None:
        """Stopped where somebody wants us to end, or the cluster has ended without us."""
        if self._heard.came is not None:
            raise Stopped(f"{self._heard.came.name} came")
        with contextlib.suppress(OSError, ValueError):  # a store that stands still ends nobody
            if (data := files.read(self._folder.stop)) is not None:
                raise Stopped(str(typed.mapping(data).get("words", "")))
            if (over := folders.load(Over, self._folder.over)) is not None:
                raise Stopped(f"the cluster is over: {over.words}")

    def _rest(self) -> None:
        self._heard.pause(LOOK_S)
        self._ray.note(daemons.reap())

    def _leave(self, over: Over) -> None:
        """What every way out goes through. A full disk keeps nobody from it."""
        failed = over.cause is not None
        if self._here.is_head:  # before jobs yield: nothing is to come here any more
            with contextlib.suppress(OSError, ValueError):
                self._withdraw()
        if self._here.is_head or failed:
            with contextlib.suppress(OSError):
                folders.publish(self._folder.over, over)
        self._tell(Step.LEAVING, over.words)
        self._let_jobs_save()
        if self._here.is_head and self._up:
            self._let_others_leave()
        if failed:
            self._ray.keep_logs(self._folder.logs(self._here.number))
        self._ray.end()
        if self._here.is_head:
            with contextlib.suppress(OSError):
                Path(self._asked.token).unlink(missing_ok=True)
        self._tell(Step.FAILED if failed else Step.ENDED, over.words)

    def _withdraw(self) -> None:
        """Nobody finds the cluster from here on."""
        path = Path(self._asked.record)
        found = record.read(path)
        if found is not None and found.keeper == self._here.keeper:
            path.unlink(missing_ok=True)
            folders.save_targets(self._folder, cluster=self._asked.name, targets=[])

    def _let_jobs_save(self) -> None:
        """Until no job runs here, or their time is over. Also those that begin now: whoever starts them may not know
        yet.
        """
        deadline, told = time.monotonic() + self._asked.stop_lead_s, set[int]()
        while (found := set(daemons.supervisors())) and time.monotonic() < deadline:
            daemons.ask_to_save(sorted(found - told))
            told |= found
            self._rest()
        log(f"jobs asked to save={len(told)} left={len(found)}")

    def _let_others_leave(self) -> None:
        """The head goes last: Ray on the other nodes needs it while jobs save. That these have ended only they
        themselves can say: where the dashboard is silent, or Ray has gone, jobs still save.
        """
        deadline, others = time.monotonic() + self._asked.stop_lead_s, range(1, self._asked.nodes)
        while time.monotonic() < deadline:
            if {number for number, one in self._reports().items() if _has_left(one)}.issuperset(others):
                return
            self._rest()

    def _tell(self, step: Step, words: str = "") -> None:
        """Say how far this node is, where that is new; a full disk does not end a cluster."""
        here = self._here
        report = Report(
            number=here.number,
            name=here.name,
            step=step,
            process=self._me,
            host=self._host,
            metrics=self._metrics,
            words=words,
        )
        if report != self._told:
            with contextlib.suppress(OSError):
                folders.save(self._folder.node(here.number), report)
                self._told = report


def _has_left(report: Report) -> bool:
    """Whether this node has ended, or was killed on this machine."""
    return report.step in (Step.ENDED, Step.FAILED) or processes.is_gone(report.process)


def _dashboard(head: Head) -> str:
    """As it is called on the head's own node."""
    return f"http://127.0.0.1:{head.dashboard_port}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
