"""The parts of a SiT as published (SiT, arXiv 2401.08740; DiT, arXiv 2212.09748), on timm's layers.

A block is a transformer block under adaLN-zero: the condition c (B, D) gives a shift, a scale and a gate for the
attention and for the MLP, all zero at the start, so a fresh block is the identity. Parameter names are those of the
published weights.
"""

import contextlib
import math
from collections.abc import Callable
from typing import TypeVar

import torch
from timm.layers import Attention, Mlp
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

FREQUENCIES = 256
MAX_PERIOD = 10_000.0


def initialised(build: Callable[[], M], *, seed: int) -> M:
    """`build()` under a generator of its own: weights follow from `seed` alone, the global one stays as it was.

    A SiT and what is attached to it are built by two calls, so the weights of the SiT do not depend on the attachment.
    """
    with torch.random.fork_rng(devices=()):
        # Not torch.manual_seed, which would reseed every accelerator too; modules are built on the CPU (or on meta).
        torch.default_generator.manual_seed(seed)
        return build()


def initialise_linears(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases in every Linear of a module, in the order of `modules()`."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)


def projector(width: int, *, hidden: int, out: int) -> nn.Sequential:
    """The three-layer MLP of REPA and Self-Transcendence: (..., width) -> (..., out), xavier-uniform, zero biases."""
    layers = nn.Sequential(
        nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, out)
    )
    initialise_linears(layers)
    return layers


def modulate(hidden: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN: hidden (B, T, D) scaled by 1 + scale (B, D) and shifted by shift (B, D)."""
    return hidden * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def unpatchify(patches: Tensor, *, patch: int) -> Tensor:
    """Patches (B, T, patch * patch * C), row by row, to an image (B, C, H, W): undoes cutting it into squares."""
    batch, tokens, values = patches.shape
    side = math.isqrt(tokens)
    channels = values // patch**2
    grid = patches.reshape(batch, side, side, patch, patch, channels)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, side * patch, side * patch)


def position_embedding(width: int, *, side: int) -> Tensor:
    """Fixed sin-cos embedding (1, side * side, width) of a square of tokens: half for the column, half for the row.

    Frequencies 1 / 10000^(4 i / width), computed in float64; sines first, then cosines (MAE, DiT).
    """
    frequencies = MAX_PERIOD ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns = line.repeat(side, 1)
    rows = line.repeat_interleave(side, dim=0)
    return torch.cat([columns, rows], dim=1).float().unsqueeze(0)


def time_frequencies(t: Tensor) -> Tensor:
    """cos and sin of t (B,) at 128 frequencies from 1 down to 1e-4: (B, 256), in fp32. t is NOT multiplied by 1000."""
    half = FREQUENCIES // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * steps / half)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def without_autocast(device_type: str) -> contextlib.AbstractContextManager[object]:
    """A region in which autocast casts nothing; the meta device knows no autocast."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()


class Fp32Linear(nn.Linear):
    """A Linear that multiplies in fp32 whatever the precision of the run: under autocast, and with bf16 weights."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., in) -> (..., out) in fp32."""
        with without_autocast(hidden.device.type):
            return nn.functional.linear(hidden.float(), self.weight.float(), self.bias.float())


class TimestepEmbedder(nn.Module):
    """t (B,) -> (B, D) in fp32: sinusoid, Linear, SiLU, Linear. In bf16 neighbouring t would be one and the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(Fp32Linear(FREQUENCIES, width), nn.SiLU(), Fp32Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """(B,) -> (B, D)."""
        return self.mlp(time_frequencies(t))


class LabelEmbedder(nn.Module):
    """Label (B,) -> (B, D). The last row of the table is the null label. Which labels are dropped, the batch says."""

    def __init__(self, width: int, *, num_classes: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        """(B,) int64 -> (B, D)."""
        return self.embedding_table(labels)


def modulation(width: int, *, vectors: int) -> nn.Sequential:
    """The condition (B, D) to `vectors` modulation vectors (B, vectors * D); the SiT sets it to zero at the start."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, vectors * width))


def layer_norm(width: int) -> nn.LayerNorm:
    """LayerNorm without affine parameters: adaLN brings them."""
    return nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)


class Block(nn.Module):
    """Attention and MLP, each normalised, modulated and gated by the condition."""

    def __init__(self, width: int, *, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.norm1 = layer_norm(width)
        self.attn = Attention(width, num_heads=heads, qkv_bias=True, qk_norm=qk_norm, norm_layer=nn.LayerNorm)
        self.norm2 = layer_norm(width)
        self.mlp = Mlp(width, hidden_features=4 * width, act_layer=tanh_gelu)
        self.adaLN_modulation = modulation(width, vectors=6)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """hidden (B, T, D), condition (B, D) -> (B, T, D)."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.adaLN_modulation(condition).chunk(6, dim=1)
        hidden = hidden + gate.unsqueeze(1) * self.attn(modulate(self.norm1(hidden), shift, scale))
        return hidden + mlp_gate.unsqueeze(1) * self.mlp(modulate(self.norm2(hidden), mlp_shift, mlp_scale))


class FinalLayer(nn.Module):
    """Hidden state to patches: normalised, modulated, projected; zero at the start."""

    def __init__(self, width: int, *, patch: int, channels: int) -> None:
        super().__init__()
        self.norm_final = layer_norm(width)
        self.linear = nn.Linear(width, patch * patch * channels)
        self.adaLN_modulation = modulation(width, vectors=2)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """hidden (B, T, D), condition (B, D) -> (B, T, patch * patch * channels)."""
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(hidden), shift, scale))


def tanh_gelu() -> nn.GELU:
    """The GELU of the published model."""
    return nn.GELU(approximate="tanh")
