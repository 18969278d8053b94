"""How audible the seams between windows are: the change of sound at seams, against that of the rest of the song."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

_FRAME, _HOP = 512, 64
"""Samples of a spectral frame and between two: 12 ms and 1.5 ms at 44.1 kHz."""
_NEAR = 32
"""Samples to either side of a seam among which its jump is looked for."""


@dataclass(frozen=True)
class SeamFigures:
    """What [`seam_figures`] measures.

    Attributes:
        seams: how many seams were measured.
        jump_ratio: mean of the largest step from a sample to the next near a seam, over its mean elsewhere. 1 where
            seams are like the rest, in either figure.
        jump_rank: mean share of the rest of the song in which that step is smaller than at a seam; 0.5 where seams are
            like the rest.
        flux_ratio: mean spectral flux at a seam over its mean elsewhere.
        flux_rank: mean share of the rest of the song in which the flux is smaller than at a seam.
    """

    seams: int
    jump_ratio: float
    jump_rank: float
    flux_ratio: float
    flux_rank: float

    def as_dict(self) -> dict[str, float]:
        """For a table or a JSON file."""
        return asdict(self)


def seam_figures(audio: Tensor, seams: Sequence[Sequence[int]] | Tensor) -> SeamFigures:
    """Measure songs at their seams. Songs of one window have none and count for the rest only.

    Args:
        audio: (N, T), at any rate.
        seams: for each song the positions, in samples, at which one window takes over from another.

    Raises:
        ValueError: another number of songs or a position outside them, no seam at all, or so many in a song that none
            of it is the rest.
    """
    audio = audio.detach().float().cpu()
    if audio.dim() != 2 or audio.shape[1] < 2 * _FRAME:
        raise ValueError(f"`audio` must be (songs, at least {2 * _FRAME} samples), got {tuple(audio.shape)}")
    positions = [[int(seam) for seam in own] for own in seams]
    if len(positions) != len(audio):
        raise ValueError(f"`seams` must be those of {len(audio)} songs, got {len(positions)}")
    outside = [seam for own in positions for seam in own if not 0 < seam < audio.shape[1]]
    if outside:
        raise ValueError(f"`seams` must lie within the {audio.shape[1]} samples of a song, got {outside[0]}")
    if not any(positions):
        raise ValueError("`seams` must hold at least one, got none")
    jumps = _compare([_jumps(song) for song in audio], positions)
    flux = _compare([_flux(song) for song in audio], positions)
    return SeamFigures(sum(map(len, positions)), *jumps, *flux)


def _jumps(song: Tensor) -> Tensor:
    """The largest step between neighbours within `_NEAR` samples, at every `_HOP` samples."""
    steps = song.diff().abs()
    return torch.nn.functional.max_pool1d(steps[None, None], 2 * _NEAR + 1, stride=_HOP, padding=_NEAR)[0, 0]


def _flux(song: Tensor) -> Tensor:
    """How much the magnitude spectrum changes over a frame's length, at every `_HOP` samples."""
    spectrum = torch.stft(song, _FRAME, _HOP, window=torch.hann_window(_FRAME), center=True, return_complex=True).abs()
    apart = _FRAME // 2 // _HOP
    change = (spectrum[:, 2 * apart :] - spectrum[:, : -2 * apart]).square().sum(dim=0).sqrt()
    loudness = (spectrum[:, 2 * apart :] + spectrum[:, : -2 * apart]).square().sum(dim=0).sqrt()
    return torch.nn.functional.pad(change / loudness.clamp(min=1e-6), (apart, apart))


def _compare(curves: list[Tensor], positions: list[list[int]]) -> tuple[float, float]:
    """Ratio and rank of curves, sampled every `_HOP` samples, at some positions against their rest."""
    at_seams, elsewhere, ranks = [], [], []
    for curve, own in zip(curves, positions, strict=True):
        frames = torch.tensor([round(seam / _HOP) for seam in own], dtype=torch.int64).clamp(max=len(curve) - 1)
        near = (torch.arange(len(curve))[:, None] - frames).abs().le(_FRAME // _HOP).any(dim=1)
        rest, values = curve[~near], curve[frames]
        if not len(rest):
            raise ValueError(
                f"`seams` must leave some of each song more than {_FRAME} samples away from them, got {len(own)} seams"
            )
        elsewhere.append(rest)
        at_seams.append(values)
        smaller = (rest < values[:, None]).float() + 0.5 * (rest == values[:, None]).float()
        ranks.append(smaller.mean(dim=1))
    mean = torch.cat(elsewhere).mean().clamp(min=1e-12)
    return float(torch.cat(at_seams).mean() / mean), float(torch.cat(ranks).mean())
