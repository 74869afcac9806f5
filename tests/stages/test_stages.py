# ruff: noqa: E501 - tables of bad input, one case a line
"""What each kind refuses and derives; keys and names are in tests/plan."""

from pathlib import Path

import pytest

from stx import sizes
from stx.config.cluster import Cluster
from stx.errors import ConfigError, PlanError
from stx.sizes import LatentShape, parse_model
from stx.stages import base, command, train

LATENT = LatentShape(channels=4, size=8, num_classes=10)
MU = parse_model("SiT-Mu/2")


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("resolution: 32", "resolution: 31", ":5: stages.images.resolution = 31", "valid: 28, 30, 32"),
        ("resolution: 32", "resolution: 26", ":5: stages.images.resolution = 26", "padded equally"),
        ("held_out: 500", "held_out: 505", ":5: stages.images.held_out = 505", "a multiple of 10 below 5000"),
        ("held_out: 500", "held_out: 5000", ":5: stages.images.held_out = 5000", "below 5000"),
        ("{kind: autoencoder, images: images}", "{kind: autoencoder, images: images, channels: [8, 8, 8, 8, 8, 8, 8]}", ":6: stages.vae.channels", "divide the resolution by 64"),
        ("autoencoder: vae}", "autoencoder: vae, shard: 100}", ":7: stages.latents.shard = 100", "whole chunks of batch = 64"),
        ("judge: {kind: classifier, images: images}", "judge: {kind: classifier, images: images, channels: [1, 1, 1, 1, 1, 1, 1]}", ":8: stages.judge.channels", "to nothing"),
        ("SiT-Mu/2", "SiT-Mu/3", ":3: defaults.train.model = SiT-Mu/3", "patch 3 is not one of 1, 2, 4, 8"),
        ("precision: fp32", "precision: fp16", ":3: defaults.train.precision = fp16", "known: fp32, bf16_autocast, bf16_weights"),
        ("precision: fp32", "precision: fp32, ema_decay: [0.9, 1.0]", ":3: defaults.train.ema_decay = [0.9, 1.0]", "below 1"),
        ("precision: fp32", "precision: fp32, ema_decay: [0.9, 0.9]", ":3: defaults.train.ema_decay = [0.9, 0.9]", "twice"),
        ("num_samples: 20", "num_samples: 20, ema_decay: 0.9", ":18: stages.samples.ema_decay = 0.9", "keeps no EMA of this decay\n  valid: 0.9999"),
        ("run: phase1}", "run: phase1, ema_decay: 0.9999}", ":11: stages.teacher.ema_decay = 0.9999", "raw weights have no decay"),
        ("milestones: [20]", "milestones: [30, 20]", ":3: defaults.train.milestones = [30, 20]", "ascending"),
        ("milestones: [20]", "milestones: [60]", ":3: defaults.train.milestones = [60]", "beyond the run's 40 steps"),
        ("milestones: [20]", "milestones: [0]", ":3: defaults.train.milestones[0] = 0", "above 0"),
        ("steps: 40", "steps: 0", ":3: defaults.train.steps = 0", "above 0"),
        ("steps: 40", "t_distribution: lognormal, steps: 40", ":3: defaults.train.t_distribution = lognormal", "was made with t_distribution = uniform"),
        ("steps: 40", "t_distribution: stratified, steps: 40", "t_distribution = stratified", "uniform, lognormal"),
        ("seed: 100, alignment", "seed: 100, interpolant: cosine, alignment", ":16: stages.phase2.alignment.teacher = teacher", "learned the cosine interpolant, this run has the linear one"),
        ("run: phase1}", "checkpoint: sit.st, version: v1, model: SiT-Mu/2, interpolant: cosine}", ":16: stages.phase2.alignment.teacher = teacher", "learned the cosine interpolant"),
        ("run: phase1}", "run: phase1, interpolant: cosine}", ":11: stages.teacher.interpolant = cosine", "frozen from phase1"),
        ("head_block: 1", "head_block: 3", ":10: stages.phase1.alignment.head_block = 3", "has 2 blocks, so head_block must be in 1..2"),
        ("head_block: 1", "head_block: 0", ":10: stages.phase1.alignment.head_block = 0", "above 0"),
        ("head_block: 1", "head_block: 1, window: [0.7, 0.4]", "stages.phase1.alignment.window = [0.7, 0.4]", "low < high"),
        ("head_block: 1", "head_block: 1, guidance: 3", "stages.phase1.alignment.guidance = 3", "no such option"),
        ("{method: velocity_head, head_block: 1}", "{head_block: 1}", "stages.phase1.alignment.method", "known: guided_teacher, none, velocity_head"),
        ("{method: velocity_head, head_block: 1}", "3", "stages.phase1.alignment = 3", "a mapping with a method"),
        ("student_block: 1", "student_block: 9", ":16: stages.phase2.alignment.student_block = 9", "1..2"),
        ("teacher_block: 2, guidance", "teacher_block: 9, guidance", ":16: stages.phase2.alignment.teacher_block = 9", "the teacher SiT-Mu/2 has 2 blocks"),
        ("teacher_block: 2, guidance", "teacher_block: 1, guidance", ":16: stages.phase2.alignment.teacher_block = 1", "the cache features was made with teacher_block = 2"),
        ("guidance: 5}", "guidance: 5, window: [0.4, 0.8]}", ":16: stages.phase2.alignment.window = [0.4, 0.8]", "was made with window = [0.4, 0.7]"),
        ("guidance: 5}", "guidance: 5, window_reduction: released}", "window_reduction = released", "remove features"),
        ("guidance: 5}", "guidance: -1}", "guidance = -1", "at least 0"),
        ("  phase2:\n    kind: train\n", "  phase2:\n    kind: train\n    model: SiT-Ti/2\n", ":17: stages.phase2.alignment.teacher = teacher", "has width 32"),
        ("  phase2:\n    kind: train\n", "  phase2:\n    kind: train\n    model: {depth: 2, width: 32, heads: 2, patch: 4}\n", "alignment.teacher = teacher", "has patch 2"),
        ("teacher_block: 2}", "teacher_block: 7}", ":12: stages.features.teacher_block = 7", "1..2"),
        ("teacher_block: 2}", "teacher_block: 2, draws: 3, shard: 10}", ":12: stages.features.shard = 10", "10 x 3 rows"),
        ("run: phase1}", "run: phase1, at: 30}", ":11: stages.teacher.at = 30", "its milestones and its end: 20, 40"),
        ("run: phase1}", "run: phase1, at: first}", ":11: stages.teacher.at = first", "must be last, or a milestone"),
        ("run: phase1}", "run: phase1, version: a}", ":11: stages.teacher.version = a", "frozen from phase1"),
        ("{kind: freeze, run: phase1}", "{kind: freeze}", ":11: stages.teacher", "from a run or from a checkpoint"),
        ("{kind: freeze, run: phase1}", "{kind: freeze, checkpoint: a.pt}", ":11: stages.teacher", "a checkpoint file needs version"),
        ("num_samples: 20", "num_samples: 20, at: [30]", ":18: stages.samples.at = [30]", "step 30 is no milestone of vanilla"),
        ("num_samples: 20", "num_samples: 20, at: some", ":18: stages.samples.at = some", "all, last, or a list"),
        ("num_samples: 20", "num_samples: 20, sampler: {solver: dpm}", ":18: stages.samples.sampler.solver = dpm", "euler, heun, sde"),
        ("num_samples: 20", "num_samples: 20, sampler: {solver: heun, last_step: 0.04}", ":18: stages.samples.sampler.last_step = 0.04", "heun goes to 0 in equal steps"),
        ("num_samples: 20", "num_samples: 20, sampler: {interval: [0, 0.65]}", ":18: stages.samples.sampler.interval = [0, 0.65]", "where guidance acts, and there is none"),
        ("num_samples: 20", "num_samples: 20, sampler: {solver: sde, steps: 1}", ":18: stages.samples.sampler.steps = 1", "at least 2: one to last_step"),
        ("num_samples: 20", "num_samples: 20, sampler: {solver: sde, last_step: 1}", ":18: stages.samples.sampler.last_step = 1", "below 1"),
        ("num_samples: 20", "num_samples: 20, labels: shuffled", ":18: stages.samples.labels = shuffled", "balanced, random"),
        ("num_samples: 20", "batch: 3", ":18: stages.samples.num_samples", "is required"),
        ("[frechet_distance]", "[frechet_distance, frechet_distance]", ":19: stages.scores.metrics", "named twice"),
        ("[frechet_distance]", "[]", ":19: stages.scores.metrics", "at least 1"),
        ("extractor: {classifier: judge}", "extractor: {clasifier: judge}", ":19: stages.scores.extractor.clasifier", 'did you mean "classifier"'),
        ("extractor: {classifier: judge}, ", "", ":19: stages.scores.extractor", "is required"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_at_its_place(refused, small, old, new, place, words):
    message = refused(small, (old, new))
    assert place in message
    assert words in message


def test_a_cache_of_other_latents_or_another_teacher_is_refused(refused, small):
    other = "  other: {kind: latents, images: images, autoencoder: vae, seed: 9}\n  features:"
    message = refused(
        small, ("  features:", other), ("teacher: teacher, latents: latents,", "teacher: teacher, latents: other,")
    )
    assert "the teacher teacher was trained on latents, not on other" in message
    later = "  later: {kind: freeze, run: phase1, weights: ema}\n  features:"
    message = refused(
        small,
        ("  features:", later),
        ("features: {kind: features, teacher: teacher", "features: {kind: features, teacher: later"),
    )
    assert "the cache features was made with later, this run has teacher" in message


def test_an_external_teacher_takes_its_shape_from_its_options(expand, small):
    planned = expand(small, ("run: phase1", "checkpoint: sit.pt, version: v1, model: SiT-Mu/2"))
    assert planned["teacher"].spec.inputs == {}
    assert planned["teacher"].spec.science["model"] == {"depth": 2, "width": 32, "heads": 2, "patch": 2}
    assert Path(planned["teacher"].where["checkpoint"]).is_absolute()
    assert planned["features"].where["shape"]["num_classes"] == 10


def test_the_worker_is_told_the_networks(expand):
    planned = expand()
    net = {
        "depth": 2,
        "width": 32,
        "heads": 2,
        "patch": 2,
        "in_channels": 4,
        "input_size": 8,
        "num_classes": 10,
        "qk_norm": False,
    }
    for name in ("vanilla:seed=0", "teacher", "features", "samples:phase1"):
        assert planned[name].where["shape"] == net
    assert planned["phase2:guidance=5,seed=0"].where["teacher_shape"] == net


@pytest.mark.parametrize(
    ("layout", "fits"),
    [
        ({}, True),
        ({"ranks_per_node": 8}, True),
        ({"nodes": 2, "ranks_per_node": 2, "micro_batch": 2}, True),
        ({"ranks_per_node": 3}, False),
        ({"ranks_per_node": 2, "micro_batch": 3}, False),
        ({"ranks_per_node": 16}, False),
        ({"micro_batch": 16}, False),
    ],
)
def test_every_layout_must_divide_the_global_batch(expand, layout, fits):
    cluster = Cluster.model_validate({"name": "big", "stages": {"train": {"layouts": [{}, layout]}}})
    if fits:
        expand(cluster=cluster)
    else:
        with pytest.raises(
            ConfigError, match=r"does not divide the global batch .*/e.yaml:3: .*global_batch = 8\)"
        ) as caught:
            expand(cluster=cluster)
        assert str(caught.value).startswith("cluster big: stages.train.layouts[1]\n  1 node(s) x ")


def test_a_layout_is_what_the_attempt_records_and_its_job_asks_for(expand):
    resources = {
        "layouts": [{"ranks_per_node": 2, "micro_batch": 2, "gpus_per_rank": 1}, {}],
        "mem_gb": 3,
        "time": "2h",
        "noise_on": "device",
    }
    cluster = Cluster.model_validate({"stages": {"train": resources}, "stop_lead_s": 7})
    node = expand(cluster=cluster)["phase1"]
    first, second = train.layouts(node, cluster)
    assert second["ranks"] == 1
    assert first == {
        "nodes": 1,
        "ranks_per_node": 2,
        "ranks": 2,
        "cpus_per_rank": 1,
        "gpus_per_rank": 1,
        "noise_on": "device",
        "micro_batch": 2,
        "accumulation": 2,
        "zero_stage": 1,
        "activation_checkpointing": False,
        "compile": False,
    }
    job = train.job(
        node, cluster=cluster, layout=first, tag="t", attempt_dir=Path("/s/a/001"), python="py", code=Path("/s/code")
    )
    assert job.argv == ("py", "-m", "stx.worker", "run", "/s/a/001")
    assert (job.resources.ranks, job.resources.gpus_per_rank, job.resources.mem_gb, job.resources.time_s) == (
        2,
        1,
        3,
        7200,
    )
    assert job.env["PYTHONPATH"].split(":")[0] == "/s/code"
    assert job.stop_lead_s == 7


def test_a_layout_may_have_its_own_zero_stage_and_recompute_activations(expand):
    listed = [{}, {"zero_stage": 3, "activation_checkpointing": True}]
    cluster = Cluster.model_validate({"stages": {"train": {"layouts": listed, "zero_stage": 2}}})
    found = train.layouts(expand(cluster=cluster)["phase1"], cluster)
    assert [(one["zero_stage"], one["activation_checkpointing"]) for one in found] == [(2, False), (3, True)]


def test_bf16_weights_do_not_go_with_zero_0(expand, refused, small):
    bf16 = ("precision: fp32", "precision: bf16_weights")
    zero = [Cluster.model_validate({"stages": {"train": {"zero_stage": stage}}}) for stage in range(4)]
    message = refused(small, bf16, cluster=zero[0])
    assert message.startswith("cluster local: stages.train.zero_stage\n:3: defaults.train.precision = bf16_weights)")
    mixed = Cluster.model_validate({"stages": {"train": {"layouts": [{}, {"zero_stage": 0}]}}})
    assert refused(small, bf16, cluster=mixed).startswith("cluster local: stages.train.layouts[1].zero_stage\n")
    for stage in (1, 2, 3):
        assert expand(small, bf16, cluster=zero[stage])["phase1"]
    assert expand(small, ("precision: fp32", "precision: bf16_autocast"), cluster=zero[0])["phase1"]


def test_several_emas_one_is_chosen_by_its_decay(expand, small):
    several = ("precision: fp32", "precision: fp32, ema_decay: [0.9, 0.99]")
    planned = expand(small, several)
    assert planned["phase1"].spec.science["ema_decay"] == [0.9, 0.99]
    assert (planned["teacher"].where["section"], planned["samples:phase1"].where["section"]) == ("raw", "ema")
    second = expand(
        small,
        several,
        ("run: phase1}", "run: phase1, weights: ema, ema_decay: 0.99}"),
        ("num_samples: 20", "num_samples: 20, ema_decay: 0.9"),
    )
    assert second["phase1"].key == planned["phase1"].key
    assert (second["teacher"].where["section"], second["samples:phase1"].where["section"]) == ("ema_0.99", "ema")
    one = expand(small, ("precision: fp32", "precision: fp32, ema_decay: [0.9]"))
    assert one["phase1"].key == expand(small, ("precision: fp32", "precision: fp32, ema_decay: 0.9"))["phase1"].key


def test_kinds_that_compute_on_one_rank_say_so(expand, refused):
    cluster = Cluster.model_validate({"stages": {"default": {"ranks": 2}, "train": {"ranks": 2}}})
    message = refused(cluster=cluster)
    assert "images stages run on one rank" in message
    assert "only train, latents, features, sample stages may have more" in message
    auto = Cluster.model_validate({"stages": {"default": {"gpus_per_rank": 1}}})
    planned = expand(cluster=auto)
    assert [
        base.kind_named(kind).layouts(planned[name], auto)[0]["gpus_per_rank"]
        for kind, name in (("images", "images"), ("latents", "latents"))
    ] == [0, 1]


def test_stages_that_share_rows_take_any_number_of_ranks(expand):
    cluster = Cluster.model_validate({"stages": {"latents": {"ranks": 3}}})
    node = expand(cluster=cluster)["latents"]
    (layout,) = base.row_layouts(node, cluster)
    assert layout["ranks"] == 3
    job = base.job(
        node, cluster=cluster, layout=layout, tag="t", attempt_dir=Path("/s/a/001"), python="py", code=Path("/s/code")
    )
    assert job.resources.ranks == 3


def test_flips_double_the_rows_of_an_epoch_and_their_cost_and_move_the_key(expand, small):
    plain, flipped = expand(), expand(small, ("autoencoder: vae}", "autoencoder: vae, flips: true}"))
    assert flipped["phase1"].where["num_samples"] == 2 * plain["phase1"].where["num_samples"] == 9000
    assert flipped["latents"].cost.flops == 2 * plain["latents"].cost.flops
    assert flipped["latents"].cost.bytes == 2 * plain["latents"].cost.bytes
    assert flipped["features"].cost.flops == 2 * plain["features"].cost.flops
    assert flipped["latents"].key != plain["latents"].key
    assert (
        expand(small, ("autoencoder: vae}", "autoencoder: vae, flips: false}"))["latents"].key == plain["latents"].key
    )


def test_a_command_sees_the_last_result_of_a_growing_input(expand, small):
    planned = expand(small + "  own: {kind: command, argv: [a], inputs: {run: phase1, pictures: images}}\n")
    assert planned["own"].spec.inputs["inputs.run"].images == 320
    assert planned["own"].spec.inputs["inputs.pictures"].images is None


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ("{A: images}", "is not a name"),
        ("{a: 3}", "a stage's name, or {path, version}"),
        ("{a: {path: x}}", '"version" is required'),
        ("{a: {path: x, version: v, sha: y}}", "no such option here"),
        ("[images]", "must be a mapping"),
        ("{a: imges}", 'did you mean "images"'),
    ],
)
def test_inputs_of_a_command_are_checked(refused, small, inputs, words):
    assert words in refused(small + f"  own: {{kind: command, argv: [a], inputs: {inputs}}}\n")


def test_a_command_needs_an_argv_of_words(refused, small):
    assert "at least 1" in refused(small + "  own: {kind: command, argv: []}\n")
    assert "must be a list" in refused(small + "  own: {kind: command, argv: ls -l}\n")
    assert "must be text" in refused(small + "  own: {kind: command, argv: [sleep, 3]}\n")
    assert command.RECIPE >= 1


def test_the_online_teacher_costs_its_share_of_rows_and_a_cached_one_nothing(expand, small):
    projector = 3 * 0.3 * sizes.projector_flops(32, 2048, 32, tokens=16)
    teacher = 0.3 * sizes.teacher_flops(MU, LATENT, block=2)
    plain = sizes.train_flops(MU, LATENT)
    assert expand()["vanilla:seed=0"].cost.flops_per_image == pytest.approx(plain)
    assert expand()["phase2:guidance=5,seed=0"].cost.flops_per_image == pytest.approx(plain + projector)
    online = expand(small, ("features: features, ", ""))["phase2:guidance=5,seed=0"]
    assert online.cost.flops_per_image == pytest.approx(plain + projector + teacher)
    assert online.where["teacher_flops"] == pytest.approx(320 * teacher)
    assert online.cost.flops == pytest.approx(320 * online.cost.flops_per_image)


@pytest.mark.parametrize(
    ("option", "share"),
    [
        ("weight: 0", 0),
        ("stop_step: 10", 0.3 / 4),
        ("stop_step: 100", 0.3),
        ("window: [0, 1]", 1),
        ("window_reduction: released", 1),
    ],
)
def test_the_aligned_share_follows_window_weight_and_stop(expand, small, option, share):
    node = expand(small, ("features: features, ", ""), ("guidance: 5}", f"guidance: 5, {option}}}"))[
        "phase2:guidance=5,seed=0"
    ]
    expected = 320 * share * sizes.teacher_flops(MU, LATENT, block=2)
    assert node.where["teacher_flops"] == pytest.approx(expected)


def test_an_image_after_the_stop_step_costs_no_alignment(expand, small):
    alignment = ("guidance: 5}", "guidance: 5, stop_step: 10}")
    cost = expand(small, ("features: features, ", ""), alignment)["phase2:guidance=5,seed=0"].cost
    always = expand(small, ("features: features, ", ""))["phase2:guidance=5,seed=0"].cost
    plain = sizes.train_flops(MU, LATENT)
    assert cost.until(80) == always.until(80) == 80 * always.flops_per_image
    assert cost.flops == cost.until(320) == pytest.approx(always.until(80) + 240 * plain)


def test_the_cache_is_billed_by_rows(expand):
    node = expand()["features"]
    assert node.cost.flops == pytest.approx(4500 * 4 * sizes.teacher_flops(MU, LATENT, block=2))
    assert node.cost.bytes == 4500 * 4 * 2 * 16 * 32 * 2


def test_guidance_in_an_interval_doubles_the_passes_inside_it(expand, small):
    plain = expand()["samples:phase1"].cost.flops_per_image
    forward = sizes.forward_flops(MU, LATENT)
    guided = expand(small, ("num_samples: 20", "num_samples: 20, sampler: {guidance: 2, interval: [0, 0.4]}"))
    assert guided["samples:phase1"].cost.flops_per_image == pytest.approx(plain + 25 * 0.4 * forward)


def test_a_sampler_is_billed_by_the_rows_its_network_sees(expand, small):
    forward, one = sizes.forward_flops(MU, LATENT), expand()["samples:phase1"].cost.flops_per_image
    for sampler, passes in (("solver: heun, steps: 25", 49), ("solver: sde, steps: 250", 250)):
        node = expand(small, ("num_samples: 20", f"num_samples: 20, sampler: {{{sampler}}}"))["samples:phase1"]
        assert node.cost.flops_per_image == pytest.approx(one + (passes - 25) * forward)


def test_sampling_and_caching_may_have_several_ranks(expand):
    cluster = Cluster.model_validate({"stages": {"sample": {"ranks": 3}, "features": {"ranks": 2}}})
    planned = expand(cluster=cluster)
    for name, ranks in (("samples:phase1", 3), ("features", 2)):
        assert base.kind_named(planned[name].spec.kind).layouts(planned[name], cluster)[0]["ranks"] == ranks


def test_a_layout_of_the_wrong_size_is_a_plan_error(expand):
    node = expand()["phase1"]
    with pytest.raises(PlanError, match="does not divide the global batch"):
        train.layouts(node, Cluster.model_validate({"stages": {"train": {"ranks": 3}}}))


def test_a_cosine_experiment_has_one_interpolant_everywhere(expand, small):
    planned = expand(small, ("steps: 40", "interpolant: cosine, steps: 40"))
    assert planned["phase1"].spec.science["interpolant"] == "cosine"
    assert "interpolant" not in expand()["phase1"].spec.science
    for name in ("features", "samples:vanilla:seed=0"):
        assert planned[name].where["interpolant"] == "cosine"
        assert expand()[name].where["interpolant"] == "linear"
        assert planned[name].key != expand()[name].key


def test_the_aligned_share_follows_the_distribution_of_t(expand, small):
    node = expand(small, ("steps: 40", "t_distribution: lognormal, steps: 40"), ("features: features, ", ""))["phase1"]
    plain = sizes.train_flops(MU, LATENT)
    uniform = expand()["phase1"].cost.flops_per_image - plain
    # sigma = t / (1 - t) is 2/3 and 7/3 at the edges of [0.4, 0.7]: between normals of -0.405 and 0.847
    assert (node.cost.flops_per_image - plain) / uniform == pytest.approx(0.45902 / 0.3, rel=1e-4)
