"""Layers of the VQ-VAE: convolutional stages, of which the priors' conditioners are made too, and the codebook.

Shapes are (batch, channels, time) throughout. Each stage has its reach to either side (`reach`), in steps of
its input, so that long signals can be worked on in chunks with an exact margin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from typing_extensions import Unpack  # comes with torch


class StackOptions(TypedDict, total=False):
    """Options of a [`ResidualStack`]."""

    inner_width: int | None
    dilation_growth_rate: int
    dilation_cycle: int | None
    reverse_dilation: bool
    scale_residual: bool


class ResidualBlock(nn.Module):
    """x + scale * conv1(relu(conv3(relu(x)))) with a dilated first convolution.

    Args:
        width: channels of input and output.
        inner_width: channels between the two convolutions.
        dilation: dilation of the kernel-3 convolution, at least 1.
        scale: factor on the residual branch.
    """

    def __init__(self, width: int, inner_width: int, dilation: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.conv_in = nn.Conv1d(width, inner_width, 3, dilation=dilation, padding=dilation)
        self.conv_out = nn.Conv1d(inner_width, width, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        branch = self.conv_out(F.relu(self.conv_in(F.relu(hidden))))
        return hidden + branch if self.scale == 1.0 else torch.add(hidden, branch, alpha=self.scale)


class ResidualStack(nn.Module):
    """`depth` residual blocks with growing dilation.

    Args:
        width: channels.
        depth: number of blocks.
        inner_width: channels inside each block; `width` where None.
        dilation_growth_rate: block i has dilation `rate ** i`, or `rate ** (i mod dilation_cycle)`.
        dilation_cycle: length of the cycle, None for none.
        reverse_dilation: the largest dilation comes first (the VQ-VAE's decoders).
        scale_residual: each residual branch is scaled by 1 / sqrt(depth).
    """

    def __init__(
        self,
        width: int,
        depth: int,
        *,
        inner_width: int | None = None,
        dilation_growth_rate: int = 1,
        dilation_cycle: int | None = None,
        reverse_dilation: bool = False,
        scale_residual: bool = False,
    ) -> None:
        super().__init__()
        dilations = [
            dilation_growth_rate ** (i if dilation_cycle is None else i % dilation_cycle) for i in range(depth)
        ]
        if reverse_dilation:
            dilations.reverse()
        scale = 1.0 / math.sqrt(depth) if scale_residual else 1.0
        inner_width = width if inner_width is None else inner_width
        self.blocks = nn.ModuleList(ResidualBlock(width, inner_width, dilation, scale) for dilation in dilations)
        self.reach = sum(dilations)

    def forward(self, hidden: Tensor) -> Tensor:
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


class EncoderStage(nn.Module):
    """Divide time by each of the strides, a residual stack after each, then project.

    (N, input_width, T) -> (N, output_width, T / product of `strides`).
    """

    def __init__(
        self,
        input_width: int,
        output_width: int,
        strides: Sequence[int],
        width: int,
        depth: int,
        **stack: Unpack[StackOptions],
    ) -> None:
        super().__init__()
        self.downsamplers = nn.ModuleList(
            nn.Conv1d(input_width if i == 0 else width, width, 2 * stride, stride=stride, padding=stride // 2)
            for i, stride in enumerate(strides)
        )
        stacks = [ResidualStack(width, depth, **stack) for _ in strides]
        self.stacks = nn.ModuleList(stacks)
        self.project = nn.Conv1d(width, output_width, 3, padding=1)
        self.ratio = math.prod(strides)
        reach, step = 0, 1
        for stride, residual in zip(strides, stacks, strict=True):
            reach += step * (2 * stride)
            step *= stride
            reach += step * residual.reach
        self.reach = reach + step

    def forward(self, hidden: Tensor) -> Tensor:
        for downsampler, stack in zip(self.downsamplers, self.stacks, strict=True):
            hidden = stack(downsampler(hidden))
        return self.project(hidden)


class DecoderStage(nn.Module):
    """Project, then for each stride a residual stack and a transposed convolution that multiplies time by it.

    (N, input_width, L) -> (N, output_width, L * product of `strides`).
    """

    def __init__(
        self,
        input_width: int,
        output_width: int,
        strides: Sequence[int],
        width: int,
        depth: int,
        **stack: Unpack[StackOptions],
    ) -> None:
        super().__init__()
        self.project = nn.Conv1d(input_width, width, 3, padding=1)
        stacks = [ResidualStack(width, depth, **stack) for _ in strides]
        self.stacks = nn.ModuleList(stacks)
        self.upsamplers = nn.ModuleList(
            nn.ConvTranspose1d(
                width, output_width if i == len(strides) - 1 else width, 2 * stride, stride=stride, padding=stride // 2
            )
            for i, stride in enumerate(strides)
        )
        self.ratio = math.prod(strides)
        reach, step = 1.0, 1.0
        for stride, residual in zip(strides, stacks, strict=True):
            reach += step * residual.reach
            reach += step * 2
            step /= stride
        self.reach = math.ceil(reach)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.project(hidden)
        for stack, upsampler in zip(self.stacks, self.upsamplers, strict=True):
            hidden = upsampler(stack(hidden))
        return hidden


# Rows of latents whose distances to all codes are held at once: 8192 x 2048 floats are 64 MB.
_ROWS_AT_ONCE = 8192


class Quantised(NamedTuple):
    """Output of [`Codebook.forward`]."""

    codes: Tensor
    """int64 (N, L)"""
    vectors: Tensor
    """(N, D, L), the codes' vectors, with the latents' gradient (straight through)"""
    commitment_loss: Tensor
    """scalar: mean squared distance of the latents to their (detached) vectors"""


class Codebook(nn.Module):
    """K vectors of width D; a latent's code is the index of the nearest by squared distance.

    In training mode `forward` also moves the vectors: running sums and counts decay by `decay`, a vector is its sum
    over its count, and one whose running count falls under `revival_threshold` restarts from a random latent of the
    batch. The first training batch initialises all vectors. A codebook that has vectors but no counts (one taken from
    a published checkpoint) starts from the counts of an even use.

    Args:
        size: K, number of vectors.
        width: D, width of a vector.
        decay: of the moving averages, in [0, 1).
        revival_threshold: running count a batch under which a vector is replaced.
    """

    vectors: Tensor
    counts: Tensor
    initialized: Tensor

    def __init__(self, size: int, width: int, decay: float = 0.99, revival_threshold: float = 1.0) -> None:
        super().__init__()
        self.size, self.width = size, width
        self.decay, self.revival_threshold = decay, revival_threshold
        self.register_buffer("vectors", torch.empty(size, width))
        self.register_buffer("counts", torch.empty(size))
        self.register_buffer("initialized", torch.empty((), dtype=torch.bool))
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Make it a fresh codebook: random vectors until the first training batch."""
        self.vectors.normal_()
        self.counts.zero_()
        self.initialized.zero_()

    @torch.no_grad()
    def encode(self, latents: Tensor) -> Tensor:
        """Codes (N, L) of latents (N, D, L)."""
        batch, width, length = latents.shape
        rows = latents.transpose(1, 2).reshape(-1, width).float()
        vectors = self.vectors.float()
        # |x - k|^2 without |x|^2, which is the same for every k.
        bias = vectors.square().sum(1)
        codes = [torch.addmm(bias, part, vectors.T, alpha=-2.0).argmin(1) for part in rows.split(_ROWS_AT_ONCE)]
        return torch.cat(codes).view(batch, length)

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors (N, D, L) of codes (N, L)."""
        return F.embedding(codes, self.vectors).transpose(1, 2)

    def forward(self, latents: Tensor) -> Quantised:
        """Quantise latents (N, D, L); in training mode, learn from them first as the class says.

        The codes and vectors returned are those of the codebook before this batch moved it.
        """
        if self.training:
            random_rows = self._random_rows(latents)
            self._initialize(random_rows)
        codes = self.encode(latents)
        vectors = self.decode(codes).to(latents.dtype)
        if self.training:
            self._update(latents, codes, random_rows)
        commitment_loss = F.mse_loss(latents.float(), vectors.float())
        return Quantised(codes, latents + (vectors - latents).detach(), commitment_loss)

    @torch.no_grad()
    def _random_rows(self, latents: Tensor) -> Tensor:
        """K random latents of the batch (K, D), the same in every process."""
        rows = latents.detach().transpose(1, 2).reshape(-1, self.width).to(self.vectors.dtype)
        scores = torch.rand(max(self.size, rows.shape[0]), device=rows.device)
        chosen = scores.argsort()[: self.size] % rows.shape[0]
        rows = rows[chosen]
        if distributed.is_available() and distributed.is_initialized():
            distributed.broadcast(rows, 0)
        return rows

    @torch.no_grad()
    def _initialize(self, random_rows: Tensor) -> None:
        self.vectors.copy_(torch.where(self.initialized, self.vectors, random_rows))
        self.initialized.fill_(True)

    @torch.no_grad()
    def _update(self, latents: Tensor, codes: Tensor, random_rows: Tensor) -> None:
        rows = latents.detach().transpose(1, 2).reshape(-1, self.width).to(self.vectors.dtype)
        drawn = codes.flatten()
        # Not bincount, whose shape depends on the codes, which torch.compile cannot take.
        batch_counts = torch.zeros_like(self.counts).index_add_(0, drawn, torch.ones_like(rows[:, 0]))
        batch_sums = torch.zeros_like(self.vectors).index_add_(0, drawn, rows)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(batch_counts)
            distributed.all_reduce(batch_sums)
        even_use = batch_counts.sum() / self.size
        counts = torch.where(self.counts.sum() > 0, self.counts, even_use)
        sums = torch.lerp(batch_sums, self.vectors * counts[:, None], self.decay)
        counts = torch.lerp(batch_counts, counts, self.decay)
        alive = counts >= self.revival_threshold
        self.vectors.copy_(torch.where(alive[:, None], sums / counts.clamp_min(1e-8)[:, None], random_rows))
        # A revived code starts with just enough count to have a few batches to find its latents.
        self.counts.copy_(torch.where(alive, counts, counts.clamp_min(self.revival_threshold)))
