"""Audibility of boundaries between windows: the change of sound there, against that of the rest of the song."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_FRAME, _HOP = 512, 64
"""Samples of a spectral frame and between two: 12 ms and 1.5 ms at 44.1 kHz."""
_NEAR = 32
"""Samples to either side of a boundary among which its jump is looked for."""


@dataclass(frozen=True)
class BoundaryMetrics:
    """Metrics of the boundaries between windows.

    Attributes:
        boundaries: how many were measured.
        jump_ratio: mean of the largest step from a sample to the next near a boundary, over its mean elsewhere. 1 where
            boundaries are like the rest; so of the flux.
        jump_rank: mean fraction of the rest of the song in which that step is smaller than at a boundary; 0.5 where
            boundaries are like the rest.
        flux_ratio: mean spectral flux at a boundary over its mean elsewhere.
        flux_rank: mean fraction of the rest of the song in which the flux is smaller than at a boundary.
    """

    boundaries: int
    jump_ratio: float
    jump_rank: float
    flux_ratio: float
    flux_rank: float


def boundary_metrics(audio: Tensor, boundaries: Sequence[Sequence[int]] | Tensor) -> BoundaryMetrics:
    """Measure songs at the boundaries between their windows. Songs of one window count for the rest only.

    Args:
        audio: (N, T), at any rate.
        boundaries: for each song the positions, in samples, at which one window takes over from another.

    Raises:
        ValueError: another number of songs or a position outside them, no boundary at all, or so many in a song that
            none of it is the rest.
    """
    audio = audio.detach().float().cpu()
    if audio.dim() != 2 or audio.shape[1] < 2 * _FRAME:
        raise ValueError(f"`audio` must be (songs, at least {2 * _FRAME} samples), got {tuple(audio.shape)}")
    positions = [[int(boundary) for boundary in own] for own in boundaries]
    if len(positions) != len(audio):
        raise ValueError(f"`boundaries` must be those of {len(audio)} songs, got {len(positions)}")
    outside = [boundary for own in positions for boundary in own if not 0 < boundary < audio.shape[1]]
    if outside:
        raise ValueError(f"`boundaries` must lie within the {audio.shape[1]} samples of a song, got {outside[0]}")
    if not any(positions):
        raise ValueError("`boundaries` must hold at least one, got none")
    jumps = _compare([_jumps(song) for song in audio], positions)
    flux = _compare([_flux(song) for song in audio], positions)
    return BoundaryMetrics(sum(map(len, positions)), *jumps, *flux)


def _jumps(song: Tensor) -> Tensor:
    """The largest step between neighbours within `_NEAR` samples, at every `_HOP` samples."""
    steps = song.diff().abs()
    return torch.nn.functional.max_pool1d(steps[None, None], 2 * _NEAR + 1, stride=_HOP, padding=_NEAR)[0, 0]


def _flux(song: Tensor) -> Tensor:
    """Change of the magnitude spectrum over a frame's length, at every `_HOP` samples."""
    spectrum = torch.stft(song, _FRAME, _HOP, window=torch.hann_window(_FRAME), center=True, return_complex=True).abs()
    apart = _FRAME // 2 // _HOP
    change = (spectrum[:, 2 * apart :] - spectrum[:, : -2 * apart]).square().sum(dim=0).sqrt()
    loudness = (spectrum[:, 2 * apart :] + spectrum[:, : -2 * apart]).square().sum(dim=0).sqrt()
    return torch.nn.functional.pad(change / loudness.clamp(min=1e-6), (apart, apart))


def _compare(curves: list[Tensor], positions: list[list[int]]) -> tuple[float, float]:
    """Ratio and rank of curves, sampled every `_HOP` samples, at some positions against their rest."""
    at_boundaries, elsewhere, ranks = [], [], []
    for curve, own in zip(curves, positions, strict=True):
        frames = torch.tensor([round(boundary / _HOP) for boundary in own], dtype=torch.int64).clamp(max=len(curve) - 1)
        near = (torch.arange(len(curve))[:, None] - frames).abs().le(_FRAME // _HOP).any(dim=1)
        rest, values = curve[~near], curve[frames]
        if not len(rest):
            raise ValueError(
                f"`boundaries` must leave some of each song more than {_FRAME} samples away from them, got {len(own)}"
            )
        elsewhere.append(rest)
        at_boundaries.append(values)
        smaller = (rest < values[:, None]).float() + 0.5 * (rest == values[:, None]).float()
        ranks.append(smaller.mean(dim=1))
    mean = torch.cat(elsewhere).mean().clamp(min=1e-12)
    return float(torch.cat(at_boundaries).mean() / mean), float(torch.cat(ranks).mean())
