"""Fault injection around the real thing: kills a process before or after its n-th write, fsync, rename or link.

Put this folder on PYTHONPATH and name a folder of tickets in STX_FAULT_TICKETS. A ticket is a JSON file
{"program": "stx.worker", "point": 17}: the first process whose command line contains `program` takes it (by rename,
so exactly one does) and dies by SIGKILL at its 17th fault point. What happened is appended to kills.jsonl there.
Python imports a module of this name at start-up, so nothing in the product knows of it.
"""

import json
import os
import re
import signal
import sys

OPERATIONS = ("write", "fsync", "rename", "replace", "link")
# A kill "inside a save" hits a checkpoint or a result while it is being written or published.
SAVE = re.compile(r"/(checkpoints|milestones|parts|payload)(/|$)|/artifact\.json")


def _take_ticket(folder):
    command = " ".join(sys.orig_argv)
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".ticket"):
            continue
        path = os.path.join(folder, name)
        taken = f"{path}.{os.getpid()}"
        try:
            with open(path) as stream:
                ticket = json.load(stream)
            if ticket["program"] not in command:
                continue
            os.rename(path, taken)
        except FileNotFoundError:
            continue
        return ticket
    return None


def _describe(argument):
    if isinstance(argument, int):
        try:
            return os.readlink(f"/proc/self/fd/{argument}")
        except OSError:
            return f"fd {argument}"
    return os.fspath(argument)


def _install(folder, ticket):
    real = {name: getattr(os, name) for name in OPERATIONS}
    count = 0

    def point(when, operation, argument):
        nonlocal count
        count += 1
        if count != ticket["point"]:
            return
        path = str(_describe(argument))
        record = {**ticket, "when": when, "operation": operation, "path": path, "in_save": bool(SAVE.search(path))}
        descriptor = os.open(os.path.join(folder, "kills.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        real["write"](descriptor, json.dumps(record).encode() + b"\n")
        os.kill(os.getpid(), signal.SIGKILL)

    def wrap(operation):
        function = real[operation]

        def faulty(argument, *rest, **options):
            point("before", operation, argument)
            result = function(argument, *rest, **options)
            point("after", operation, argument)
            return result

        return faulty

    for operation in OPERATIONS:
        setattr(os, operation, wrap(operation))


_folder = os.environ.get("STX_FAULT_TICKETS")
if _folder:
    _ticket = _take_ticket(_folder)
    if _ticket:
        _install(_folder, _ticket)
