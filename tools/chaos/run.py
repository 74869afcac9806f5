"""One run: the same file submitted until it is done, while the faults of one schedule happen."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.chaos import compare, submits
from tools.chaos.damage import Damaged
from tools.chaos.inject import Injector
from tools.chaos.processes import end_all, members
from tools.chaos.schedule import Fault
from tools.chaos.site import DevCluster
from tools.chaos.submits import Submit

TICK_S = 0.05
LEAVE_S = 20.0
BAFFLED = 6  # submits in a row that ended by themselves: then everything is restored
STUCK = 12
TWIN = "-twin"


@dataclass(frozen=True)
class Report:
    """What one run came to."""

    seed: int
    faults: Counter[str]
    in_save: int
    attempts: int
    recomputed: int
    submits: int
    seconds: float
    named: int
    unread: int
    cancelled: tuple[str, ...]
    surprises: tuple[str, ...]
    lost: tuple[str, ...]
    wrong: tuple[str, ...]
    store: Path

    @property
    def is_good(self) -> bool:
        """Nothing lost, nothing wrong, nothing unexplained."""
        return not (self.lost or self.wrong or self.cancelled or self.surprises)


@dataclass
class Run:
    """The store of one run and everything that lives on it."""

    folder: Path
    seed: int
    experiment: str
    file: Path
    cluster: str
    faults: list[Fault]
    limit_s: float
    site: DevCluster | None = None
    _live: list[Submit] = field(default_factory=list)
    _done: set[str] = field(default_factory=set)
    _judged: set[Path] = field(default_factory=set)
    _named: list[Damaged] = field(default_factory=list)
    _surprises: list[str] = field(default_factory=list)
    _submits: int = 0
    _in_a_row: int = 0
    _shares: bool = False

    @property
    def store(self) -> Path:
        """Where it works."""
        return self.folder / "store"

    def go(self, expected: Mapping[str, str]) -> Report:
        """Until it is done or stuck; ends every process it started, whatever happens."""
        tickets = self.folder / "faults"
        tickets.mkdir(parents=True)
        self._kept = set(compare.attempts(self.store))
        self._judged |= {attempt.path for attempt in self._kept}
        self._injector = Injector(self.folder, tickets, list(self.faults), site=self.site)
        self._env = submits.environment(self.folder, site=self.site)
        self._broken_env = self._injector.environment(self._env)
        began = time.monotonic()
        try:
            while not self._is_over():
                if time.monotonic() - began > self.limit_s:
                    self._surprises.append(f"not done after {self.limit_s:.0f} s")
                    break
                self._round()
                time.sleep(TICK_S)
            unread = sum(one.is_standing() for one in self._injector.damaged)
            self._injector.end()
            self._wait_for_the_last()
        finally:
            if self.site is not None:
                self.site.clear()
            end_all(self.folder)
        return self._report(expected, unread=unread, seconds=time.monotonic() - began)

    def _is_over(self) -> bool:
        wanted = {self.experiment, self.experiment + TWIN} if self._shares else {self.experiment}
        return wanted <= self._done or self._in_a_row >= STUCK

    def _round(self) -> None:
        self._injector.tick()
        for submit in [one for one in self._live if one.code is not None]:
            self._live.remove(submit)
            self._judge(submit)
        if self._injector.share and not self._shares:
            self._shares = True
            self._injector.happened["share"] += 1
        for name in [self.experiment, self.experiment + TWIN] if self._shares else [self.experiment]:
            if name not in self._done and not any(one.experiment == name for one in self._live):
                self._injector.tick(between=True)
                self._start(name)

    def _start(self, name: str) -> None:
        twins = name == self.experiment and self._injector.twins > 0
        if twins:
            self._injector.twins -= 1
            self._injector.happened["twins"] += 1
        for _ in range(1 + twins):
            self._submits += 1
            log = self.folder / f"submit-{self._submits:03d}.log"
            sets = () if name == self.experiment else (f"name={name}",)
            self._live.append(
                submits.start(name, self.file, cluster=self.cluster, sets=sets, env=self._broken_env, log=log)
            )

    def _judge(self, submit: Submit) -> None:
        """What a person makes of a submit that ended."""
        text = submit.text()
        if "Traceback" in text:
            self._surprise(submit, "a traceback")
        if submit.code == 0:
            self._done.add(submit.experiment)
            named = self._restore_named(text)  # the report reads everything
            if "the report failed" in text and not named and not self._injector.happened["full"]:
                self._surprise(submit, "no report")
            return
        failures = self._new_failures()
        named = self._restore_named(text + "\n".join(message for _, message in failures))
        for cause, message in failures:
            if cause == "USER" and not named:
                self._surprise(submit, f"USER: {message.strip().splitlines()[-1] if message.strip() else ''}")
        if submit.code not in (2, 3, 4, 6) and not submit.was_ended:
            self._surprise(submit, f"exit {submit.code}")
        watched = "is being driven already" in text
        if not ("the disk is full" in text and self._injector.is_full()):  # it says what is so, and waits for us
            self._in_a_row = 0 if submit.was_ended or named or watched else self._in_a_row + 1
        if self._in_a_row >= BAFFLED:
            self._restore_all(submit)
        if submit.code == 3 and not watched:
            submits.retry(env=self._env, log=self.folder / "retry.log")

    def _new_failures(self) -> list[tuple[str, str]]:
        found = []
        for attempt in compare.attempts(self.store):
            said = compare.failures(attempt)
            if said and attempt.path not in self._judged:
                self._judged.add(attempt.path)
                found += said
        return found

    def _restore_named(self, text: str) -> bool:
        named = [one for one in self._injector.damaged if one.is_standing() and one.named_in(text, store=self.store)]
        for one in named:
            one.restore()
            self._named.append(one)
        return bool(named)

    def _restore_all(self, submit: Submit) -> None:
        for one in self._injector.damaged:
            if one.is_standing():
                self._surprise(submit, f"in the way and not named: {one.path.relative_to(self.store)}")
                one.restore()

    def _surprise(self, submit: Submit, words: str) -> None:
        self._surprises.append(f"{submit.log.name}: {words}")

    def _wait_for_the_last(self) -> None:
        """Everything ends by itself when the experiment is done; what does not is told, and ended."""
        until = time.monotonic() + LEAVE_S
        while (left := members(self.folder)) and time.monotonic() < until:
            time.sleep(TICK_S)
        if left and not self._surprises:
            self._surprises.append(f"left behind: {', '.join(f'{one.role} {one.pid}' for one in left)}")

    def _report(self, expected: Mapping[str, str], *, unread: int, seconds: float) -> Report:
        (self.folder / "told.txt").write_text("\n".join(self._injector.told) + "\n")
        attempts = [one for one in compare.attempts(self.store) if one not in self._kept]
        stopped = self._injector.stopped
        cancelled = [
            str(one.path.relative_to(self.store))
            for one in attempts
            if compare.was_cancelled(one) and str(one.path) not in stopped
        ]
        different = compare.differences(self.store, expected)
        return Report(
            seed=self.seed,
            faults=self._injector.counts(),
            in_save=self._injector.in_save(),
            attempts=len(attempts),
            recomputed=compare.recomputed(self.store),
            submits=self._submits,
            seconds=seconds,
            named=len(self._named),
            unread=unread,
            cancelled=tuple(cancelled),
            surprises=tuple(self._surprises),
            lost=different.lost,
            wrong=different.wrong,
            store=self.store,
        )


def dump(report: Report) -> dict[str, object]:
    """Its JSON."""
    record = dict(vars(report)) | {"store": str(report.store), "faults": dict(sorted(report.faults.items()))}
    return json.loads(json.dumps(record))  # type: ignore[no-any-return]
