"""Pixels, moments and the small autoencoder."""

import pytest
import torch

from stx.model import autoencoder
from stx.model.blocks import initialised

TINY = autoencoder.arguments(
    image_channels=1, resolution=16, channels=(8, 8), latent_channels=2, layers_per_block=1, mid_attention=False
)


@pytest.fixture(scope="module")
def tiny() -> torch.nn.Module:
    return initialised(lambda: autoencoder.build(TINY), seed=3).eval().requires_grad_(False)


def images(count: int) -> torch.Tensor:
    return torch.arange(count * 256).remainder(256).to(torch.uint8).reshape(count, 1, 16, 16)


def test_every_uint8_value_survives_the_way_to_pixels_and_back() -> None:
    values = torch.arange(256).to(torch.uint8)
    assert torch.equal(autoencoder.to_uint8(autoencoder.pixels(values)), values)


def test_what_lies_outside_the_pixels_is_clamped_not_wrapped() -> None:
    assert autoencoder.to_uint8(torch.tensor([-7.0, -1.0, 1.0, 3.0])).tolist() == [0, 0, 255, 255]


def test_the_quickstart_autoencoder_has_the_size_that_was_tried() -> None:
    arguments = autoencoder.arguments(
        image_channels=1,
        resolution=32,
        channels=(16, 32, 32),
        latent_channels=4,
        layers_per_block=1,
        mid_attention=False,
    )
    model = autoencoder.build(arguments)
    assert sum(parameter.numel() for parameter in model.parameters()) == 233_173
    assert autoencoder.latent_size(arguments) == 8


def test_moments_are_mean_and_std(tiny: torch.nn.Module) -> None:
    pixels = autoencoder.pixels(images(3))
    mean, std = autoencoder.encode(tiny, pixels).chunk(2, dim=1)
    posterior = tiny.encode(pixels).latent_dist
    assert mean.shape == (3, 2, 8, 8)
    assert torch.equal(mean, posterior.mean)
    assert torch.allclose(std, (0.5 * posterior.logvar).exp())


def test_decoding_undoes_the_size_of_encoding(tiny: torch.nn.Module) -> None:
    assert autoencoder.decode(tiny, torch.zeros(2, 2, 8, 8)).shape == (2, 1, 16, 16)


def test_the_divergence_is_that_of_diffusers(tiny: torch.nn.Module) -> None:
    pixels = autoencoder.pixels(images(3))
    found = autoencoder.reconstruct(tiny, pixels, torch.zeros(3, 2, 8, 8)).kl
    per_image = tiny.encode(pixels).latent_dist.kl() / (2 * 8 * 8)
    assert torch.allclose(found, per_image.mean())


def test_the_unit_scale_makes_posterior_samples_standard() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = 3.0 + 2.0 * torch.randn(200, 2, 8, 8, generator=generator)
    std = torch.full_like(mean, 0.5)
    scale, shift = autoencoder.unit_scale(torch.cat([mean, std], dim=1))
    latents = (mean + std * torch.randn(mean.shape, generator=generator) - shift) * scale
    assert abs(float(latents.mean())) < 0.01
    assert abs(float(latents.std()) - 1.0) < 0.01


def test_psnr_of_an_error_of_one_level_is_known() -> None:
    black = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    error = autoencoder.squared_error(black, black + 1)
    assert error.tolist() == [16.0, 16.0]
    assert autoencoder.psnr(error.sum() / black.numel()) == pytest.approx(48.1308, abs=1e-3)


def test_group_counts_divide_every_width() -> None:
    for channels in ((8, 8), (16, 32, 32), (128, 256, 512, 512), (6, 10)):
        arguments = autoencoder.arguments(
            image_channels=3,
            resolution=32,
            channels=channels,
            latent_channels=4,
            layers_per_block=1,
            mid_attention=False,
        )
        assert all(width % arguments["norm_num_groups"] == 0 for width in channels)
