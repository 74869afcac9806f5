"""Pure arithmetic of the networks: shapes, parameters, FLOPs, bytes. No torch, so that a plan can be priced at once.

    block      MACs per image: 12 N D^2 (qkv 3, projection 1, MLP 8) + 2 N^2 D (attention) + 6 D^2 (adaLN);
               N tokens, width D
    the rest   N p^2 C D (patches in) + 256 D + D^2 (time) + N D p^2 C + 2 D^2 (final layer)
    projector  N (D w + w^2 + w D')
    training   3 forward, less the input gradient of the patch layer

FLOPs = 2 MACs. The published "Gflops" of DiT are MACs. SiT numbers agree with torch's FlopCounterMode to three
decimals of a GFLOP; the autoencoder's and the classifier's count their convolutions only.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

SIZES: Mapping[str, tuple[int, int, int]] = {
    "Mu": (2, 32, 2),
    "Ti": (6, 128, 4),
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}
PATCHES = (1, 2, 4, 8)
FREQUENCIES = 256  # width of the sinusoidal embedding of t
FLOAT_BYTES = 4
_NAME = re.compile(r"SiT-([A-Za-z]+)/(\d+)")


@dataclass(frozen=True)
class SitShape:
    """A SiT: blocks, width, attention heads, patch size."""

    depth: int
    width: int
    heads: int
    patch: int

    @property
    def name(self) -> str:
        """`SiT-XL/2`, or the numbers of a size without a name."""
        for word, size in SIZES.items():
            if size == (self.depth, self.width, self.heads):
                return f"SiT-{word}/{self.patch}"
        return f"SiT(depth={self.depth},width={self.width},heads={self.heads},patch={self.patch})"


@dataclass(frozen=True)
class LatentShape:
    """What a SiT is applied to."""

    channels: int
    size: int
    num_classes: int


def parse_model(value: Any) -> SitShape:
    """`SiT-Ti/2`, or a mapping of depth, width, heads and patch. ValueError says what is wrong in words for people."""
    if isinstance(value, SitShape):
        return value
    shape = _named(value) if isinstance(value, str) else _spelled(value)
    if shape.patch not in PATCHES:
        raise ValueError(f"patch {shape.patch} is not one of {', '.join(map(str, PATCHES))}")
    if shape.width % shape.heads:
        raise ValueError(f"width {shape.width} is not divisible by {shape.heads} heads")
    if shape.width % 4:
        raise ValueError(f"width {shape.width} is not divisible by 4, which the position embedding needs")
    return shape


def _named(name: str) -> SitShape:
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in SIZES:
        known = ", ".join(f"SiT-{word}/2" for word in SIZES)
        raise ValueError(f"no model of that name; known: {known} (patch {', '.join(map(str, PATCHES))})")
    return SitShape(*SIZES[match[1]], patch=int(match[2]))


def _spelled(value: Any) -> SitShape:
    fields = ("depth", "width", "heads", "patch")
    if not isinstance(value, Mapping) or set(value) != set(fields):
        raise ValueError("a model is a name such as SiT-Ti/2, or {depth, width, heads, patch}")
    for field in fields:
        number = value[field]
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{field} must be a whole number above 0")
    return SitShape(**value)


def num_tokens(shape: SitShape, latent: LatentShape) -> int:
    """Tokens of one image."""
    return (latent.size // shape.patch) ** 2


def _patch_width(shape: SitShape, latent: LatentShape) -> int:
    return shape.patch**2 * latent.channels


def sit_parameters(shape: SitShape, latent: LatentShape, *, qk_norm: bool = False) -> int:
    """Trained parameters; the fixed position embedding is not one."""
    width, patch_width = shape.width, _patch_width(shape, latent)
    patches = patch_width * width + width
    time = FREQUENCIES * width + width + width**2 + width
    labels = (latent.num_classes + 1) * width
    norms = 4 * (width // shape.heads) if qk_norm else 0  # weight and bias for queries and for keys
    block = 18 * width**2 + 15 * width + norms
    final = width * patch_width + patch_width + 2 * width**2 + 2 * width
    return patches + time + labels + shape.depth * block + final


def block_flops(shape: SitShape, latent: LatentShape) -> float:
    """One block, forward, one image."""
    tokens, width = num_tokens(shape, latent), shape.width
    return 2.0 * (12 * tokens * width**2 + 2 * tokens**2 * width + 6 * width**2)


def _patch_flops(shape: SitShape, latent: LatentShape) -> float:
    return 2.0 * num_tokens(shape, latent) * _patch_width(shape, latent) * shape.width


def _embedding_flops(shape: SitShape, latent: LatentShape) -> float:
    return _patch_flops(shape, latent) + 2.0 * (FREQUENCIES * shape.width + shape.width**2)


def forward_flops(shape: SitShape, latent: LatentShape) -> float:
    """The whole network, forward, one image."""
    final = 2.0 * (num_tokens(shape, latent) * _patch_width(shape, latent) * shape.width + 2 * shape.width**2)
    return _embedding_flops(shape, latent) + shape.depth * block_flops(shape, latent) + final


def train_flops(shape: SitShape, latent: LatentShape) -> float:
    """Forward and backward of one image, without a method's own cost."""
    return 3.0 * forward_flops(shape, latent) - _patch_flops(shape, latent)


def teacher_flops(shape: SitShape, latent: LatentShape, *, block: int) -> float:
    """Conditional and unconditional pass up to `block`, one image."""
    return 2.0 * (block * block_flops(shape, latent) + _embedding_flops(shape, latent))


def projector_parameters(width_in: int, hidden: int, width_out: int) -> int:
    """Linear, SiLU, Linear, SiLU, Linear."""
    return width_in * hidden + hidden + hidden**2 + hidden + hidden * width_out + width_out


def projector_flops(width_in: int, hidden: int, width_out: int, *, tokens: int) -> float:
    """The same, forward, one image."""
    return 2.0 * tokens * (width_in * hidden + hidden**2 + hidden * width_out)


def training_bytes(parameters: int, *, checkpoints: int, milestones: int, emas: int) -> float:
    """What a run leaves: checkpoints (master, two moments, EMAs) and milestones (raw and EMAs), fp32."""
    return float(parameters * FLOAT_BYTES * ((3 + emas) * checkpoints + (1 + emas) * milestones))


def feature_bytes(*, tokens: int, width: int, value_bytes: int) -> float:
    """One cached draw: the unconditional feature and the guided difference."""
    return 2.0 * tokens * width * value_bytes


def latent_bytes(latent: LatentShape, *, value_bytes: int) -> float:
    """The moments of one image: mean and standard deviation."""
    return 2.0 * latent.channels * latent.size**2 * value_bytes


def _convolutions(channels: Sequence[int], *, resolution: int, layers: int, entry: int, latent: int) -> float:
    """MACs of one side of a KL autoencoder: two 3x3 convolutions a layer, halving the resolution between levels."""
    size, previous = resolution, channels[0]
    macs = 9.0 * size**2 * entry * previous
    for level, width in enumerate(channels):
        for layer in range(layers):
            macs += 9.0 * size**2 * ((previous if layer == 0 else width) * width + width**2)
        previous = width
        if level < len(channels) - 1:
            size //= 2
            macs += 9.0 * size**2 * width**2
    return macs + 9.0 * size**2 * (4 * previous**2 + previous * latent)


class Side(Protocol):
    """The encoder or the decoder of an autoencoder."""

    def __call__(
        self, channels: Sequence[int], *, resolution: int, layers: int, image_channels: int, latent_channels: int
    ) -> float:
        """FLOPs of one image, forward."""


def encode_flops(
    channels: Sequence[int], *, resolution: int, layers: int, image_channels: int, latent_channels: int
) -> float:
    """The autoencoder's encoder, one image."""
    return 2.0 * _convolutions(
        channels, resolution=resolution, layers=layers, entry=image_channels, latent=2 * latent_channels
    )


def decode_flops(
    channels: Sequence[int], *, resolution: int, layers: int, image_channels: int, latent_channels: int
) -> float:
    """The autoencoder's decoder, one image: one layer more at each level."""
    return 2.0 * _convolutions(
        channels, resolution=resolution, layers=layers + 1, entry=image_channels, latent=latent_channels
    )


def classifier_flops(channels: Sequence[int], *, resolution: int, image_channels: int) -> float:
    """A plain CNN: one 3x3 convolution a level, halving the resolution after each."""
    size, previous, macs = resolution, image_channels, 0.0
    for width in channels:
        macs += 9.0 * size**2 * previous * width
        previous, size = width, max(1, size // 2)
    return 2.0 * macs
