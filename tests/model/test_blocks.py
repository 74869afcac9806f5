"""The parts of a SiT."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stx.model import blocks


def built(seed: int) -> nn.Linear:
    return blocks.initialised(lambda: nn.Linear(4, 4), seed=seed)


def test_initial_weights_follow_from_the_seed_alone():
    assert torch.equal(built(3).weight, built(3).weight)
    assert not torch.equal(built(3).weight, built(4).weight)


def test_building_leaves_the_global_generator_as_it_was():
    before = torch.get_rng_state()
    built(3)
    assert torch.equal(torch.get_rng_state(), before)


@given(patch=st.sampled_from([1, 2, 4, 8]), channels=st.integers(1, 4))
def test_unpatchify_puts_a_cut_image_together(patch, channels):
    image = torch.arange(2 * channels * 16 * 16.0).reshape(2, channels, 16, 16)
    side = 16 // patch
    squares = image.reshape(2, channels, side, patch, side, patch)
    patches = torch.einsum("bchpwq->bhwpqc", squares).reshape(2, side * side, -1)
    assert torch.equal(blocks.unpatchify(patches, patch=patch), image)


def test_position_embedding_has_the_column_first_then_the_row():
    table = blocks.position_embedding(8, side=3)[0].reshape(3, 3, 8)
    row, column = 1, 2
    line = [[math.sin(x), math.sin(x / 100), math.cos(x), math.cos(x / 100)] for x in range(3)]
    assert table[row, column].tolist() == pytest.approx(line[column] + line[row])


def test_time_is_not_multiplied_by_a_thousand():
    frequencies = blocks.time_frequencies(torch.tensor([0.5]))[0]
    assert frequencies[0].item() == pytest.approx(math.cos(0.5))
    assert frequencies[128].item() == pytest.approx(math.sin(0.5))
    assert frequencies[127].item() == pytest.approx(math.cos(0.5 * 10_000 ** (-127 / 128)))


def test_a_block_whose_modulation_is_zero_is_the_identity():
    block = blocks.initialised(lambda: blocks.Block(32, heads=2, qk_norm=False), seed=0)
    hidden, condition = torch.ones(1, 4, 32), torch.ones(1, 32)
    nn.init.zeros_(block.adaLN_modulation[1].weight)
    nn.init.zeros_(block.adaLN_modulation[1].bias)
    assert torch.equal(block(hidden, condition), hidden)
