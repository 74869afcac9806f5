"""The request: a batch script of submitit's, whose command is our supervisor, one per rank.

submitit's own command would wait for a pickle that is renamed after sbatch has returned: a job that was accepted while
its submitter died would wait for it in vain. Ours reads the intent, which was there before. submitit's scratch files
live in a temporary folder; logs of the job go to <attempt dir>/slurm/.
"""

import contextlib
import io
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

import jobs
from jobs.files import AttemptDir
from jobs.launchers.slurm import commands
from jobs.launchers.slurm.commands import SlurmError
from jobs.spec import JobSpec

SBATCH_LIMIT_S = 120
# bash would die of them while srun waits for tasks that save; the end of its script is the end of the job.
KEEP_THE_SHELL = "trap : TERM USR1 USR2"
# Blocked from before Python starts, so that a signal of the first milliseconds waits for its handler (coreutils 8.31).
BLOCK = "STX_BLOCK=; env --block-signal=TERM true 2>/dev/null && STX_BLOCK=--block-signal=USR1,USR2,TERM"


class _Executor(SlurmExecutor):
    """One job: its command and its logs are ours."""

    def __init__(self, folder: str | Path, command: str, logs: Path) -> None:
        super().__init__(folder)
        self._command = command
        self._logs = logs

    @classmethod
    def affinity(cls) -> int:
        """A request can be rendered where no Slurm is."""
        return 2

    @property
    def _submitit_command_str(self) -> str:
        return self._command

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        self.folder, scratch = self._logs, self.folder
        try:
            return str(super()._make_submission_file_text(command, uid))
        finally:
            self.folder = scratch

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        unset = [part for name in commands.left_out(os.environ) for part in ("-u", name)]
        limited = ["timeout", "--kill-after=10", str(SBATCH_LIMIT_S)]
        return ["env", *unset, "LC_ALL=C", *limited, "sbatch", str(submission_file_path)]


def render(job: JobSpec) -> str:
    """The batch script; pure."""
    return text(command(job), logs=logs_of(job), parameters=_parameters(job))


def submit(job: JobSpec) -> str:
    """Give it to sbatch; the job's id. SlurmError in sbatch's words."""
    logs_of(job).mkdir(exist_ok=True)
    return send(command(job), logs=logs_of(job), parameters=_parameters(job))


def text(command: str, *, logs: Path, parameters: Mapping[str, Any]) -> str:
    """A batch script with submitit's names of what it asks for; pure."""
    executor = _executor(command, folder="/nonexistent", logs=logs, parameters=parameters)
    return executor._make_submission_file_text(command, "")


def send(command: str, *, logs: Path, parameters: Mapping[str, Any]) -> str:
    """Give such a script to sbatch; the job's id. SlurmError in sbatch's words."""
    with tempfile.TemporaryDirectory(prefix="stx-sbatch-") as scratch:
        executor = _executor(command, folder=scratch, logs=logs, parameters=parameters)
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it then raises
                return str(executor.submit(_nothing).job_id)
        except (FailedJobError, FailedSubmissionError) as error:
            raise SlurmError("sbatch", _words(error)) from error


def logs_of(job: JobSpec) -> Path:
    """Where what the batch script and the supervisors print goes."""
    return AttemptDir(job.attempt_dir).scheduler_logs


def _nothing() -> None:
    """What submitit pickles; nobody reads it."""


def _words(error: Exception) -> str:
    """sbatch's own words out of submitit's message."""
    lines = [line for line in str(error).splitlines() if "sbatch: " in line]
    said = "; ".join(line.partition("sbatch: ")[2].removeprefix("error: ") for line in lines) or str(error).strip()
    return said or f"did not answer within {SBATCH_LIMIT_S} s"


def _executor(command: str, *, folder: str, logs: Path, parameters: Mapping[str, Any]) -> _Executor:
    executor = _Executor(folder, command, logs)
    executor.update_parameters(**parameters)
    return executor


def command(job: JobSpec) -> str:
    """What srun starts once per rank. -P: a folder named `jobs` where it happens to stand is not this package."""
    python = str(job.scheduler.get("python") or sys.executable)
    path = job.env.get("PYTHONPATH") or str(Path(jobs.__file__).parent.parent)
    words = [f"PYTHONPATH={path}", python, "-P", "-m", "jobs.exec", "--slurm", str(job.attempt_dir)]
    return f"env $STX_BLOCK {shlex.join(words)}"


def _parameters(job: JobSpec) -> dict[str, Any]:
    size, asked = job.resources, job.scheduler
    avoided = dict.fromkeys([*asked.get("exclude", ()), *job.avoid])
    return {
        "job_name": job.tag,
        "nodes": size.nodes,
        "ntasks_per_node": size.ranks_per_node,
        "cpus_per_task": size.cpus_per_rank,
        "mem": f"{round(size.mem_gb * 1024)}M",
        "stderr_to_stdout": True,
        "signal_delay_s": int(job.stop_lead_s),
        "setup": [KEEP_THE_SHELL, BLOCK, *asked.get("setup", ())],
        "srun_args": [f"--cpus-per-task={size.cpus_per_rank}", "--kill-on-bad-exit=1", *asked.get("srun", ())],
        "wckey": None,
        "exclude": ",".join(avoided) or None,
        "additional_parameters": _additional(job),
        "partition": size.partition,
    } | {name: asked.get(name) or None for name in ("account", "qos", "constraint")}


def _additional(job: JobSpec) -> dict[str, Any]:
    """What submitit has no name for. It counts time in minutes; a job of 90 s would get one."""
    size, asked = job.resources, job.scheduler
    found: dict[str, Any] = {"time": hours(size.time_s), "no-requeue": True, "chdir": str(job.cwd)}
    if size.gpus_per_rank:
        kind = f"{asked['gpu_type']}:" if asked.get("gpu_type") else ""
        found["gpus-per-node"] = f"{kind}{size.gpus_per_rank * size.ranks_per_node}"
    if asked.get("reservation"):
        found["reservation"] = asked["reservation"]
    return found


def hours(seconds: float) -> str:
    """As sbatch reads a time: days-hours:minutes:seconds."""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    whole, minutes = divmod(minutes, 60)
    return f"{whole // 24}-{whole % 24:02d}:{minutes:02d}:{rest:02d}"
