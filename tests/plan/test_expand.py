# ruff: noqa: E501 - tables of bad input, one case a line
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stx import plan
from stx.config.cluster import Cluster
from stx.config.load import load_experiment
from stx.spec import Graph, Input

COMMANDS = """\
name: chain
stages:
  one: {kind: command, argv: [a], sweep: {seed: [0, 1]}}
  two: {kind: command, argv: [b], inputs: {up: one}}
  three: {kind: command, argv: [c], inputs: {up: one, left: two}}
  four: {kind: command, argv: [d], inputs: {three: three, two: two}, sweep: {seed: [5, 6]}}
"""


def test_the_small_experiment_has_the_nodes_its_file_describes(expand):
    planned = expand()
    assert list(planned.nodes) == [
        "images",
        "vae",
        "latents",
        "judge",
        "vanilla:seed=0",
        "vanilla:seed=1",
        "phase1",
        "teacher",
        "features",
        "phase2:guidance=5,seed=0",
        "phase2:guidance=30,seed=0",
        "samples:vanilla:seed=0",
        "samples:vanilla:seed=1",
        "samples:phase1",
        "samples:phase2:guidance=5,seed=0",
        "samples:phase2:guidance=30,seed=0",
        "scores:vanilla:seed=0",
        "scores:vanilla:seed=1",
        "scores:phase1",
        "scores:phase2:guidance=5,seed=0",
        "scores:phase2:guidance=30,seed=0",
    ]
    assert planned["phase2:guidance=5,seed=0"].point == {"alignment.guidance": 5.0, "seed": 0}
    assert planned["scores:phase2:guidance=30,seed=0"].point == {"phase2.alignment.guidance": 30.0, "phase2.seed": 0}
    assert planned.graph.report["series"] == ["vanilla", "phase1", "phase2"]


def test_wants_are_images_seen_and_follow_the_run(expand):
    planned = expand()
    assert planned["vanilla:seed=0"].wants == (160, 320)
    assert planned["samples:vanilla:seed=0"].wants == (160, 320)
    assert planned["scores:vanilla:seed=0"].wants == (160, 320)
    assert planned["images"].wants == ()


def test_a_sample_stage_may_want_the_last_or_some_milestones(expand, small):
    assert expand(small, ("num_samples: 20", "num_samples: 20, at: last"))["scores:phase1"].wants == (320,)
    assert expand(small, ("num_samples: 20", "num_samples: 20, at: [20]"))["scores:phase1"].wants == (160,)


def test_consumers_of_a_milestone_hash_its_count_and_others_do_not(expand):
    planned = expand()
    assert planned["teacher"].spec.inputs == {"run": Input("train", planned["phase1"].key, 320)}
    assert planned["samples:phase1"].spec.inputs["run"] == Input("train", planned["phase1"].key, None)
    assert set(planned["samples:phase1"].spec.inputs) == {"run", "latents", "autoencoder"}


def test_raising_steps_keeps_the_trajectories_and_moves_what_depends_on_the_end(expand, small):
    before, after = expand(), expand(small, ("steps: 40", "steps: 80"))
    same = {name for name in before.nodes if before[name].key == after[name].key}
    assert {"vanilla:seed=0", "phase1", "samples:vanilla:seed=0", "scores:phase1", "latents"} <= same
    assert not {"teacher", "features", "phase2:guidance=5,seed=0"} & same


def test_changing_the_guidance_moves_phase_2_only(expand, small):
    before, after = expand(), expand(small, ("guidance: 5", "guidance: 10"))
    same = {node.key for node in before.graph.nodes} & {node.key for node in after.graph.nodes}
    moved = [name for name, node in before.nodes.items() if node.key not in same]
    assert moved == [f"{head}phase2:guidance=5,seed=0" for head in ("", "samples:", "scores:")]


def test_keys_do_not_depend_on_order_or_cluster_or_where_options(expand, tmp_path):
    def reordered(value):
        return {key: reordered(value[key]) for key in sorted(value, reverse=True)} if isinstance(value, dict) else value

    first = expand()
    experiment = load_experiment(tmp_path / "e.yaml")
    text = json.dumps(reordered(dict(experiment.source.tree)))
    cluster = Cluster.model_validate({"stages": {"train": {"ranks": 2, "noise_on": "device"}}})
    second = expand(text, sets=["defaults.train.log_every=7"], cluster=cluster)
    assert {node.key for node in first.graph.nodes} == {node.key for node in second.graph.nodes}


def test_a_graph_reads_back_from_json(expand):
    graph = expand().graph
    assert Graph.parse(json.loads(json.dumps(graph.dump()))).dump() == graph.dump()


def test_inputs_come_before_their_consumers_in_whatever_order_the_file_has_them(expand):
    head, stages = COMMANDS.split("stages:\n")
    nodes = expand(head + "stages:\n" + "\n".join(reversed(stages.splitlines()))).graph.nodes
    seen = set()
    for node in nodes:
        assert all(source.key in seen for source in node.spec.inputs.values())
        seen.add(node.key)


def test_shared_ancestors_are_joined_and_others_crossed(expand):
    planned = expand(COMMANDS)
    assert [name for name in planned.nodes if name.startswith(("three", "four"))] == [
        "three:one.seed=0",
        "three:one.seed=1",
        "four:one.seed=0,seed=5",
        "four:one.seed=1,seed=5",
        "four:one.seed=0,seed=6",
        "four:one.seed=1,seed=6",
    ]
    for seed in (0, 1):
        three = planned[f"three:one.seed={seed}"]
        assert three.spec.inputs["inputs.up"].key == planned[f"one:seed={seed}"].key
        assert three.spec.inputs["inputs.left"].key == planned[f"two:one.seed={seed}"].key
    assert planned["four:one.seed=1,seed=6"].point == {"seed": 6, "one.seed": 1}


def test_teacher_and_features_of_one_phase_1_seed_never_meet_those_of_another(expand, small):
    planned = expand(small, ("seed: 100, ", "sweep: {seed: [100, 101, 102]}, "))
    students = [node for node in planned.graph.nodes if node.stage == "phase2"]
    assert len(students) == 3 * 2
    for node in students:
        seed = node.point["phase1.seed"]
        assert node.spec.inputs["alignment.teacher"].key == planned[f"teacher:phase1.seed={seed}"].key
        assert node.spec.inputs["alignment.features"].key == planned[f"features:phase1.seed={seed}"].key
        assert f"phase2:phase1.seed={seed},guidance=" in node.name
    assert "samples:phase2:phase1.seed=101,guidance=5,seed=0" in planned.nodes
    assert "samples:phase1:seed=102" in planned.nodes


def test_a_swept_sample_stage_has_a_node_for_each_run_and_point(expand, small):
    planned = expand(small, ("num_samples: 20", "num_samples: 20, sweep: {sampler.guidance: [1, 2.5]}"))
    assert "samples:phase1:guidance=2.5" in planned.nodes
    assert "scores:vanilla:seed=0:samples.guidance=1" in planned.nodes
    assert planned["scores:phase1:samples.guidance=2.5"].point == {"samples.sampler.guidance": 2.5}


def test_inputs_and_methods_can_be_swept(expand, small):
    planned = expand(
        small,
        ("  teacher:", "  later: {kind: freeze, run: phase1, weights: ema}\n  teacher:"),
        ("features: features, ", ""),
        ("sweep: [{seed: 0}, {alignment.guidance: 30, seed: 0}]", "sweep: {alignment.teacher: [teacher, later]}"),
    )
    assert planned["phase2:teacher=later"].spec.inputs["alignment.teacher"].key == planned["later"].key
    swept = expand(
        small, ("{seed: [0, 1]}", "[{alignment: {method: none}}, {alignment: {method: velocity_head, head_block: 1}}]")
    )
    assert len([node for node in swept.graph.nodes if node.stage == "vanilla"]) == 2


def test_the_longest_chain_has_the_largest_priority(expand):
    planned = expand()
    assert planned["phase1"].priority > planned["vanilla:seed=0"].priority
    for node in planned.graph.nodes:
        for source in node.spec.inputs.values():
            assert next(n for n in planned.graph.nodes if n.key == source.key).priority > node.priority


@given(
    one=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    four=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
)
def test_every_input_agrees_with_its_consumer_on_all_shared_points(one, four, tmp_path_factory):
    path = tmp_path_factory.mktemp("joined") / "e.yaml"
    path.write_text(COMMANDS.replace("[0, 1]", "ONE").replace("[5, 6]", str(four)).replace("ONE", str(one)))
    graph = plan.expand(load_experiment(path), Cluster())
    by_key = {node.key: node for node in graph.nodes}
    assert len({node.name for node in graph.nodes}) == len(graph.nodes) == 3 * len(one) + len(one) * len(four)
    for node in graph.nodes:
        for source in node.spec.inputs.values():
            theirs = by_key[source.key]
            for path_, value in theirs.point.items():
                swept = path_ if path_.startswith("one.") else f"{theirs.stage}.{path_}"
                assert node.point[swept] == value


def test_external_files_are_in_the_key_by_their_version_only(expand, tmp_path):
    text = "name: e\nstages:\n  a: {kind: command, argv: [x], inputs: {data: {path: PATH, version: VERSION}}}\n"
    first = expand(text, ("PATH", "one"), ("VERSION", "v1"))["a"]
    moved = expand(text, ("PATH", "/two"), ("VERSION", "v1"))["a"]
    other = expand(text, ("PATH", "one"), ("VERSION", "v2"))["a"]
    assert first.key == moved.key != other.key
    assert first.where["inputs"] == {"data": str(tmp_path / "one")}
    assert moved.where["inputs"] == {"data": "/two"}


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("milestones: [20]", "milestnes: [20]", ":3: defaults.train.milestnes = [20]", 'did you mean "milestones"'),
        ("kind: freeze", "kind: freze", ":11: stages.teacher.kind = freze", 'did you mean "freeze"?'),
        ("velocity_head", "velocty_head", ":10: stages.phase1.alignment.method = velocty_head", 'did you mean "velocity_head"'),
        ("run: phase1", "run: fase1", ":11: stages.teacher.run = fase1", 'did you mean "phase1"?'),
        ("teacher: teacher, feat", "teacher: latents, feat", ":16: stages.phase2.alignment.teacher = latents", 'expects a stage of kind freeze, "latents" is of kind latents'),
        ("global_batch: 8", "global_batch: '8'", ':3: defaults.train.global_batch = "8"', "must be a whole number"),
        ("guidance: 5}", "guidance: .inf}", ":16: stages.phase2.alignment.guidance = .inf", "finite"),
        ("guidance: 5}", "guidance: high}", ":16: stages.phase2.alignment.guidance = high", "must be a number"),
        ("guidance: 30", "guidence: 30", ":17: stages.phase2.sweep[1].alignment.guidence = 30", 'did you mean "guidance"'),
        ("alignment.guidance: 30", "algnment.guidance: 30", ":17: stages.phase2.sweep[1].algnment.guidance = 30", 'did you mean "alignment"'),
        ("alignment.guidance: 30", "alignment.guidance: hot", ":17: stages.phase2.sweep[1].alignment.guidance = hot", "must be a number"),
        ("alignment.guidance: 30", "alignment.guidance: 5", ":17: stages.phase2.sweep", "two points are guidance=5,seed=0"),
        ("{seed: [0, 1]}", "{seed: [0, 0]}", ":9: stages.vanilla.sweep", "two points are seed=0"),
        ("[vanilla, phase1,", "[vanilla, vanilla,", ":18: stages.samples.runs[1] = vanilla", "named twice"),
        ("[vanilla, phase1,", "[vanilla, latents,", ":18: stages.samples.runs[1] = latents", "expects a stage of kind train"),
        ("runs: [vanilla, phase1, phase2]", "runs: []", ":18: stages.samples.runs = []", "at least 1"),
        ("defaults:\n", "defaults:\n  trian: {steps: 3}\n", ":3: defaults.trian", 'did you mean "train"'),
        ("defaults:\n", "defaults:\n  command: {agv: [a]}\n", ":3: defaults.command.agv = [a]", 'did you mean "argv"'),
        ("stages:\n", "report: {y: fid}\nstages:\n", ":4: report.y = fid", "no such score"),
        ("stages:\n", "report: {x: [time]}\nstages:\n", ":4: report.x[0] = time", "known: images_seen, total_compute, gpu_hours"),
        ("stages:\n", "report: {series: [latents]}\nstages:\n", ":4: report.series[0] = latents", "no train stage"),
        ("stages:\n", "report: {z: 3}\nstages:\n", ":4: report.z = 3", "no such option"),
    ],
)  # fmt: skip
def test_bad_input_names_file_line_option_value_and_what_would_be_valid(refused, small, old, new, place, words):
    message = refused(small, (old, new))
    assert place in message
    assert words in message


def test_a_cycle_is_drawn(refused):
    text = "name: e\nstages:\n"
    for name, other in ("ab", "bc", "ca"):
        text += f"  {name}: {{kind: command, argv: [x], inputs: {{up: {other}}}}}\n"
    assert "a -> b -> c -> a" in refused(text)
    assert "a -> a" in refused("name: e\nstages:\n  a: {kind: command, argv: [x], inputs: {up: a}}\n")


def test_all_wrong_stages_are_reported_and_shared_errors_once(refused, small):
    message = refused(
        small,
        ("milestones: [20]", "milestones: [20], lr: -1"),
        ("[frechet_distance]", "[fid]"),
        ("source: mnist5k", "source: mnist"),
    )
    assert message.count("defaults.train.lr = -1") == 1
    assert "stages.scores.metrics[0] = fid" in message
    assert "stages.images.source = mnist" in message


def test_an_error_of_a_set_names_the_set(refused):
    assert refused(sets=["stages.phase2.alignment.teacher_block=31"]).startswith(
        "--set stages.phase2.alignment.teacher_block=31\n  the teacher SiT-Mu/2 has 2 blocks, so teacher_block must be in 1..2"
    )


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[2] / "configs").glob("*.yaml")), ids=lambda file: file.name
)
def test_every_experiment_that_is_shipped_can_be_planned(file):
    assert plan.expand(load_experiment(file), Cluster()).nodes


def test_a_wide_sweep_is_planned_in_linear_time(expand, small):
    seeds = list(range(300))
    planned = expand(small, ("{seed: [0, 1]}", f"{{seed: {seeds}}}"))
    assert len([node for node in planned.graph.nodes if node.stage == "scores"]) == 303
