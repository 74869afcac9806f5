"""Against the table that was checked with torch's FlopCounterMode on meta-device SiTs (qk_norm on, 1000 classes)."""

import pytest

from stx import sizes
from stx.sizes import LatentShape, SitShape, parse_model

LATENT = LatentShape(channels=4, size=32, num_classes=1000)
# parameters in M with projector, projector in M, then GFLOPs: forward, block, projector, train, train with projector
TABLE = [
    ("SiT-S/2", 38.73, 5.77, 12.108, 1.008, 2.95, 36.32, 45.18),
    ("SiT-B/2", 137.85, 7.34, 46.004, 3.832, 3.76, 138.01, 149.28),
    ("SiT-L/2", 466.49, 8.39, 161.387, 6.723, 4.29, 484.15, 497.04),
    ("SiT-XL/2", 684.04, 8.92, 237.233, 8.472, 4.56, 711.69, 725.38),
]


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_published_sizes(row):
    name, parameters, projector, forward, block, projector_flops, train, both = row
    shape = parse_model(name)
    head = sizes.projector_parameters(shape.width, 2048, shape.width)
    head_flops = sizes.projector_flops(shape.width, 2048, shape.width, tokens=256)
    positions = sizes.num_tokens(shape, LATENT) * shape.width  # fixed, but published counts include them
    total = sizes.sit_parameters(shape, LATENT, qk_norm=True) + positions + head
    assert total / 1e6 == pytest.approx(parameters, abs=0.0051)
    assert head / 1e6 == pytest.approx(projector, abs=0.0051)
    assert sizes.forward_flops(shape, LATENT) / 1e9 == pytest.approx(forward, abs=0.00051)
    assert sizes.block_flops(shape, LATENT) / 1e9 == pytest.approx(block, abs=0.00051)
    assert head_flops / 1e9 == pytest.approx(projector_flops, abs=0.0051)
    assert sizes.train_flops(shape, LATENT) / 1e9 == pytest.approx(train, abs=0.0051)
    assert (sizes.train_flops(shape, LATENT) + 3 * head_flops) / 1e9 == pytest.approx(both, abs=0.0051)


@pytest.mark.parametrize(
    ("name", "block", "gflops"),
    [
        ("SiT-S/2", 8, 16.1),
        ("SiT-B/2", 8, 61.3),
        ("SiT-B/2", 12, 92.0),
        ("SiT-L/2", 16, 215.2),
        ("SiT-XL/2", 20, 338.9),
    ],
)
def test_a_teacher_costs_two_passes_up_to_its_block(name, block, gflops):
    assert sizes.teacher_flops(parse_model(name), LATENT, block=block) / 1e9 == pytest.approx(gflops, abs=0.051)


def test_cached_features_of_imagenet_have_the_published_bytes():
    # f_u and the difference: two features an image; S/2 in bf16 is 192 KiB each
    assert sizes.feature_bytes(tokens=256, width=384, value_bytes=2) == 2 * 192 * 1024


def test_moments_have_the_published_bytes():
    assert sizes.latent_bytes(LATENT, value_bytes=4) == 32_768
    assert sizes.latent_bytes(LATENT, value_bytes=2) == 16_384


def test_a_resume_checkpoint_of_xl_is_about_11_gb():
    parameters = sizes.sit_parameters(parse_model("SiT-XL/2"), LATENT) + sizes.projector_parameters(1152, 2048, 1152)
    assert sizes.training_bytes(parameters, checkpoints=1, milestones=0, emas=1) / 1e9 == pytest.approx(10.94, abs=0.02)


def test_names_and_mappings_are_the_same_model():
    spelled = parse_model({"depth": 6, "width": 128, "heads": 4, "patch": 2})
    assert spelled == parse_model("SiT-Ti/2") == SitShape(6, 128, 4, 2)
    assert spelled.name == "SiT-Ti/2"
    assert parse_model(spelled) is spelled
    assert parse_model("SiT-Mu/1") == SitShape(2, 32, 2, 1)
    assert SitShape(3, 64, 2, 4).name == "SiT(depth=3,width=64,heads=2,patch=4)"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("SiT-Tu/2", "known: SiT-Mu/2"),
        ("SiT-S", "no model of that name"),
        ("SiT-S/3", "patch 3 is not one of 1, 2, 4, 8"),
        ("S/2", "no model of that name"),
        (3, "a model is a name"),
        ({"depth": 6}, "a model is a name"),
        ({"depth": 6, "width": 128, "heads": 3, "patch": 2}, "not divisible by 3 heads"),
        ({"depth": 6, "width": 30, "heads": 3, "patch": 2}, "not divisible by 4"),
        ({"depth": 0, "width": 128, "heads": 4, "patch": 2}, "depth must be"),
        ({"depth": True, "width": 128, "heads": 4, "patch": 2}, "depth must be"),
        ({"depth": 6, "width": 128.0, "heads": 4, "patch": 2}, "width must be"),
    ],
)
def test_what_is_no_model_is_refused_with_what_would_be(value, words):
    with pytest.raises(ValueError, match=words.replace("/", ".")):
        parse_model(value)


def test_costs_grow_with_what_they_count():
    small = sizes.decode_flops((16, 32), resolution=32, layers=1, image_channels=1, latent_channels=4)
    assert sizes.decode_flops((16, 32), resolution=64, layers=1, image_channels=1, latent_channels=4) > 3 * small
    assert sizes.encode_flops((16, 32), resolution=32, layers=1, image_channels=1, latent_channels=4) < small
    assert sizes.classifier_flops((16, 32), resolution=32, image_channels=1) == 2 * 9 * (32**2 * 16 + 16**2 * 16 * 32)
