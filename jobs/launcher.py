"""The seam between stx and a scheduler. jobs/contract.py is the suite that every launcher passes on the real thing."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from jobs.spec import Handle, JobSpec, Observation, Resources


class Refused(RuntimeError):
    """A scheduler that does not answer, or that refuses. `later`: nothing was wrong with what it was asked. `cured`
    tells, without a question to the scheduler, that the reason is gone; None where nobody can know.
    """

    def __init__(self, words: str, *, later: bool) -> None:
        super().__init__(words)
        self.later = later
        self.cured: Callable[[], bool] | None = None


class Launcher(Protocol):
    """Starts jobs and observes them; keeps no state that a second process could not find again."""

    def identity(self) -> str:
        """Which cluster this is: a word that goes into intents; attempts of another one are never judged from here."""

    def refusal(self, resources: Resources) -> str | None:
        """Why a job of this size could never run here, or None. Asked at plan time."""

    def avoidable(self, job: JobSpec, nodes: Sequence[str]) -> tuple[str, ...]:
        """Which of these bad nodes, the worst first, the job can do without and still run soon. Asked only when there
        are some.
        """

    def render(self, job: JobSpec) -> str:
        """The exact request; pure."""

    def submit(self, job: JobSpec) -> Handle:
        """Start the job; Refused, OSError or RuntimeError when the scheduler does not take it."""

    def poll(self, handles: Sequence[Handle], attempt_dirs: Mapping[str, Path]) -> dict[Handle, Observation]:
        """One query for all of them. `attempt_dirs` is by tag."""

    def find(self, tag: str, attempt_dir: Path) -> Handle | None:
        """The own user's live or recent job with this tag, to adopt after a crash; None if there is none."""

    def stop(self, handle: Handle, attempt_dir: Path) -> None:
        """USR2 to all ranks; returns at once."""

    def cancel(self, handle: Handle, attempt_dir: Path) -> None:
        """End the job now; idempotent."""

    def close(self) -> None:
        """Give back what this object holds; jobs run on."""
