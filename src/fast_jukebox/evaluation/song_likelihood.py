"""Bits per code of a model's priors on recordings, song by song, with an interval over the songs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.data.codes import CodeWindows
from fast_jukebox.evaluation.distance import Estimate, bootstrap
from fast_jukebox.evaluation.embeddings import Sound, read_sound
from fast_jukebox.evaluation.likelihood import prior_likelihood
from fast_jukebox.models.fast_jukebox import FastJukeboxModel
from fast_jukebox.models.prior import FastJukeboxPrior


@dataclass(frozen=True)
class SongBits:
    """What one prior needs for each song.

    Attributes:
        bits: float64 (songs,) sum of -log2 of the probability given to each code.
        codes: float64 (songs,) how many codes were predicted.
    """

    bits: Tensor
    codes: Tensor

    def estimate(self, resamples: int = 200, seed: int = 0) -> Estimate:
        """Bits per code of all songs, with an interval by a bootstrap over them."""
        return bootstrap(
            lambda weights: float(weights @ self.bits / (weights @ self.codes)), range(len(self.bits)), resamples, seed
        )


@torch.no_grad()
def song_bits(
    model: FastJukeboxModel,
    sounds: Sequence[Sound],
    *,
    sampling_rate: int | None = None,
    duration: float | None = None,
    max_windows: int | None = 64,
    batch_size: int = 4,
) -> list[SongBits]:
    """Encode recordings and let each prior predict windows of their codes, of one context each.

    Args:
        model: a whole model, on any device. A prior with labels receives no names.
        sounds: files, or samples (T,) at `sampling_rate`.
        sampling_rate: of samples, in Hz.
        duration: seconds from the start of each song.
        max_windows: windows for each prior, spread evenly over the songs; None for all, side by side.
        batch_size: windows at a time.

    Returns:
        One entry a level, bottom first, of the songs that have a window of that level.

    Raises:
        ValueError: every song is shorter than a prior's context, or a sound that cannot be used.
    """
    from datasets import Dataset

    vqvae = model.vqvae.eval()
    hop = vqvae.config.hop_lengths[-1]
    columns: dict[str, list[list[int]]] = {f"codes_{level}": [] for level in range(vqvae.config.num_levels)}
    for sound in sounds:
        audio = read_sound(sound, vqvae.config.sampling_rate, sampling_rate, duration)
        audio = F.pad(audio, (0, -len(audio) % hop if len(audio) < hop else 0))
        for level, codes in enumerate(vqvae.encode(audio[None, : len(audio) // hop * hop].to(vqvae.device))):
            columns[f"codes_{level}"].append(codes[0].tolist())
    rows = Dataset.from_dict(columns)
    found = []
    for prior in cast("list[FastJukeboxPrior]", model.priors):
        windows = CodeWindows(rows, prior.config, max_windows=max_windows)
        every, count = len(windows.sampler), len(windows)
        of_song: dict[int, list[int]] = {}
        for index in range(count):
            of_song.setdefault(windows.sampler[index * every // count][0], []).append(index)
        scores = [
            prior_likelihood(prior, (windows[index] for index in own), batch_size=batch_size)
            for own in of_song.values()
        ]
        bits = [score.bits_per_code * score.codes for score in scores]
        codes = [float(score.codes) for score in scores]
        found.append(SongBits(torch.tensor(bits, dtype=torch.float64), torch.tensor(codes, dtype=torch.float64)))
    return found
