"""Bits per code of a model's priors on recordings, song by song, with an interval over the songs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from fast_jukebox.models.prior import FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.models.vqvae import FastJukeboxVQVAE


@dataclass(frozen=True)
class SongBits:
    """Bits that one prior needs for each song.

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


@dataclass(frozen=True)
class SongWindows:
    """Windows of a song's codes that one prior is to predict.

    Attributes:
        level: of the prior.
        windows: of one context each, as [`prior_likelihood`] takes them; at least one.
    """

    level: int
    windows: Sequence[Mapping[str, Tensor]]


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
        model: a complete model, on any device. A prior with labels receives no names.
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
    codes = [encode_sound(model.vqvae.eval(), sound, sampling_rate, duration) for sound in sounds]
    songs = windows_of_songs(codes, [prior.config for prior in model.priors], max_windows)
    return bits_of_levels([predict_song(model, song, batch_size) for song in songs])


@torch.no_grad()
def encode_sound(
    vqvae: FastJukeboxVQVAE, sound: Sound, sampling_rate: int | None = None, duration: float | None = None
) -> list[Tensor]:
    """Codes int32 (length,) of each level of a recording's seconds, bottom first, on the CPU; see [`song_bits`]."""
    hop = vqvae.config.hop_lengths[-1]
    audio = read_sound(sound, vqvae.config.sampling_rate, sampling_rate, duration)
    audio = F.pad(audio, (0, -len(audio) % hop if len(audio) < hop else 0))
    encoded = vqvae.encode(audio[None, : len(audio) // hop * hop].to(vqvae.device))
    return [codes[0].to("cpu", torch.int32) for codes in encoded]


def windows_of_songs(
    codes: Sequence[Sequence[Tensor]], configs: Sequence[FastJukeboxPriorConfig], max_windows: int | None
) -> Iterator[SongWindows]:
    """Windows of songs' codes that the priors, bottom first, are to predict, level by level and song by song.

    There are at most `max_windows` for each prior, spread evenly over the songs; None for all, side by side.

    Raises:
        ValueError: every song is shorter than a prior's context.
    """
    from datasets import Dataset

    rows = Dataset.from_dict(
        {f"codes_{level}": [song[level].numpy() for song in codes] for level in range(len(configs))}
    )
    for level, config in enumerate(configs):
        longest = max((len(song[level]) for song in codes), default=0)
        if longest < config.n_ctx:
            context, found = (count * config.hop_length / config.sampling_rate for count in (config.n_ctx, longest))
            raise ValueError(
                f"a song must last at least {context:.3g} s, the context of the prior of level {level}; the longest of "
                f"{len(codes)} has {found:.3g} s of codes"
            )
        windows = CodeWindows(rows, config, max_windows=max_windows)
        of_song: dict[int, list[int]] = {}
        for index in range(len(windows)):
            of_song.setdefault(windows.sampler[windows.window_number(index)][0], []).append(index)
        for own in of_song.values():
            yield SongWindows(level, [windows[index] for index in own])


def predict_song(model: FastJukeboxModel, song: SongWindows, batch_size: int = 4) -> dict[str, float]:
    """What the prior of a level needs for the windows of a song: `level`, `bits` and `codes`."""
    prior = cast("FastJukeboxPrior", model.priors[song.level])
    score = prior_likelihood(prior, song.windows, batch_size=batch_size)
    return {"level": song.level, "bits": score.bits_per_code * score.codes, "codes": float(score.codes)}


def bits_of_levels(rows: Sequence[Mapping[str, float]]) -> list[SongBits]:
    """One entry a level, bottom first, of what [`predict_song`] gave for each song."""
    levels = sorted({int(row["level"]) for row in rows})
    columns = [
        [torch.tensor([row[name] for row in rows if row["level"] == level], dtype=torch.float64) for level in levels]
        for name in ("bits", "codes")
    ]
    return [SongBits(*own) for own in zip(*columns, strict=True)]
