"""Agreement of songs with their labels: statistics of timbre and rhythm, judged by a classifier of real songs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fast_jukebox.evaluation.mel import mel_frames, window_length
from fast_jukebox.evaluation.probing import LinearClassifier
from fast_jukebox.evaluation.transcription import QUIET, find_onsets

_BANDS = 40
_SHORTEST_LAG, _LONGEST_LAG, _LAGS = 0.09, 1.6, 64
_WIDTH = 0.015
_FLOOR = 1e-5


def describe_timbre(audio: Tensor, sampling_rate: int) -> Tensor:
    """Spectrum of sound (samples,) whatever its loudness, float32 (80,): mean and standard deviation of 40 mel bands in
    decibels; zeros for silence.

    Each frame of 46 ms counts relative to its own mean over the bands, which are cut off 50 dB below the loudest;
    frames below [`QUIET`] do not count.
    """
    n_fft, audio = window_length(sampling_rate), audio.float()
    if len(audio) < n_fft:
        return torch.zeros(2 * _BANDS)
    loud = audio.unfold(0, n_fft, n_fft // 2).square().mean(dim=1).sqrt() >= QUIET  # (frames,)
    if loud.sum() < 2:
        return torch.zeros(2 * _BANDS)
    bands = mel_frames(audio, sampling_rate, _BANDS, n_fft // 2).T[loud]  # (frames, bands)
    decibels = 10 * (bands / bands.amax(dim=1, keepdim=True)).clamp_min(_FLOOR).log10()
    decibels = decibels - decibels.mean(dim=1, keepdim=True)
    return torch.cat([decibels.mean(dim=0), decibels.std(dim=0)]).cpu()


def describe_rhythm(audio: Tensor, sampling_rate: int) -> Tensor:
    """Spans of time between attacks of sound (samples,), float32 (65,): the autocorrelation of the onsets, which shows
    tempo and metre.

    For 64 spans from 0.09 to 1.6 s, evenly spaced in their logarithm, pairs of onsets so far apart, as a fraction of
    all onsets; then the onsets a second.
    """
    onsets = find_onsets(audio, sampling_rate).cpu()
    lags = torch.logspace(math.log10(_SHORTEST_LAG), math.log10(_LONGEST_LAG), _LAGS)
    if len(onsets) < 2:
        return torch.zeros(_LAGS + 1)
    spans = onsets[None] - onsets[:, None]  # (onsets, onsets)
    spans = spans[(spans > 0) & (spans < 2 * _LONGEST_LAG)]
    # A long span is known as well as a short one in relation to itself.
    width = _WIDTH + 0.02 * lags
    near = torch.exp(-0.5 * ((spans[:, None] - lags) / width).square()).sum(dim=0)
    seconds = len(audio) / sampling_rate
    return torch.cat([near / len(onsets), torch.tensor([len(onsets) / seconds])])


@dataclass(frozen=True)
class LabelAgreement:
    """Fractions of songs and samples in which a classifier of real songs finds the label.

    Attributes:
        songs: fraction of held-out songs whose label it finds: the most that samples can reach.
        samples: fraction of samples whose label it finds.
        chance: one over the number of labels.
        swapped: fraction of samples in which it finds the label asked of another sample, the mean over all others with
            another label: what a model gets that plays every label but listens to none.
        by_label: fraction of samples, by label.
    """

    songs: float
    samples: float
    chance: float
    swapped: float
    by_label: dict[str, float]


def label_agreement(
    train: Tensor,
    train_labels: Sequence[str],
    held_out: Tensor,
    held_out_labels: Sequence[str],
    samples: Tensor,
    sample_labels: Sequence[str],
) -> LabelAgreement:
    """Judge samples by what they were asked to be, with a classifier of real songs.

    Args:
        train, train_labels: descriptions (songs, features) of real songs that the classifier learns from.
        held_out, held_out_labels: of other real songs.
        samples, sample_labels: of samples, and what each was asked to be.

    Raises:
        ValueError: as [`LinearClassifier.fit_discriminant`]; or samples were asked for what no song is.
    """
    classifier = LinearClassifier.fit_discriminant(train, train_labels)
    if strangers := sorted(set(sample_labels) - set(classifier.labels)):
        raise ValueError(f"`sample_labels` must be labels of songs, got {strangers}")
    heard = classifier.predict(samples)
    real = classifier.predict(held_out)
    rates = []
    for own, label in zip(heard, sample_labels, strict=True):
        others = [other for other in sample_labels if other != label]
        rates += [sum(other == own for other in others) / len(others)] if others else []
    by_label = {
        name: sum(own == name for own, asked in zip(heard, sample_labels, strict=True) if asked == name)
        / list(sample_labels).count(name)
        for name in sorted(set(sample_labels))
    }
    return LabelAgreement(
        songs=_fraction(real, held_out_labels),
        samples=_fraction(heard, sample_labels),
        chance=1 / len(classifier.labels),
        swapped=sum(rates) / len(rates) if rates else math.nan,
        by_label=by_label,
    )


def _fraction(heard: Sequence[str], labels: Sequence[str]) -> float:
    equal = [own == label for own, label in zip(heard, labels, strict=True)]
    return sum(equal) / len(equal) if equal else math.nan
