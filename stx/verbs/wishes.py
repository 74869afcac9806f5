"""The flags of one submit, and what several of them mean together."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from stx.config.cluster import Cluster
from stx.config.load import Experiment
from stx.errors import ConfigError
from stx.verbs import advice

WITH_SMOKE = ("foreground", "detached")


@dataclass(frozen=True)
class Wishes:
    """The flags of one submit. `within` and `copy_of` are of those that a helper job does: which kind of job it is, and
    the file whose accepted copy it reads.
    """

    file: Path
    sets: tuple[str, ...]
    cluster: str | None
    store: str | None
    detach: bool | None
    update: bool
    accept_code: bool
    smoke: bool
    once: bool = False
    within: str = ""
    copy_of: Path | None = None

    def where(self, cluster: Cluster) -> str:
        """Where the coordinator of this submit lives; `once` for a single pass."""
        if self.once and self.detach is not None:
            raise _excluded("--once", "--detach" if self.detach else "--foreground")
        named = {None: cluster.coordinator.where, True: "detached", False: "foreground"}[self.detach]
        where = "once" if self.once else named
        if self.smoke and where not in WITH_SMOKE:
            raise _excluded("--smoke", "--once" if self.once else f"coordinator: {{where: {where}}}")
        return where

    @property
    def again(self) -> str:
        """The same submit, as a person types it."""
        return advice.submit(self.copy_of or self.file, sets=self.sets, cluster=self.cluster)

    @property
    def change(self) -> Callable[[Experiment], Experiment] | None:
        """Paths in a copy are relative to the file that it was made of."""
        original = self.copy_of
        return None if original is None else lambda experiment: replace(experiment, path=original)


def _excluded(flag: str, other: str) -> ConfigError:
    hint = "smoke runs to its end before the real one begins: with --foreground or --detach"
    if flag == "--once":
        hint = "--once looks, acts and leaves: there is nothing to detach or to watch"
    return ConfigError(f"{flag} and {other} exclude each other", where=shlex.join(["stx", "submit", flag]), hint=hint)
