"""The graph in the report: folded by stage, coloured by what the directories say."""

import time
from typing import Any

from stx.report.collect import collect
from stx.report.facts import Facts
from stx.report.stage_graph import folded
from stx.spec import Input


def test_a_sweep_is_one_box(facts: Facts) -> None:
    picture = folded(facts)
    boxes = {box.name: box for box in picture.boxes}
    assert list(boxes) == [
        "images",
        "vae",
        "vanilla",
        "samples",
        "scores",
        "phase1",
        "teacher",
        "features",
        "phase2",
    ]
    assert boxes["phase2"].words == "train x 4 \u00b7 2.0 min"
    assert boxes["phase2"].title == "phase2: train, 4 done"


def test_edges_that_a_longer_way_implies_are_left_out(world: Any) -> None:
    first = world.add("first", "images")
    second = world.add("second", "autoencoder", inputs={"images": Input("images", first.key)})
    inputs = {"images": Input("images", first.key), "autoencoder": Input("autoencoder", second.key)}
    world.add("third", "latents", inputs=inputs)
    world.save()
    assert len(folded(collect(world.store, world.experiment)).edges) == 2


def test_the_bar_of_a_box_says_how_many_are_in_which_state(world: Any) -> None:
    for number, result in enumerate(["COMPLETED", "FAILED", None, "YIELDED"]):
        node = world.add(f"run:seed={number}", "command", stage="run")
        if result == "COMPLETED":
            world.finish(node, files={"payload/x": b""})
        if result:
            world.attempt(node, result=result)
    live = world.add("run:seed=9", "command", stage="run")
    world.attempt(live)
    world.store.stage("command", live.key).attempt(1).outcome(0).unlink()
    world.save()
    (box,) = folded(collect(world.store, world.experiment)).boxes
    assert box.title == "run: command, 1 done, 1 live, 1 failed, 2 open"
    assert box.state == "failed"
    assert sum(width for _, _, width in box.bar) == 142.0


def test_a_sweep_of_thousands_is_drawn_at_once(world: Any) -> None:
    images = world.add("images", "images")
    for number in range(3000):
        inputs = {"latents": Input("images", images.key)}
        world.add(f"run:seed={number}", "train", stage="run", science={"seed": number}, inputs=inputs)
    world.save()
    facts = collect(world.store, world.experiment)
    began = time.process_time()
    picture = folded(facts)
    assert time.process_time() - began < 1.0
    assert [box.words for box in picture.boxes] == ["images", "train x 3,000"]
