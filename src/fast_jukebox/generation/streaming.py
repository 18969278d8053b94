"""Songs that are heard while they are made."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fast_jukebox.generation import decoding
from fast_jukebox.generation.decoding import decode_piece, decoder_reach, pieces
from fast_jukebox.generation.song import SongSampler


class SongStream:
    """Audio of a plan, piece by piece, in memory that does not grow.

    Each round makes as much again as has been heard, up to `round_seconds`: so the first sound comes as soon as the
    windows allow, and later rounds sample many windows at once. How much a round makes changes no sample.

    Args:
        sampler: nothing of its plan is sampled yet.
        vqvae: has `config`, `decode` and `levels`.
        round_seconds: audio that a round makes at most.
    """

    def __init__(self, sampler: SongSampler, vqvae: Any, round_seconds: float) -> None:
        self.sampler, self.vqvae, self.plan = sampler, vqvae, sampler.plan
        self.level = self.plan.stop_level
        self.hop = vqvae.config.hop_lengths[self.level]
        self.reach = decoder_reach(vqvae, self.level)
        self.length = self.plan.lengths[self.level]
        self._most = max(round(round_seconds * vqvae.config.sampling_rate), decoding.FIRST_SAMPLES)
        self._pieces = pieces(self.hop, self.length)
        self._piece = next(self._pieces, None)

    def next_piece(self) -> Tensor | None:
        """Audio float32 (N, samples) of the next piece, made now if it is not there yet; `None` after the last."""
        if self._piece is None:
            return None
        own, (start, stop) = self.sampler[self.level], self._piece
        if own.final < self._within(stop + self.reach):
            round_samples = min(max(start * self.hop, decoding.FIRST_SAMPLES), self._most)
            ahead = max(stop, start + round_samples // self.hop) + self.reach
            self.sampler.advance(self.level, self._within(ahead))
        first, last = max(start - self.reach, 0), self._within(stop + self.reach)
        audio = decode_piece(self.vqvae, own.read(first, last), self.level, first, start, stop)
        self._piece = next(self._pieces, None)
        self._forget()
        return audio if self.plan.samples is None else audio[:, : self.plan.samples - start * self.hop]

    def _within(self, position: int) -> int:
        return position if self.length is None else min(position, self.length)

    def _forget(self) -> None:
        """Let go of codes that neither a window to come nor the decoder will ask for."""
        below = self._piece[0] - self.reach if self._piece is not None else None
        for level in range(self.level, len(self.sampler.levels)):
            own = self.sampler[level]
            ahead = own.ahead(1)
            starts = ([below] if below is not None else []) + [window.start for window in ahead]
            if starts:
                own.forget(min(starts))
            below = ahead[0].start // self.plan.ratios[level] if ahead else None


__all__ = ["SongStream"]
