"""The convolutional stages that the VQ-VAE's encoders and decoders and the priors' conditioners are made of.

Shapes are (batch, channels, time) throughout. Each module tells how far it sees to either side (`reach`), in steps of
its input, so that long signals can be worked on in chunks with an exact margin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
        reverse_dilation: whether the largest dilation comes first (the VQ-VAE's decoders).
        scale_residual: whether each residual branch is scaled by 1 / sqrt(depth).
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
        self, input_width: int, output_width: int, strides: Sequence[int], width: int, depth: int, **stack: object
    ) -> None:
        super().__init__()
        self.downsamplers = nn.ModuleList(
            nn.Conv1d(input_width if i == 0 else width, width, 2 * stride, stride=stride, padding=stride // 2)
            for i, stride in enumerate(strides)
        )
        self.stacks = nn.ModuleList(ResidualStack(width, depth, **stack) for _ in strides)
        self.project = nn.Conv1d(width, output_width, 3, padding=1)
        self.ratio = math.prod(strides)
        reach, step = 0, 1
        for stride, stack_module in zip(strides, self.stacks, strict=True):
            reach += step * (2 * stride)
            step *= stride
            reach += step * stack_module.reach
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
        self, input_width: int, output_width: int, strides: Sequence[int], width: int, depth: int, **stack: object
    ) -> None:
        super().__init__()
        self.project = nn.Conv1d(input_width, width, 3, padding=1)
        self.stacks = nn.ModuleList(ResidualStack(width, depth, **stack) for _ in strides)
        self.upsamplers = nn.ModuleList(
            nn.ConvTranspose1d(
                width, output_width if i == len(strides) - 1 else width, 2 * stride, stride=stride, padding=stride // 2
            )
            for i, stride in enumerate(strides)
        )
        self.ratio = math.prod(strides)
        reach, step = 1.0, 1.0
        for stride, stack_module in zip(strides, self.stacks, strict=True):
            reach += step * stack_module.reach
            reach += step * 2
            step /= stride
        self.reach = math.ceil(reach)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.project(hidden)
        for stack, upsampler in zip(self.stacks, self.upsamplers, strict=True):
            hidden = upsampler(stack(hidden))
        return hidden
