"""The inspect stage on the control side: what it is given, what it refuses, what it costs."""

import pytest

LOOKS = "  looks: {kind: inspect, runs: [vanilla, phase1, phase2]}\n"


def test_there_is_one_stage_a_run_with_one_part_a_milestone(expand, small):
    planned = expand(small + LOOKS)
    names = [name for name in planned.nodes if name.startswith("looks")]
    assert names == [
        "looks:vanilla:seed=0",
        "looks:vanilla:seed=1",
        "looks:phase1",
        "looks:phase2:guidance=5,seed=0",
        "looks:phase2:guidance=30,seed=0",
    ]
    assert planned["looks:phase1"].wants == (320,), "the last milestone"
    every = expand(small + LOOKS, sets=["stages.looks.at=all"])["looks:phase1"]
    assert every.wants == (160, 320)
    assert every.key == planned["looks:phase1"].key


def test_a_teacher_is_an_input_where_the_run_has_one(expand, small):
    planned = expand(small + LOOKS)
    plain, guided = planned["looks:phase1"], planned["looks:phase2:guidance=30,seed=0"]
    assert set(plain.spec.inputs) == {"run", "latents", "autoencoder", "images"}
    assert set(guided.spec.inputs) == {"run", "latents", "autoencoder", "images", "teacher"}
    assert guided.spec.inputs["teacher"].key == planned["teacher"].key
    assert guided.where["guided"] == {"block": 2, "guidance": 30.0}
    assert "guided" not in plain.where


def test_what_is_looked_at_is_what_is_paid_for(expand, small):
    def cost(*sets):
        return expand(small + LOOKS, sets=[f"stages.looks.{one}" for one in sets])["looks:phase1"].cost

    assert cost("at=all").flops == 2 * cost().flops
    assert cost("times=[0.5]").flops == cost().flops / 4
    assert cost("num_images=16").bytes == 2 * cost().bytes
    # 8 images of 32x32 and at 4 t, and 3 colours of 4x4 tokens after each of 2 blocks
    assert cost().bytes == 8 * (32 * 32 + 4 * (32 * 32 + 3 * 16 * 2))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("at: [30]", "at = [30]\n  step 30 is no milestone of vanilla:seed=0\n  its milestones and its end: 20, 40"),
        ("times: [0.5, 0.5]", "times = [0.5, 0.5]\n  must be ascending"),
        ("times: [0.5, 1.5]", "times[1] = 1.5\n  must be at most 1"),
        ("times: []", "must have at least 1"),
        ("blocks: [1, 3]", "blocks = [1, 3]\n  the run vanilla:seed=0 is a SiT-Mu/2, so blocks must be in 1..2"),
        ("blocks: [0]", "blocks = [0]\n  must be all, or a list of blocks, counted from 1"),
        ("blocks: some", "must be all, or a list of blocks"),
        ("num_images: 501", "num_images = 501\n  there are 500 held-out images\n  valid: 1..500"),
        ("probe: {num_test: 501}", "probe.num_test = 501\n  there are 500 held-out images"),
        ("probe: {num_train: 4501}", "probe.num_train = 4501\n  there are 4500 train images\n  valid: 1..4500"),
        ("probe: {ridge: 0}", "probe.ridge = 0\n  must be above 0"),
    ],
)
def test_what_cannot_work_is_refused_at_its_place(refused, small, option, words):
    message = refused(small + LOOKS.replace("]}", f"], {option}}}"))
    assert message.startswith(":20: stages.looks.")
    assert words in message
