"""SiT (arXiv 2401.08740), student and teacher: a transformer over patches of a noisy latent that predicts its velocity.

    SiT(noisy (B, C, H, W), t (B,), labels (B,)) -> velocity (B, C, H, W), hidden states at the taps

Sizes, initialisation and parameter names are those of the published SiT, with C output channels (no learned sigma).
t=1 is noise; SiT's published code counts the other way. Blocks are counted from 1: the hidden state at tap k is the
residual stream after block k. The model knows no alignment method, drops no label and draws no random number.

Precision is the caller's: fp32; autocast around an fp32 model (the residual stream stays fp32); or weights in bf16, and
then the residual stream is, too. The embedding of t is fp32 in all of them, and a loss takes what comes out in fp32.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stx.errors import DataError
from stx.model import blocks
from stx.sizes import SitShape


class SitOutput(NamedTuple):
    """velocity (B, C, H, W), None when the pass stopped at a block; hidden {block: (B, T, D)}."""

    velocity: Tensor | None
    hidden: dict[int, Tensor]


class SiT(nn.Module):
    """The backbone. Build it through `blocks.initialised`, so that its weights follow from a seed.

    With `activation_checkpointing` set, a backward pass computes each block's activations again instead of keeping
    them: about a third more arithmetic, a fraction of the memory, the same numbers.
    """

    def __init__(
        self, shape: SitShape, *, in_channels: int, input_size: int, num_classes: int, qk_norm: bool = False
    ) -> None:
        super().__init__()
        assert input_size % shape.patch == 0, f"{input_size} pixels cannot be cut into patches of {shape.patch}"
        self.shape = shape
        self.activation_checkpointing = False
        self.in_channels = in_channels
        self.input_size = input_size
        self.null_label = num_classes
        width, side = shape.width, input_size // shape.patch
        self.x_embedder = PatchEmbed(input_size, shape.patch, in_channels, width)
        self.t_embedder = blocks.TimestepEmbedder(width)
        self.y_embedder = blocks.LabelEmbedder(width, num_classes=num_classes)
        # Fixed, hence no parameter, and no part of state_dict: what is saved is what was trained.
        self.register_buffer("pos_embed", blocks.position_embedding(width, side=side), persistent=False)
        self.blocks = nn.ModuleList(blocks.Block(width, heads=shape.heads, qk_norm=qk_norm) for _ in range(shape.depth))
        self.final_layer = blocks.FinalLayer(width, patch=shape.patch, channels=in_channels)
        self.initialise()

    def initialise(self) -> None:
        """The published initialisation (as in DiT, SiT and REPA): a fresh model predicts velocity 0."""
        blocks.initialise_linears(self)
        # The patch embedding is a Linear in the clothes of a convolution.
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.view(self.shape.width, -1))
        nn.init.zeros_(self.x_embedder.proj.bias)
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        nn.init.normal_(self.t_embedder.mlp[0].weight, std=0.02)
        nn.init.normal_(self.t_embedder.mlp[2].weight, std=0.02)
        for part in (*self.blocks, self.final_layer):
            nn.init.zeros_(part.adaLN_modulation[1].weight)
        nn.init.zeros_(self.final_layer.linear.weight)

    def forward(
        self,
        noisy: Tensor,
        t: Tensor,
        labels: Tensor,
        *,
        taps: Collection[int] = (),
        stop_block: int | None = None,
    ) -> SitOutput:
        """noisy (B, C, H, W), t (B,), labels (B,) int64 with num_classes for the null label.

        `stop_block=k` returns after block k, without a velocity: a teacher is asked no more than it is needed for.
        """
        dtype = self.x_embedder.proj.weight.dtype
        hidden = self.x_embedder(noisy.to(dtype)) + self.pos_embed.to(dtype)
        condition = (self.t_embedder(t) + self.y_embedder(labels)).to(dtype)
        tapped = {}
        for index, block in enumerate(self.blocks, start=1):
            hidden = self._through(block, hidden, condition)
            if index in taps:
                tapped[index] = hidden
            if index == stop_block:
                return SitOutput(velocity=None, hidden=tapped)
        patches = self.final_layer(hidden, condition)
        return SitOutput(velocity=blocks.unpatchify(patches, patch=self.shape.patch), hidden=tapped)

    def _through(self, block: nn.Module, hidden: Tensor, condition: Tensor) -> Tensor:
        if self.activation_checkpointing and torch.is_grad_enabled():
            # Blocks draw no random number, so there is no state of a generator to keep.
            return checkpoint(block, hidden, condition, use_reentrant=False, preserve_rng_state=False)
        return block(hidden, condition)


def load_weights(model: SiT, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Copy `tensors` into the model in place. Every parameter must be there with its shape, and nothing else.

    The one exception is `pos_embed`, which published files carry although it is fixed; it must be the one this model
    has.
    """
    expected = model.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if name != "pos_embed"}
    refuse_names("missing", sorted(expected.keys() - given.keys()), where=where)
    refuse_names("unexpected", sorted(given.keys() - expected.keys()), where=where)
    for name, tensor in given.items():
        if tensor.shape != expected[name].shape:
            what = f"{name} has shape {tuple(tensor.shape)}, the model needs {tuple(expected[name].shape)}"
            raise DataError(what, where=where, hint="model, latent size and classes must be those of the file")
    if "pos_embed" in tensors:
        check_positions(model, tensors["pos_embed"], where=where)
    model.load_state_dict(given)


def refuse_names(kind: str, names: list[str], *, where: str) -> None:
    """A DataError that lists the first of the parameters that are missing or unexpected, if there are any."""
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise DataError(f"{kind} in the weights of a SiT: {', '.join(names[:5])}{more}", where=where)


def check_positions(model: SiT, pos_embed: Tensor, *, where: str) -> None:
    """A DataError unless `pos_embed` (1, T, D) of a file is the fixed embedding of this model."""
    ours = model.pos_embed
    if pos_embed.shape != ours.shape or not torch.allclose(pos_embed.to(ours), ours, atol=1e-5):
        raise DataError("pos_embed is not the fixed sin-cos embedding of this model", where=where)
