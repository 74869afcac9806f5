"""The actor that holds one rank's place in a Ray cluster: the parent of one supervisor, for as long as that lives.

    start    the supervisor, with exactly the actor's GPUs; its log is <attempt dir>/scheduler/<job>_<rank>_log.out
    mind     rank 0 minds all others, and all others mind rank 0: where one fails, all end theirs, and where
             an actor dies, all have the time of a stop to save
    say      where the supervisor could not even begin, why (jobs/launchers/ray/unbegun.py)
    end      when the supervisors of all ranks have ended, rank 0 removes the placement group, and with it all actors

An actor that is killed leaves a supervisor that notices, and has the time of a stop to save (jobs/parent.py); until
then nobody may say that the job is over. Whoever minds it waits that long, unless the rank has said its outcome.

Ray's workers need nothing but ray: the class travels by value, and takes the rest from the job's copy of the sources.
"""

import asyncio
import os
import sys
from typing import Any


class Rank:
    """Ray's actor; all that it does is in jobs/launchers/ray/holder.py."""

    def __init__(self, task: dict[str, Any]) -> None:
        sys.path[:0] = task["path"].split(os.pathsep)
        from jobs.launchers.ray.holder import Holder

        self._label = f"{task['label']} rank {task['rank']}"
        self._holder = Holder(task)

    def __repr__(self) -> str:
        return self._label

    async def signal(self, number: int) -> None:
        """Send the supervisor a signal."""
        self._holder.child.signal(number)

    async def end(self, grace_s: float) -> None:
        """TERM to the supervisor, KILL to everything after some time."""
        self._holder.child.end(grace_s=grace_s)

    async def wait(self) -> int | None:
        """Until the supervisor and all that it started have ended; its exit code, None where it was killed, or ended
        before it said a word.
        """
        while not self._holder.is_over:
            await asyncio.sleep(0.1)
        code: int | None = self._holder.child.code
        return code

    async def stay(self) -> None:
        """Never returns: who asked sees when the actor is gone."""
        await asyncio.Event().wait()
