"""How long a scheduler that takes no more jobs for now is left in peace.

30 s, then twice as long every time, ten minutes at most; no longer than until it is known to be cured (a Ray cluster
that was not up is up), or until one of our jobs has ended: there may be room for another.
"""

from collections.abc import Callable
from contextlib import suppress

from stx.coordinator.attempts import ask
from stx.errors import BackendError

FIRST_S, AT_MOST_S = 30.0, 600.0


class Throttle:
    """Closed by a refusal; who finds it closed asks for no job."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = self._pause_s = 0.0
        self._cured: Callable[[], bool] | None = None
        self._live: int | None = None

    @property
    def closed(self) -> bool:
        """Whether the scheduler is left in peace now."""
        return self._clock() < self._until

    def refused(self, error: BackendError) -> None:
        """It takes no more for now."""
        self._pause_s = min(max(2 * self._pause_s, FIRST_S), AT_MOST_S)
        self._until = self._clock() + self._pause_s
        self._cured, self._live = error.cured, None

    def taken(self) -> None:
        """It took a job: the next refusal is a first one."""
        self._pause_s = 0.0

    def lifted(self, live: int) -> bool:
        """Whether it may be asked again. Once a round while closed; `live`: how many of our attempts live."""
        with suppress(BackendError):
            if self._cured is not None and ask(self._cured):
                self._until = self._pause_s = 0.0
        if self._live is not None and live < self._live:
            self._until = 0.0
        self._live = live
        return not self.closed
