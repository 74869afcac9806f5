"""Three experiments that share stages, on one store and two clusters, told step by step what happens to them.

`Happenings` carries steps out on real files, and checks after each of them what must hold at every moment. Which steps,
and in which order, is for the tests to say.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from jobs.spec import Cause, JobState, Result
from stx import records
from stx.coordinator import inbox, journal
from stx.coordinator.inbox import Command
from stx.coordinator.journal import Reader
from stx.coordinator.settle import is_done
from stx.coordinator.state import TERMINAL
from stx.coordinator.transitions import replay
from stx.endings import ending, num_ranks
from stx.errors import LeaseHeld, StoreError
from stx.paths import StageDir
from tests.coordinator.simulated import Job, SimLauncher, Worker

EXPERIMENTS = "abc"  # c lives on a cluster that a and b cannot reach
RETRIES = {"lost": 2, "node": 2, "oom": 1, "hang": 1, "nan": 0, "setup": 2, "no_space": 3}
GROWN = {"a": (2, 4), "b": (2, 4), "c": (4,)}


class Happenings:
    """One world, and what may happen in it."""

    def __init__(self, world, sim) -> None:
        self.world = world
        self.sim = sim
        self.far = SimLauncher("far")
        self.wants = {"a": (2,), "b": (2, 4), "c": (4,)}
        self.readers: dict[str, Reader] = {}
        self.ordered: set[str] = set()
        self.taken_over: set[str] = set()
        self.claims: dict[Path, bool] = {}
        self.letters: list[tuple[Path, bytes]] = []

    # -- coordinators

    def graph(self, name: str):
        return self.sim.small_graph(name, wants=self.wants[name])

    def start(self, name: str, calls: int | None = None) -> None:
        """Submit; killed after so many calls into the system."""
        if name in self.world.coordinators:
            return
        self.readers.pop(name, None)
        with suppress(OSError):
            self.world.free(name)
        launcher = self.far if name == "c" else None
        cluster = self.world.cluster(retries=RETRIES, backoff_s=[0, 60])
        with suppress(StoreError, OSError, LeaseHeld):  # the disk is full, or was when the last holder was looked at
            if not self.world.within(
                calls, lambda: self.world.start(self.graph(name), launcher=launcher, cluster=cluster)
            ):
                self.world.kill(name)

    def round(self, name: str, calls: int | None = None) -> None:
        """One round; killed after so many calls into the system."""
        if name in self.world.coordinators and not self.world.within(calls, self.world.coordinators[name].round):
            self.world.kill(name)

    def sleep(self, name: str, calls: int, number: int) -> None:
        """A coordinator is stopped in the middle of a round; its lease expires, another one drives the experiment, and
        a job goes on; then the first wakes up and finishes its round, if nothing stops it. Nobody takes a lease on a
        full disk.
        """
        if name not in self.world.coordinators or self.world.system.full:
            return
        sleeper = self.world.coordinators[name]

        def meanwhile() -> None:
            self.world.overtake(name)
            self.start(name)
            self.advance(name, number)

        with suppress(LeaseHeld):
            self.world.between(calls, sleeper.round, meanwhile)

    def kill(self, name: str) -> None:
        self.world.kill(name)

    def grow(self, name: str) -> None:
        """The file is edited: more milestones. The running coordinator leaves, or is dead."""
        self.wants[name] = GROWN[name]
        if name in self.world.coordinators:
            self.world.leave(name)

    # -- people

    def order(self, name: str, verb: str, number: int, *, take_over: bool = False) -> None:
        """Someone gives a command about one stage."""
        if self.world.system.full or not self.world.store.experiment(name).graph.exists():
            return
        keys = [node.key for node in self.graph(name).nodes]
        key = keys[number % len(keys)]
        if verb == "cancel":
            self.ordered.add(key)
        directory = self.world.store.experiment(name)
        inbox.put(directory, Command(verb, (key,), take_over=take_over))
        newest = max(directory.inbox.iterdir())
        self.letters.append((newest, newest.read_bytes()))

    def deliver_again(self, number: int) -> None:
        """A letter that was there before appears once more."""
        if self.letters:
            path, data = self.letters[number % len(self.letters)]
            path.write_bytes(data)

    def lose_cluster(self, name: str, number: int) -> None:
        """The far cluster burns down with its coordinator; a person says so of one stage."""
        self.world.kill("c")
        for job in self.far.live():
            job.state = JobState.ENDED
        before = len(self.letters)
        self.order(name, "retry", number, take_over=True)
        for path, _ in self.letters[before:]:
            self.taken_over.update(records.read(path)["keys"])

    # -- jobs

    def jobs(self) -> list[Job]:
        return [*self.world.launcher.jobs, *self.far.jobs]

    def job(self, number: int, how: str) -> None:
        """Something happens to a job that is not over."""
        live = [(launcher, job) for launcher in (self.world.launcher, self.far) for job in launcher.live()]
        if not live:
            return
        launcher, job = live[number % len(live)]
        full, self.world.system.full = self.world.system.full, False  # it is the coordinators' disk that is full
        self.move(launcher, job, how)
        self.world.system.full = full

    def move(self, launcher: SimLauncher, job: Job, how: str) -> None:
        launcher.start(job)
        if job.state is not JobState.RUNNING:
            return
        worker = Worker(job)
        if how in {"part", "yield"}:
            worker.work(parts=1)
        if how in {"save", "yield"}:
            worker.save()
        if how == "done":
            worker.work()
            launcher.end(job, Result.COMPLETED)
        elif how in {"yield", "idle"}:
            launcher.end(job, Result.YIELDED)
        elif how == "die":
            job.state = JobState.ENDED
        elif how == "speak":  # it left its last word, and the scheduler still says that it runs
            worker.work()
            launcher.end(job, Result.COMPLETED)
            launcher.lies.late[job.handle.job_id] = JobState.RUNNING
        elif how in {"oom", "user", "nan", "node"}:
            launcher.end(job, Result.FAILED, cause=Cause(how.upper()))
        elif job.folder.stop.exists() and how == "start":
            launcher.end(job, Result.YIELDED)

    def advance(self, name: str, number: int) -> None:
        """Some rounds in which a job begins."""
        for _ in range(3):
            self.round(name)
            self.job(number, "start")

    def trouble(self, refuse: str, fail: bool, full: bool) -> None:
        """What fails until it is told otherwise: submits, polls, writes."""
        self.world.launcher.refuse, self.world.launcher.fail_polls = refuse, fail
        self.world.system.full = full

    def lose_answer(self, hidden: bool) -> None:
        """The next job is accepted, and nobody is told; nor is it shown, until the scheduler says the truth again."""
        launcher = self.world.launcher
        launcher.timeouts = 1
        if hidden:
            launcher.lies.hidden.add(f"job{len(launcher.jobs)}")

    def lie(self, number: int, how: str) -> None:
        """The scheduler says something else than the truth about a job, until `truth`."""
        jobs, lies = self.world.launcher.jobs, self.world.launcher.lies
        if how == "truth":
            lies.end()
        if not jobs:
            return
        job = jobs[number % len(jobs)]
        name = job.handle.job_id
        if how == "late":
            lies.late.setdefault(name, job.state)
        elif how in {"silent", "unknown"}:
            getattr(lies, how).add(name)

    def blink_and_look(self, number: int) -> None:
        """A job that runs looks gone in one answer to everybody who asks."""
        self.job(number, "start")
        running = [job for job in self.world.launcher.jobs if job.state is JobState.RUNNING]
        lies = self.world.launcher.lies
        lies.end()
        for name in EXPERIMENTS:
            lies.blinking.update(job.handle.job_id for job in running[:1])
            self.round(name)
            lies.end()
            self.round(name)

    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    # -- what must hold

    def check(self) -> None:
        """At every moment."""
        self.check_jobs()
        for stage in self.stages():
            self.check_stage(stage)
        for name, coordinator in self.world.coordinators.items():
            if not self.world.system.full and not coordinator.state.full:
                reader = self.readers.setdefault(name, Reader(self.world.store.experiment(name), self.graph(name)))
                assert reader.refresh() == coordinator.state, f"the journal of {name} is not its state"

    def check_jobs(self) -> None:
        running = [job.folder.path.parent for job in self.jobs() if job.state is JobState.RUNNING]
        assert len(running) == len(set(running)), f"two jobs work on one stage: {running}"
        for job in [*self.world.launcher.cancelled, *self.far.cancelled]:
            assert job.folder.stop.exists(), f"{job.handle}: cancelled without having been asked to leave"
        for job in self.jobs():
            if job.folder.stop.exists():
                assert records.read(job.folder.intent)["attempt"]["key"] in self.ordered, "nobody wanted it stopped"

    def stages(self) -> Iterator[StageDir]:
        yield from [StageDir(path) for path in sorted(self.world.store.stages.glob("*"))]

    def check_stage(self, stage: StageDir) -> None:
        numbers = stage.attempts()
        assert numbers == list(range(1, len(numbers) + 1)), f"{stage.path.name}: a gap in {numbers}"
        since = max(stage.retries(), default=0)
        spent: Counter[str] = Counter()
        for number in numbers:
            attempt = stage.attempt(number)
            intent = records.read(attempt.intent)
            if attempt.intent not in self.claims:
                assert not self.done_before(stage, intent), f"{stage.path.name}: claimed although it was finished"
            self.claims[attempt.intent] = True
            end = ending(attempt, number=number, ranks=num_ranks(intent))
            assert end is not None or number == numbers[-1], f"{stage.path.name}: {number} of {numbers} is not over"
            if end is not None and end.cause and number > since:
                spent[end.cause] += 1
            verdict = records.find(attempt.verdict)
            if verdict is not None and intent["launcher"] == "far" and verdict["experiment"] != "c":
                assert intent["attempt"]["key"] in self.taken_over, "judged from out of reach"
        over = {cause: count for cause, count in spent.items() if count > RETRIES.get(cause.lower(), 0) + 1}
        assert not over, f"{stage.path.name}: more attempts than the budget allows: {over}"

    def remember(self) -> None:
        """What is finished before a step: nobody may claim it in the step."""
        kinds = [(stage, stage.path.name.rpartition("-")[0]) for stage in self.stages()]
        self.finished = {
            stage.path.name: (tuple(stage.parts(kind)), stage.result.artifact.exists()) for stage, kind in kinds
        }

    def done_before(self, stage: StageDir, intent) -> bool:
        parts, artifact = self.finished.get(stage.path.name, ((), False))
        wants = intent["attempt"]["wants"]
        return set(wants) <= set(parts) if wants else artifact

    # -- the end

    def end(self) -> None:
        """From here on everything goes well: it ends; and what failed or was cancelled is made if a person asks."""
        self.world.system.full = False
        for launcher in (self.world.launcher, self.far):
            launcher.lies.end()
            launcher.timeouts, launcher.refuse, launcher.fail_polls = 0, "", False
        self.rest()
        for name in EXPERIMENTS:
            coordinator = self.world.coordinators[name]
            assert {stage.status for _, stage in coordinator.state.rows()} <= TERMINAL
            told = journal.events(self.world.store.experiment(name))
            assert replay(self.graph(name), told) == coordinator.state
            inbox.put(
                self.world.store.experiment(name),
                Command("retry", tuple(node.key for node in self.graph(name).nodes), take_over=True),
            )
            self.taken_over.update(node.key for node in self.graph(name).nodes)
        self.rest()
        for name in EXPERIMENTS:
            rows = self.world.coordinators[name].state.rows()
            assert all(is_done(vertex, stage.facts) for vertex, stage in rows), self.sim.statuses(
                self.world.coordinators[name]
            )

    def rest(self, limit: int = 80) -> None:
        """Rounds in which every job does what it can, until all experiments rest."""
        for _ in range(limit):
            self.remember()
            for name in EXPERIMENTS:
                self.start(name)
                self.round(name)
            self.wait(600.0)
            self.check()
            rests = all(self.world.coordinators[name].state.finished for name in EXPERIMENTS)
            if rests and not any(list(self.world.store.experiments.glob("*/inbox/*.json"))):
                return
            for launcher in (self.world.launcher, self.far):
                for job in launcher.live():
                    launcher.start(job)
                    if job.state is JobState.RUNNING:
                        Worker(job).work()
                        launcher.end(job, Result.COMPLETED)
        raise AssertionError({name: self.sim.statuses(one) for name, one in self.world.coordinators.items()})
