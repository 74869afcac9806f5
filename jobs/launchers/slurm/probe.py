"""A look around on a compute node, for `stx doctor`: run there as a plain script, `probe.py FOLDER`, which lies on the
store. Standard library only, and nothing of ours is imported: the node may lack all of it.

Writes FOLDER/seen.json, beside its name and renamed: what could be done in the folder, and what the node is like.
"""

import errno
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

IMPORT_LIMIT_S = 40
COMMAND_LIMIT_S = 20
CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def main(folder: Path) -> None:
    """All looks; one that fails says so under its own name and keeps no other from its turn."""
    looks: dict[str, Callable[[], Any]] = {
        "rename": lambda: durable(folder),
        "link": lambda: links(folder),
        "nofollow": lambda: nofollow(folder),
        "hello": lambda: (folder / "hello").read_text(encoding="utf-8"),
        "clock_ahead_s": lambda: clock(folder),
        "modules": lambda: {name: module(name) for name in ("torch", "submitit")},
        "gpus": gpus,
        "memory_gb": memory_gb,
        "temp_gb": lambda: shutil.disk_usage(tempfile.gettempdir()).free / 2**30,
        "submits": submits,
    }
    seen: dict[str, Any] = {
        "host": socket.gethostname(),
        "node": os.environ.get("SLURMD_NODENAME", ""),
        "python": platform.python_version(),
        "executable": sys.executable,
        "cores": len(os.sched_getaffinity(0)),
    }
    wrong = {}
    for name, look in looks.items():
        try:
            seen[name] = look()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            wrong[name] = str(error)
    aside = folder / ".seen.json"
    aside.write_text(json.dumps(seen | {"wrong": wrong}), encoding="utf-8")
    aside.rename(folder / "seen.json")


def durable(folder: Path) -> float:
    """Milliseconds for one write, fsync and rename."""
    began = time.monotonic()
    for number in range(5):
        with (folder / ".record").open("w") as stream:
            stream.write(str(number))
            stream.flush()
            os.fsync(stream.fileno())
        (folder / ".record").rename(folder / "record")
    if (folder / "record").read_text() != "4":
        raise ValueError("what was renamed last is not what is read")
    return (time.monotonic() - began) * 1000 / 5


def links(folder: Path) -> bool:
    """Publish a name as claims and results are: a file beside it, its link(2), and that its count is 2; a second one
    must fail, and so must ours to what the submitter has published.
    """
    first, second = folder / ".first", folder / ".second"
    for path in (first, second):
        path.write_text(path.name)
    os.link(first, folder / "claim")
    if first.stat().st_nlink != 2:
        raise ValueError("a link was made, and the file's count says that there is none")
    for taken in ("claim", "hello"):
        try:
            os.link(second, folder / taken)
        except FileExistsError:
            continue
        raise ValueError(f"a second link to the name {taken} was made: claims would not be safe")
    return (folder / "claim").read_text() == first.name


def nofollow(folder: Path) -> bool:
    """A symbolic link is refused when it must be."""
    (folder / "symbolic").symlink_to(folder / "record")
    try:
        os.close(os.open(folder / "symbolic", os.O_RDONLY | os.O_NOFOLLOW))
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def clock(folder: Path) -> float:
    """How far this node's clock is ahead of the file server's, in seconds."""
    (folder / "now").write_text("")
    return time.time() - (folder / "now").stat().st_mtime


def module(name: str) -> dict[str, Any]:
    """The version of a package as a program of its own imports it, and how long that takes."""
    began = time.monotonic()
    code = f"import {name}; print({name}.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=IMPORT_LIMIT_S)
    if done.returncode != 0:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return {"version": done.stdout.strip(), "seconds": time.monotonic() - began}


def gpus() -> list[str]:
    """The names of the GPUs that the driver shows on this node."""
    if shutil.which("nvidia-smi") is None:
        return []
    argv = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_LIMIT_S)
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def memory_gb() -> float:
    """What this job may take: the machine's, or less by its cgroup."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in CGROUPS:
        if Path(name).is_file() and (text := Path(name).read_text().strip()).isdecimal():
            total = min(total, int(text))
    return total / 2**30


def submits() -> dict[str, str]:
    """What squeue and sbatch say here: "" for yes."""
    inherited = ("SLURM_", "SBATCH_", "SRUN_", "PMI")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(inherited)}
    environment = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ} | plain
    partition = os.environ.get("SLURM_JOB_PARTITION", "")
    asked = {
        "squeue": ["squeue", "--noheader", f"--user={os.geteuid()}"],
        "sbatch": ["sbatch", "--test-only", "--ntasks=1", "--time=1", f"--partition={partition}", "--wrap=true"],
    }
    return {name: _said(argv, environment) for name, argv in asked.items()}


def _said(argv: list[str], environment: dict[str, str]) -> str:
    if shutil.which(argv[0]) is None:
        return "there is no such program on this node"
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=COMMAND_LIMIT_S)
    return "" if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
