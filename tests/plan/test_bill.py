import pytest

from stx import plan, records
from stx.config.cluster import Cluster
from stx.paths import Store
from stx.spec import Artifact


@pytest.fixture
def bill(tmp_path):
    def bill(planned, cluster=None):
        seen = plan.survey(planned.graph, Store(tmp_path / "store"))
        return plan.bill(planned.graph, plan.lines(planned.graph, seen), cluster or Cluster(), seen=seen)

    return bill


def finish(tmp_path, node, images=None, **info):
    stage = Store(tmp_path / "store").stage(node.spec.kind, node.key)
    part = stage.result if images is None else stage.part(node.spec.kind, images)
    part.path.mkdir(parents=True)
    records.write(part.artifact, Artifact(node.spec.kind, node.key, images, {}, info).dump())
    return stage


def row(found, stage):
    return next(row for row in found.rows if row.stage == stage)


def test_rows_are_stages_of_the_file_and_sum_up(expand, bill):
    planned = expand()
    found = bill(planned)
    assert [row.stage for row in found.rows] == list(dict.fromkeys(node.stage for node in planned.graph.nodes))
    vanilla = row(found, "vanilla")
    assert (vanilla.nodes, vanilla.todo, vanilla.steps, vanilla.images) == (2, 2, 80, 640)
    assert vanilla.epochs == pytest.approx(640 / 4500)
    assert found.total.flops == pytest.approx(sum(node.cost.flops for node in planned.graph.nodes))
    assert found.total.bytes == pytest.approx(sum(node.cost.bytes for node in planned.graph.nodes))
    assert vanilla.hours is None and found.total.hours is None


def test_hours_come_from_the_cluster_file_and_say_so(expand, bill):
    cluster = Cluster.model_validate({"stages": {"default": {"flops_per_s": 1e9}, "train": {"ranks": 2}}})
    found = bill(expand(), cluster)
    assert row(found, "vanilla").hours == pytest.approx(row(found, "vanilla").flops / 2e9 / 3600)
    assert found.basis["train"] == "flops_per_s of cluster local"
    assert found.total.hours == pytest.approx(sum(r.hours or 0 for r in found.rows))


def test_hours_are_rather_measured_on_what_is_finished(expand, bill, tmp_path):
    planned = expand()
    node = planned["vanilla:seed=0"]
    finish(tmp_path, node, 160, seconds=5.0)
    finish(tmp_path, node, 320, seconds=10.0)
    found = bill(planned, Cluster.model_validate({"stages": {"default": {"flops_per_s": 1e9}}}))
    assert found.basis["train"] == "measured on 1 finished train stage of the store"
    assert row(found, "vanilla").todo == 1
    assert row(found, "vanilla").hours == pytest.approx(10 / 3600)


def test_what_an_interrupted_stage_had_already_is_not_in_its_rate(expand, bill, tmp_path):
    planned = expand()
    finish(tmp_path, planned["features"], seconds=4.0, rows_made=100, rows_found=300)
    finish(tmp_path, planned["latents"], seconds=1.0, rows_made=10, rows_found=0)
    assert set(bill(planned).basis) == {"features", "latents"}


def test_only_what_is_left_is_billed(expand, bill, tmp_path):
    planned = expand()
    before = row(bill(planned), "phase1")
    stage = finish(tmp_path, planned["phase1"], 160, seconds=1.0)
    (stage.checkpoints / "240-001").mkdir(parents=True)
    after = row(bill(planned), "phase1")
    assert after.flops == pytest.approx(before.flops / 4)
    assert (after.images, after.steps) == (80, 10)
    finish(tmp_path, planned["samples:phase1"], 160, seconds=1.0)
    assert row(bill(planned), "samples").flops == pytest.approx(planned["samples:phase1"].cost.flops * 4.5)


def test_both_bills_of_the_teacher_are_shown(expand, bill, small):
    cached = bill(expand()).teachers
    online = bill(expand(small, ("features: features, ", ""))).teachers
    assert len(cached) == len(online) == 1
    assert (cached[0].teacher, cached[0].runs, cached[0].cached, cached[0].draws) == ("teacher", 2, True, 4)
    assert (online[0].runs, online[0].cached, online[0].draws) == (2, False, 4)
    assert cached[0].online_flops == pytest.approx(online[0].online_flops)
    assert cached[0].cache_flops == pytest.approx(online[0].cache_flops)
    assert cached[0].cache_bytes == pytest.approx(online[0].cache_bytes)


def test_one_key_is_paid_once(expand, bill, small):
    found = bill(expand(small + "  twin: {kind: latents, images: images, autoencoder: vae}\n"))
    assert row(found, "twin").flops == 0
    assert (row(found, "twin").nodes, row(found, "twin").todo) == (1, 0)


def test_every_distinct_network_is_checked_once(expand):
    shapes = plan.shapes(expand().graph)
    assert [(shape["alignment"]["method"], shape["cached"]) for shape in shapes] == [
        ("none", False),
        ("velocity_head", False),
        ("guided_teacher", True),
    ]
    assert shapes[2]["teacher_shape"] == shapes[0]["shape"]


def test_points_that_share_a_run_are_billed_once_and_to_the_end_of_the_longer(expand, bill, small):
    found = bill(expand(small, ("sweep: {seed: [0, 1]}", "sweep: {steps: [40, 80]}")))
    vanilla = row(found, "vanilla")
    assert (vanilla.nodes, vanilla.todo, vanilla.steps, vanilla.images) == (2, 1, 80, 640)
