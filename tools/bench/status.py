"""`stx status` over 1,000 stages, 200 of them live, with no coordinator: how long a person waits for the truth.

    python tools/bench/status.py [--stages 1000] [--live 200] [--runs 7]

Must hold: under 1 s, a fresh interpreter included. The store is made here as a coordinator that was killed leaves it:
a graph, a journal of about four events per stage that ran, attempts with heartbeats, published milestones.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jobs.files import AttemptDir
from jobs.spec import JobState
from stx import records
from stx.coordinator.events import Event, Facts, Live, Observed, Opened, Policy, Surveyed
from stx.coordinator.journal import Journal
from stx.endings import Ended
from stx.paths import Store
from stx.spec import Artifact, Cost, Graph, Input, Node, StageSpec

LIMIT_S = 1.0
IMAGES = 32_000


def make_graph(stages: int) -> Graph:
    """One latents stage and a sweep of train stages over it."""
    latents = Node(name="latents", stage="latents", spec=StageSpec(kind="latents", recipe=1, science={"seed": 0}))
    nodes = [latents]
    for seed in range(stages - 1):
        science = {
            "seed": seed,
            "model": {"depth": 6, "width": 128, "heads": 4, "patch": 2},
            "lr": 3e-3,
            "global_batch": 64,
        }
        spec = StageSpec(kind="train", recipe=1, science=science, inputs={"latents": Input("latents", latents.key)})
        point = {"vanilla.seed": seed}
        nodes.append(
            Node(
                name=f"vanilla:seed={seed}",
                stage="vanilla",
                spec=spec,
                wants=(IMAGES,),
                point=point,
                cost=Cost(1e12, 1e6, 1e8),
            )
        )
    return Graph(experiment="bench", nodes=tuple(nodes))


def attempt_of(node: Node, *, store: Store) -> AttemptDir:
    folder = store.stage(node.spec.kind, node.key).attempt(1)
    folder.path.mkdir(parents=True)
    folder.intent.write_bytes(records.dumps({"tag": node.name}))
    folder.attempt.write_bytes(records.dumps({"number": 1, "layout": {"ranks": 1}}))
    return folder


def make_live(node: Node, *, store: Store) -> Facts:
    folder = attempt_of(node, store=store)
    numbers = {"images": 12_800, "total": IMAGES, "loss": 0.81, "images_per_s": 950.0}
    folder.heartbeat.write_bytes(
        records.dumps({"counter": 7, "phase": "step", "time": time.time(), "numbers": numbers})
    )
    live = Live(
        number=1, experiment="bench", host="here", launcher="local:x", reachable=True, job_id=f"{len(node.name)}:1:x"
    )
    return Facts(last=1, live=live)


def make_done(node: Node, *, store: Store) -> Facts:
    folder = attempt_of(node, store=store)
    folder.outcome(0).write_bytes(
        records.dumps({"rank": 0, "result": "COMPLETED", "cause": None, "message": "", "info": {}})
    )
    stage = store.stage(node.spec.kind, node.key)
    part = stage.part(node.spec.kind, IMAGES) if node.grows else stage.result
    part.path.mkdir(parents=True, exist_ok=True)
    images = IMAGES if node.grows else None
    part.artifact.write_bytes(records.dumps(Artifact(node.spec.kind, node.key, images, {"x": "0"}).dump()))
    ended = Ended(number=1, result="COMPLETED")
    return Facts(parts=(IMAGES,) if node.grows else (), artifact=not node.grows, last=1, ended=ended)


def make_store(root: Path, *, stages: int, live: int) -> Store:
    """A third of the rest is done, the others wait."""
    store = Store(root)
    graph = make_graph(stages)
    experiment = store.experiment("bench")
    experiment.path.mkdir(parents=True)
    experiment.graph.write_bytes(records.dumps(graph.dump()))
    policy = Policy(retries={}, backoff_s=(0.0,), queued=100, running=1000, stop_lead_s=90.0)
    now = 1.0
    events: list[Event] = [Opened(now=now, clock="bench", token=1, policy=policy, facts={})]
    done_until = 1 + live + (stages - live) // 3
    for place, node in enumerate(graph.nodes):
        if place == 0 or live < place <= done_until:
            facts = make_done(node, store=store)
            started = Facts(last=1, live=make_handle())
            events += [
                Surveyed(now, node.key, started),
                Observed(now, node.key, 1, JobState.RUNNING),
                Surveyed(now, node.key, facts),
            ]
        elif place <= live:
            facts = make_live(node, store=store)
            events += [Surveyed(now, node.key, facts), Observed(now, node.key, 1, JobState.PENDING)]
            events += [Observed(now, node.key, 1, JobState.RUNNING)]
    Journal(experiment, 1).append(events)
    return store


def make_handle() -> Live:
    return Live(number=1, experiment="bench", host="here", launcher="local:x", reachable=True, job_id="1:1:x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=1000)
    parser.add_argument("--live", type=int, default=200)
    parser.add_argument("--runs", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stx-bench-") as folder:
        store = make_store(Path(folder), stages=asked.stages, live=asked.live)
        times = []
        for _ in range(asked.runs):
            begin = time.perf_counter()
            argv = [sys.executable, "-m", "stx.cli", "status", "bench", "--store", str(store.root)]
            done = subprocess.run(argv, capture_output=True, text=True, check=True)
            times.append(time.perf_counter() - begin)
        print(done.stdout.splitlines()[0])
    median = statistics.median(times)
    print(
        f"status of {asked.stages:,} stages, {asked.live} live: median {median:.3f} s of {asked.runs} runs", end="   "
    )
    print(f"must: under {LIMIT_S} s   {'ok' if median < LIMIT_S else 'TOO SLOW'}")


if __name__ == "__main__":
    main()
