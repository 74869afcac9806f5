"""Writers and readers of checkpoints: groups of 1, 2 and 4 gloo ranks, each of which plays many attempts.

    players.py TASKS        {"<W>": [["write", <attempt folder>], ["read", <attempt folder>, <the writer's>], ...], ...}

A writer trains, saves, tells what it has and goes on; a reader restores, tells what it has and goes on. What each told
is `told.json` in its attempt folder:

    state     sha256 by "<section>/<name>" of every section, gathered here from the ranks' parts, and Adam's step
    working   sha256 by name of the weights that the network uses, gathered by DeepSpeed before a forward pass
    cast      sha256 by name of the masters, cast to the type of the working weights
    losses    of the next steps, by images seen
    rows      sha256 by n of everything the n-th image brings: sample, latents, noise, t, label, dropped label, window

Importing takes longest, so one process imports and forks all ranks. DeepSpeed makes engine after engine in each.
"""

import hashlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

import deepspeed
import torch
from deepspeed.runtime import torch_autocast

from stx import records
from stx.worker import attempt as attempts
from stx.worker import ranks, train

BEFORE, AFTER = 7, 20
ROW = ("samples", "latents", "noise", "t", "labels", "dropped_labels", "in_window")


def digest(tensor):
    return hashlib.sha256(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def state_of(loop, group):
    """Every section of every parameter, whole; fails where the ranks' parts overlap or leave a gap."""
    parts = [[one.section, one.name, one.offset, one.values.tolist()] for one in loop.partition.written()]
    held = {}
    for section, name, offset, values in sorted(part for rank in group.gather(parts) for part in rank):
        whole = held.setdefault((section, name), [])
        assert len(whole) == offset, f"{section}/{name} has {len(whole)} elements before the part at {offset}"
        whole += values
    shapes = {name: list(shape) for name, shape in loop.partition.shapes.items()}
    whole = {key: torch.tensor(values, dtype=torch.float32) for key, values in held.items()}
    assert all(one.numel() == torch.Size(shapes[name]).numel() for (_, name), one in whole.items())
    return whole


def working_of(loop):
    """The weights as the network uses them; ZeRO 3 has them in parts."""
    named = {name: one for name, one in loop.engine.module.named_parameters() if one.requires_grad}
    with deepspeed.zero.GatheredParameters(list(named.values())):
        return {name: one.detach().clone() for name, one in named.items()}


def seen(loop, group):
    """What `told.json` says of the state."""
    whole, working = state_of(loop, group), working_of(loop)
    assert group.agree({name: digest(one) for name, one in working.items()}) == {
        n: digest(w) for n, w in working.items()
    }
    return {
        "state": {f"{section}/{name}": digest(one) for (section, name), one in whole.items()}
        | {"updates": loop.partition.updates},
        "working": {name: digest(one) for name, one in working.items()},
        "cast": {name: digest(whole["master", name].to(one.dtype)) for name, one in working.items()},
    }


def rows_of(batches):
    told = {}
    for batch in batches:
        for row in range(len(batch.samples)):
            content = [digest(getattr(batch, field)[row : row + 1]) for field in ROW]
            told[batch.first + row] = hashlib.sha256("".join(content).encode()).hexdigest()
    return told


def steps(loop, group, *, count):
    """Train so many steps; what they brought and what they lost."""
    rows, first = [], loop.progress.images
    with loop.loader.batches(first) as prepared:
        for _, batches in zip(range(count), prepared, strict=False):
            rows += [list(pair) for pair in rows_of(batches).items()]
            loop.step(batches)
    every = sorted(pair for rank in group.gather(rows) for pair in rank)
    assert [n for n, _ in every] == list(range(first, loop.progress.images)), "every n is trained once"
    lines = records.read_lines(loop.attempt.folder.metrics)
    losses = {line["images"]: line["loss"] for line in lines if line["images"] > first}
    return {"rows": dict(every), "losses": losses}


def play(group, what, folder):
    torch_autocast.TORCH_AUTOCAST_INITIALIZED = False  # a worker makes one engine, this process many
    attempt = attempts.parse(Path(folder))
    loop = train.start(attempt, group)
    if what == "write":
        steps(loop, group, count=BEFORE)
        loop.save()
    told = seen(loop, group)
    told |= steps(loop, group, count=AFTER)
    if group.rank == 0:
        records.write(Path(folder, "told.json"), told)


def rank(tasks, *, number, world):
    """One rank of one group."""
    own = {"RANK": number, "WORLD_SIZE": world, "LOCAL_RANK": number, "LOCAL_WORLD_SIZE": world}
    os.environ |= {name: str(value) for name, value in own.items()}
    torch.set_num_threads(1)
    with ranks.process_group(attempts.parse(Path(tasks[0][1]))) as group:
        for what, folder, *writer in tasks:
            while writer and not Path(writer[0], "told.json").exists():
                time.sleep(0.02)
            play(group, what, folder)


def main():
    tasks = json.loads(Path(sys.argv[1]).read_text())
    children = {}
    for world, listed in tasks.items():
        for number in range(int(world) if listed else 0):
            child = os.fork()
            if child == 0:
                try:
                    rank(listed, number=number, world=int(world))
                except Exception:  # noqa: BLE001 (told on standard error, and by the code)
                    traceback.print_exc()
                    os._exit(1)
                sys.stdout.flush()
                os._exit(0)
            children[child] = f"rank {number} of {world}"
    while children:
        child, status = os.wait()
        who = children.pop(child)
        if status:
            for other in children:
                os.kill(other, 9)
            sys.exit(f"{who} ended with {status}")


if __name__ == "__main__":
    main()
