"""Weights of linear layers that have taken in those of the LayerNorm before them.

LayerNorm and a linear layer give W (g * (x - mean) / deviation + b) + c = (V x - mean * t) / deviation + d with
V = W g, t the sums of the rows of V, and d = W b + c. So rows need not be normalised before they are multiplied.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from fast_jukebox.models.prior.block import BlockList, PriorBlock
from fast_jukebox.models.prior.engines.interface import EnginePrior
from fast_jukebox.sampling.adapters import effective_weights
from fast_jukebox.sampling.engine import kept_for_prior


class Folded(NamedTuple):
    """A linear layer with the LayerNorm before it, in the words of the module."""

    weight: Tensor
    """V (outputs, inputs), in the dtype of the layer"""
    totals: Tensor
    """t float32 (outputs,), of V as it is rounded"""
    bias: Tensor
    """d float32 (outputs,)"""

    @classmethod
    def empty(cls, layer: nn.Linear) -> Folded:
        """Memory for one."""
        weight = effective_weights(layer)[0].detach()
        outputs = torch.empty(len(weight), device=weight.device)
        return cls(torch.empty_like(weight), outputs, torch.empty_like(outputs))

    def fill(self, layer: nn.Linear, norm: nn.LayerNorm) -> None:
        """Take in the weights as they are now."""
        weight, bias = (cast(Tensor, own).detach().float() for own in effective_weights(layer))
        gain, shift = (cast(Tensor, own).detach().float() for own in effective_weights(norm))
        self.weight.copy_(weight * gain)
        torch.sum(self.weight, 1, dtype=torch.float32, out=self.totals)
        torch.add(bias, weight @ shift, out=self.bias)


class FoldedBlocks:
    """The folded layers of a prior, one copy for all of its decoders: (query, key and value), (first of the MLP)."""

    def __init__(self, blocks: BlockList) -> None:
        self.layers = [(Folded.empty(block.attention.qkv), Folded.empty(block.mlp.expand)) for block in blocks]

    def fill(self, blocks: BlockList) -> None:
        """Take in the weights as they are now."""
        with torch.no_grad():
            for (attention, mlp), block in zip(self.layers, blocks, strict=True):
                attention.fill(block.attention.qkv, block.attention_norm)
                mlp.fill(block.mlp.expand, block.mlp_norm)


def folded_blocks(prior: EnginePrior) -> FoldedBlocks:
    """The memory that decoders of a prior share."""
    like = effective_weights(cast(PriorBlock, prior.blocks[0]).attention.qkv)[0]
    state = (like.device, like.dtype, len(prior.blocks))
    return kept_for_prior(prior, "folded weights", state, lambda: FoldedBlocks(prior.blocks))
