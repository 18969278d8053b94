"""Bits per code of a model's priors on recordings, song by song, with an interval over the songs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from fast_jukebox.data.codes import CodeWindows
from fast_jukebox.data.encoding import encode_song
from fast_jukebox.evaluation.distance import Estimate, bootstrap
from fast_jukebox.evaluation.embeddings import Sound, read_sound
from fast_jukebox.evaluation.likelihood import BigramModel, CodeLikelihood, count_likelihood, prior_likelihood
from fast_jukebox.models.fast_jukebox import FastJukeboxModel
from fast_jukebox.models.prior import FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.processing import FastJukeboxProcessor

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class SongBits:
    """Bits that one prior needs for each song.

    Attributes:
        bits: float64 (songs,) sum of -log2 of the probability given to each code.
        hits: float64 (songs,) how many of the codes were the most probable one.
        codes: float64 (songs,) how many codes were predicted.
    """

    bits: Tensor
    hits: Tensor
    codes: Tensor

    def estimate(self, resamples: int = 200, seed: int = 0) -> Estimate:
        """Bits per code of all songs, with an interval by a bootstrap over them."""
        return self._ratio(self.bits, resamples, seed)

    def accuracy(self, resamples: int = 200, seed: int = 0) -> Estimate:
        """Fraction of the codes that were the most probable one, with an interval."""
        return self._ratio(self.hits, resamples, seed)

    def _ratio(self, sums: Tensor, resamples: int, seed: int) -> Estimate:
        return bootstrap(
            lambda weights: float(weights @ sums / (weights @ self.codes)), range(len(sums)), resamples, seed
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
    from datasets import Dataset

    vqvae, configs = model.vqvae.eval(), [prior.config for prior in model.priors]
    rate = vqvae.config.sampling_rate
    codes = [encode_song({}, read_sound(sound, rate, sampling_rate, duration), vqvae) for sound in sounds]
    for level, config in enumerate(configs):
        longest = max((len(song[f"codes_{level}"]) for song in codes), default=0)
        if longest < config.n_ctx:
            context, found = (count * config.hop_length / rate for count in (config.n_ctx, longest))
            raise ValueError(
                f"a song must last at least {context:.3g} s, the context of the prior of level {level}; the longest of "
                f"{len(codes)} has {found:.3g} s of codes"
            )
    songs = windows_of_songs(Dataset.from_list(codes), configs, max_windows)
    return bits_of_levels([predict_song(model, song, batch_size) for song in songs])


def windows_of_songs(
    rows: Dataset,
    configs: Sequence[FastJukeboxPriorConfig],
    max_windows: int | None,
    processor: FastJukeboxProcessor | None = None,
) -> Iterator[SongWindows]:
    """Windows of songs' codes that the priors, bottom first, are to predict, level by level and song by song.

    Args:
        rows: a song each, see [`~fast_jukebox.data.codes.encode_songs`].
        configs: of the priors.
        max_windows: windows for each prior, spread evenly over the songs; None for all, side by side.
        processor: knows the songs' names, which the priors receive; None for no names.

    Raises:
        ValueError: what [`~fast_jukebox.data.codes.CodeWindows`] refuses.
    """
    for level, config in enumerate(configs):
        windows = CodeWindows(rows, config, max_windows=max_windows, processor=processor)
        of_song: dict[int, list[int]] = {}
        for index in range(len(windows)):
            of_song.setdefault(windows.sampler[windows.window_number(index)][0], []).append(index)
        for own in of_song.values():
            yield SongWindows(level, [windows[index] for index in own])


def windows_digest(songs: Iterable[SongWindows]) -> str:
    """Eight hexadecimal digits that change with the windows: their codes, and the names that the priors receive."""
    digest = hashlib.sha256()
    for song in songs:
        digest.update(f"{song.level} {len(song.windows)}".encode())
        for window in song.windows:
            for name, values in sorted(window.items()):
                digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()[:8]


def predict_song(model: FastJukeboxModel, song: SongWindows, batch_size: int = 4) -> dict[str, float]:
    """What the prior of a level needs for the windows of a song: `level`, `bits`, `hits` and `codes`."""
    prior = cast("FastJukeboxPrior", model.priors[song.level])
    return _sums(song.level, prior_likelihood(prior, song.windows, batch_size))


def predict_by_counts(
    songs: Sequence[SongWindows], training: Dataset, configs: Sequence[FastJukeboxPriorConfig]
) -> dict[str, list[SongBits]]:
    """Bits for windows of songs by counts of the training songs' codes, one entry a level, bottom first.

    Returns:
        Of the `unigram` and the `bigram` model.
    """
    rows: dict[str, list[dict[str, float]]] = {"unigram": [], "bigram": []}
    for level, config in enumerate(configs):
        column = f"codes_{level}"
        codes = (song[column] for song in training.select_columns([column]).with_format("numpy"))
        bigram = BigramModel.fit((torch.from_numpy(own.astype("int64")) for own in codes), config.codebook_size)
        for song in songs:
            if song.level == level:
                rows["unigram"].append(_sums(level, count_likelihood(bigram.unigram, song.windows)))
                rows["bigram"].append(_sums(level, count_likelihood(bigram, song.windows)))
    return {name: bits_of_levels(own) for name, own in rows.items()}


def _sums(level: int, found: CodeLikelihood) -> dict[str, float]:
    codes = float(found.codes)
    return {"level": level, "bits": found.bits_per_code * codes, "hits": found.accuracy * codes, "codes": codes}


def bits_of_levels(rows: Sequence[Mapping[str, float]]) -> list[SongBits]:
    """One entry a level, bottom first, of what [`predict_song`] gave for each song."""
    levels = sorted({int(row["level"]) for row in rows})
    columns = [
        [torch.tensor([row[name] for row in rows if row["level"] == level], dtype=torch.float64) for level in levels]
        for name in ("bits", "hits", "codes")
    ]
    return [SongBits(*own) for own in zip(*columns, strict=True)]
