"""The backbone: names, sizes, initialisation and taps of the published SiT."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from stx import sizes
from stx.errors import DataError
from stx.model.blocks import initialised, projector
from stx.model.sit import SiT, load_weights
from stx.sizes import SitShape

TINY = SitShape(depth=3, width=32, heads=2, patch=2)
PUBLISHED = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
# Computed apart from this code: millions, with the position embedding, qk_norm and a projector of width 2048;
# and FLOPs, twice the multiply-adds that the DiT paper calls Gflops (6.06, 23.01, 80.71, 118.64).
PARAMS = {"S": 38.73, "B": 137.85, "L": 466.49, "XL": 684.04}
FORWARD_GFLOPS = {"S": 12.108, "B": 46.004, "L": 161.387, "XL": 237.233}

BLOCK_NAMES = [
    f"{part}.{kind}"
    for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
    for kind in ("weight", "bias")
]


def tiny(shape: SitShape = TINY, *, seed: int = 0, input_size: int = 8, qk_norm: bool = False) -> SiT:
    def build() -> SiT:
        return SiT(shape, in_channels=4, input_size=input_size, num_classes=10, qk_norm=qk_norm)

    return initialised(build, seed=seed)


def awake(model: SiT) -> SiT:
    """A model whose zero-initialised parts are not zero any more."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def batch(rows: int = 2, *, size: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    noisy = torch.randn(rows, 4, size, size, generator=generator)
    return noisy, torch.rand(rows, generator=generator), torch.arange(rows)


def on_meta(name: str, *, patch: int = 2, qk_norm: bool = False) -> SiT:
    depth, width, heads = PUBLISHED[name]
    with torch.device("meta"):
        shape = SitShape(depth=depth, width=width, heads=heads, patch=patch)
        return SiT(shape, in_channels=4, input_size=32, num_classes=1000, qk_norm=qk_norm)


def test_parameter_names_are_the_published_ones():
    ends = ["x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2"]
    ends += ["final_layer.linear", "final_layer.adaLN_modulation.1"]
    names = {f"{end}.{kind}" for end in ends for kind in ("weight", "bias")} | {"y_embedder.embedding_table.weight"}
    names |= {f"blocks.{index}.{name}" for index in range(3) for name in BLOCK_NAMES}
    assert set(tiny().state_dict()) == names
    norms = {f"blocks.{i}.attn.{n}_norm.{k}" for i in range(3) for n in "qk" for k in ("weight", "bias")}
    assert set(tiny(qk_norm=True).state_dict()) == names | norms


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_the_published_parameters(name):
    with torch.device("meta"):
        model, head = on_meta(name, qk_norm=True), projector(PUBLISHED[name][1], hidden=2048, out=PUBLISHED[name][1])
    count = sum(tensor.numel() for tensor in (*model.parameters(), *head.parameters(), model.pos_embed))
    assert round(count / 1e6, 2) == PARAMS[name]


def flops(model: SiT, *, rows: int = 1, **passing) -> int:
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        model(torch.empty(rows, 4, 32, 32), torch.empty(rows), torch.empty(rows, dtype=torch.int64), **passing)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_the_published_flops(name):
    assert flops(on_meta(name)) / 1e9 == pytest.approx(FORWARD_GFLOPS[name], abs=0.001)


@pytest.mark.parametrize("name", ["Mu", "Ti", "S", "B"])
@pytest.mark.parametrize("patch", [2, 4])
def test_arithmetic_of_the_plan_is_that_of_the_model(name, patch):
    shape, latent = sizes.parse_model(f"SiT-{name}/{patch}"), sizes.LatentShape(channels=4, size=32, num_classes=1000)
    with torch.device("meta"):
        model = SiT(shape, in_channels=4, input_size=32, num_classes=1000)
        head = projector(shape.width, hidden=2048, out=shape.width)
    assert sum(tensor.numel() for tensor in model.parameters()) == sizes.sit_parameters(shape, latent)
    assert flops(model) == sizes.forward_flops(shape, latent)
    assert flops(model, rows=2, taps=(2,), stop_block=2) == sizes.teacher_flops(shape, latent, block=2)
    counted = sum(tensor.numel() for tensor in head.parameters())
    assert counted == sizes.projector_parameters(shape.width, 2048, shape.width)


@pytest.mark.parametrize("patch", [1, 2, 4, 8])
def test_every_patch_size_gives_an_image_of_the_same_size(patch):
    model = awake(tiny(SitShape(depth=1, width=32, heads=2, patch=patch)))
    output = model(*batch(), taps=(1,))
    assert output.velocity.shape == (2, 4, 8, 8)
    assert output.hidden[1].shape == (2, (8 // patch) ** 2, 32)


def test_a_fresh_model_predicts_no_velocity_and_its_blocks_are_the_identity():
    output = tiny()(*batch(), taps=(1, 3))
    assert output.velocity.abs().max() == 0
    assert torch.equal(output.hidden[1], output.hidden[3])


def test_initialisation_is_the_published_one():
    model = tiny(SitShape(depth=1, width=128, heads=4, patch=2))
    for linear in (model.blocks[0].attn.qkv, model.blocks[0].mlp.fc1):
        bound = (6 / (linear.in_features + linear.out_features)) ** 0.5
        assert 0.95 * bound < linear.weight.abs().max() <= bound
        assert linear.bias.abs().max() == 0
    patch = model.x_embedder.proj
    assert 0.9 * (6 / (16 + 128)) ** 0.5 < patch.weight.abs().max() <= (6 / (16 + 128)) ** 0.5
    assert patch.bias.abs().max() == 0
    for table in (model.y_embedder.embedding_table, model.t_embedder.mlp[0], model.t_embedder.mlp[2]):
        assert table.weight.std().item() == pytest.approx(0.02, rel=0.1)
    for zero in (model.blocks[0].adaLN_modulation[1], model.final_layer.adaLN_modulation[1], model.final_layer.linear):
        assert zero.weight.abs().max() == 0
        assert zero.bias.abs().max() == 0


def test_initial_weights_follow_from_the_seed():
    first, again, other = (tiny(seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["blocks.0.mlp.fc1.weight"], other["blocks.0.mlp.fc1.weight"])


def test_a_tap_is_the_residual_stream_after_its_block():
    model = awake(tiny())
    output = model(*batch(), taps=(1, 2, 3))
    assert set(output.hidden) == {1, 2, 3}
    noisy, t, labels = batch()
    condition = model.t_embedder(t) + model.y_embedder(labels)
    after_first = model.blocks[0](model.x_embedder(noisy) + model.pos_embed, condition)
    torch.testing.assert_close(output.hidden[1], after_first)
    torch.testing.assert_close(output.hidden[2], model.blocks[1](after_first, condition))


def test_stopping_at_a_block_gives_the_same_hidden_state_and_runs_no_later_block():
    model = awake(tiny())
    whole = model(*batch(), taps=(2,))
    ran = []
    for name, part in {"block 2": model.blocks[1], "block 3": model.blocks[2], "final": model.final_layer}.items():
        part.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
    stopped = model(*batch(), taps=(2,), stop_block=2)
    assert ran == ["block 2"]
    assert stopped.velocity is None
    assert torch.equal(stopped.hidden[2], whole.hidden[2])


def test_the_null_label_is_the_last_row_of_the_table():
    model = awake(tiny())
    assert model.null_label == 10
    assert model.y_embedder.embedding_table.num_embeddings == 11
    noisy, t, _ = batch()
    dropped = model(noisy, t, torch.full((2,), model.null_label)).velocity
    assert not torch.equal(dropped, model(noisy, t, torch.tensor([0, 1])).velocity)


def test_training_mode_makes_no_difference():
    model = awake(tiny(qk_norm=True))
    assert torch.equal(model.train()(*batch()).velocity, model.eval()(*batch()).velocity)


def test_forward_and_backward_work_on_the_meta_device():
    model = on_meta("S", patch=4)
    with torch.device("meta"):
        output = model(torch.empty(2, 4, 32, 32), torch.empty(2), torch.empty(2, dtype=torch.int64), taps=(12,))
        (output.velocity.sum() + output.hidden[12].sum()).backward()
    assert output.velocity.shape == (2, 4, 32, 32)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_weights_of_one_model_load_into_another():
    source, target = awake(tiny(seed=1)), tiny(seed=2)
    load_weights(target, source.state_dict(), where="w.safetensors")
    assert torch.equal(source(*batch()).velocity, target(*batch()).velocity)


def test_a_published_file_may_carry_the_fixed_position_embedding():
    source, target = awake(tiny(seed=1)), tiny(seed=2)
    load_weights(target, source.state_dict() | {"pos_embed": source.pos_embed}, where="w.safetensors")
    with pytest.raises(DataError, match="not the fixed"):
        load_weights(target, source.state_dict() | {"pos_embed": source.pos_embed + 1}, where="w.safetensors")
    with pytest.raises(DataError, match="not the fixed"):
        load_weights(target, source.state_dict() | {"pos_embed": source.pos_embed[:, 1:]}, where="w.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("final_layer.linear.bias"), "missing.*final_layer.linear.bias"),
        (lambda w: w.update({"projectors_final.linear.weight": torch.zeros(1)}), "unexpected.*projectors_final"),
        (lambda w: w.update({"final_layer.linear.bias": torch.zeros(32)}), r"shape \(32,\), the model needs \(16,\)"),
    ],
)
def test_weights_of_another_model_are_refused_by_name_and_nothing_is_loaded(change, message):
    weights = dict(awake(tiny(seed=1)).state_dict())
    change(weights)
    target = tiny(seed=2)
    with pytest.raises(DataError, match=message) as caught:
        load_weights(target, weights, where="w.safetensors")
    assert str(caught.value).startswith("w.safetensors")
    assert torch.equal(target.blocks[0].mlp.fc1.weight, tiny(seed=2).blocks[0].mlp.fc1.weight)


def gradients(model: SiT, noisy: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    output = model(noisy, t, labels, taps=(1,))
    (output.velocity.float().square().mean() + output.hidden[1].float().square().mean()).backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "autocast"])
def test_checkpointed_activations_change_no_bit_of_a_gradient(autocast):
    model = awake(tiny())
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        kept = [gradient.clone() for gradient in gradients(model, *batch())]
        model.activation_checkpointing = True
        assert all(map(torch.equal, kept, gradients(model, *batch())))


def test_checkpointed_activations_are_not_kept():
    model, kept = awake(tiny()), []
    for checkpointing in (False, True):
        model.activation_checkpointing, held = checkpointing, []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda one, held=held: held.append(one.nbytes) or one, lambda x: x
        ):
            model(*batch(rows=8))
        kept.append(sum(held))
    assert kept[1] < kept[0] / 2


def test_the_embedding_of_t_is_fp32_in_every_precision():
    embedder = awake(tiny()).t_embedder
    t = torch.linspace(0, 1, 7)
    exact = embedder(t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(embedder(t), exact)
    rounded = embedder.to(torch.bfloat16)(t)
    assert rounded.dtype == torch.float32
    assert torch.allclose(rounded, exact, rtol=0.05, atol=0.01)


def test_with_bf16_weights_the_residual_stream_is_bf16_and_near_that_of_fp32():
    model, (noisy, t, labels) = awake(tiny()), batch()
    exact = model(noisy, t, labels, taps=(2,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = model(noisy, t, labels, taps=(2,))
    assert cast.hidden[2].dtype == torch.float32
    output = model.to(torch.bfloat16)(noisy, t, labels, taps=(2,))
    assert output.hidden[2].dtype == output.velocity.dtype == torch.bfloat16
    for one in (cast, output):
        assert torch.allclose(one.velocity.float(), exact.velocity, rtol=0.05, atol=0.05)
        assert torch.allclose(one.hidden[2].float(), exact.hidden[2], rtol=0.05, atol=0.05)
