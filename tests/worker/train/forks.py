"""Starts the ranks of attempts as forks of one process that has imported torch and DeepSpeed: 0.3 s instead of 5.

A fork is a fresh worker otherwise: `stx.worker run`, with its environment, its log, its signal handlers. It may be
told to end itself: by a stop signal at its n-th step, or by SIGKILL inside a save, at a point that was chosen before.

stdin    one JSON object a line: {"folder", "environments": [{...} of each rank], "logs": [path of each rank],
         "stop_at": {rank: step}, "kill": null | {"rank", "save", "point", "when", "share"},
         "deadline_s": null | seconds from now, "fsync_s": seconds that every fsync of a save takes longer}
stdout   one JSON object for each: {"codes": [exit code of each rank], "points": [[[operation, file], ...] of the last
         save of each rank, if it left in peace]}

A point is one write, fsync, rename, unlink or rmdir of a save. `when`: "before", "after", or, of a write, "inside": a
`share` of its bytes is written. A save is what Keeper.save does; `save` counts them from 1, and where that save has not
so many points, a later one is taken that has.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

os.environ |= {"DS_ACCELERATOR": "cpu", "TORCHDYNAMO_DISABLE": "1", "LOCAL_RANK": "0", "OMP_NUM_THREADS": "1"}

import deepspeed  # noqa: F401 (the variables above are read when it is imported)

from jobs import runtime
from stx.worker import __main__ as worker
from stx.worker import entry, train  # noqa: F401
from stx.worker.checkpoint import Keeper

OPERATIONS = ("write", "fsync", "rename", "unlink", "rmdir")


class Faults:
    """Counts the points of every save in this process, and ends it at the chosen one."""

    def __init__(self, kill, *, fsync_s):
        self.kill = kill
        self.fsync_s = fsync_s
        self.saves = 0
        self.inside = False
        self.points = []
        self.real = {name: getattr(os, name) for name in OPERATIONS}
        for name in OPERATIONS:
            setattr(os, name, self.wrapped(name))
        real_save = Keeper.save

        def save(keeper, **options):
            self.saves, self.points, self.inside = self.saves + 1, [], True
            try:
                return real_save(keeper, **options)
            finally:
                self.inside = False

        Keeper.save = save

    def wrapped(self, name):
        real = self.real[name]

        def operation(target, *rest, **options):
            if not self.inside:
                return real(target, *rest, **options)
            self.points.append([name, file_of(target)])
            if name == "fsync":
                time.sleep(self.fsync_s)
            when = self.due()
            if when == "inside" and name == "write":
                data = memoryview(rest[0]).cast("B")
                real(target, data[: int(self.kill["share"] * len(data))])
                die()
            if when == "before":
                die()
            result = real(target, *rest, **options)
            if when:
                die()
            return result

        return operation

    def due(self):
        chosen = self.kill and self.saves >= self.kill["save"] and len(self.points) == self.kill["point"]
        return self.kill["when"] if chosen else None


def file_of(target):
    """What kind of file: names without numbers and random parts."""
    path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)
    name = os.path.basename(path)
    return next((kind for kind in ("rank", "manifest", "trash", "aside", "checkpoints") if kind in name), "older")


def die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def stop_at(step):
    """A real signal, which the step boundary number `step` sees."""
    real, asked = runtime.stop_requested, iter(range(1, step))

    def stop_requested():
        if next(asked, None) is None:
            os.kill(os.getpid(), signal.SIGUSR2)
        return real()

    runtime.stop_requested = stop_requested


def rank_main(task, rank):
    """In the fork."""
    runtime._parent = os.getppid()  # as if it had been imported here
    log = os.open(task["logs"][rank], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= task["environments"][rank]
    if task["deadline_s"] is not None:
        os.environ["STX_DEADLINE"] = repr(time.monotonic() + task["deadline_s"])
    if str(rank) in task["stop_at"]:
        stop_at(task["stop_at"][str(rank)])
    kill = task["kill"]
    faults = Faults(kill if kill and kill["rank"] == rank else None, fsync_s=task["fsync_s"])
    code = worker.main(["run", task["folder"]])
    report_of(task, rank).write_text(json.dumps(faults.points))
    return code


def report_of(task, rank):
    return Path(task["folder"], f"points-{rank}.json")


def fork(task, rank):
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        code = rank_main(task, rank)
    except BaseException:  # noqa: BLE001 (a fork must never return into the server)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(task):
    """Fork the ranks; when one dies, the others are ended, as their supervisor would."""
    ranks = {fork(task, rank): rank for rank in range(len(task["environments"]))}
    codes, running = [0] * len(ranks), set(ranks)
    while running:
        pid, status = os.wait()
        codes[ranks[pid]] = code = os.waitstatus_to_exitcode(status)
        running.discard(pid)
        if code not in (0, runtime.EXIT_YIELDED):
            for other in running:
                os.kill(other, signal.SIGKILL)
    reports = [report_of(task, rank) for rank in range(len(ranks))]
    return {"codes": codes, "points": [json.loads(one.read_text()) if one.exists() else [] for one in reports]}


def main():
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
