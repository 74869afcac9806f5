"""sacct: how jobs ended that squeue has forgotten. Many sites have no accounting; then nothing is known, and that is no
error.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from jobs.launchers.slurm import commands, queue
from jobs.launchers.slurm.commands import SlurmError
from jobs.launchers.slurm.queue import Row
from jobs.spec import Cause, JobState, Observation

ASK_AGAIN_S = 600.0
LIMIT_S = 20.0


class Past:
    """What accounting says of ended jobs; each is asked about until it has answered once."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[str, Observation] = {}
        self._silent_until = 0.0

    def ask(self, job_ids: Sequence[str]) -> Mapping[str, Observation]:
        """Those that it knows to have ended."""
        unknown = sorted({job_id for job_id in job_ids if job_id not in self._known and job_id.isdecimal()})
        if unknown and self._clock() >= self._silent_until:
            try:
                said = commands.run(command(unknown), limit_s=LIMIT_S)
            except SlurmError:
                self._silent_until = self._clock() + ASK_AGAIN_S
                said = ""
            self._known |= parse(said)
        return self._known


def command(job_ids: Sequence[str]) -> list[str]:
    """Of the jobs themselves, not of their steps."""
    listed = ",".join(job_ids)
    return [
        "sacct",
        "--allocations",
        "--noheader",
        "--parsable2",
        "--format=JobID,State,NodeList,ExitCode",
        f"--jobs={listed}",
    ]


def parse(text: str) -> dict[str, Observation]:
    """Jobs that have ended; of all others accounting is behind squeue."""
    found = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) == 4 and fields[0].isdecimal():
            state = fields[1].split()[0] if fields[1].strip() else ""  # "CANCELLED by 0"
            code = fields[3].partition(":")[0]  # "74:0": the code, and the signal
            status = int(code) << 8 if code.isdecimal() else 0
            row = Row(fields[0], state, restarts=0, reason="", start="", nodes=fields[2], name="", status=status)
            seen = queue.observe(row, restart=None)
            if seen.state is JobState.ENDED:
                of = (row.nodes,) if seen.cause is Cause.NODE and re.fullmatch(r"[\w.-]+", row.nodes) else ()
                found[fields[0]] = replace(seen, failed=of)
    return found
