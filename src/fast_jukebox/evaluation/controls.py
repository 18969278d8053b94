"""Control sounds for the pitch metrics: noise, and notes without a key."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_CHORD_SECONDS = 0.7


def white_noise(seconds: float, sampling_rate: int, seed: int = 0) -> Tensor:
    """Gaussian noise of a root mean square of 0.1, float32 (samples,)."""
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(round(seconds * sampling_rate), generator=generator)


def random_notes(
    seconds: float,
    sampling_rate: int,
    seed: int = 0,
    *,
    pitch_classes: Sequence[int] = range(12),
    voices: int = 4,
) -> Tensor:
    """Chords of notes drawn one by one from some pitch classes, between C3 and B5: by default no key at all.

    Args:
        pitch_classes: from 0 (C) to 11 (B), which the notes are drawn from with equal chances.
        voices: notes at a time.

    Returns:
        float32 (samples,) below 1, see [`chord`].
    """
    generator = torch.Generator().manual_seed(seed)
    allowed = [pitch for pitch in range(48, 84) if pitch % 12 in set(pitch_classes)]
    length, size = round(seconds * sampling_rate), round(_CHORD_SECONDS * sampling_rate)
    chords = []
    for _ in range(-(-length // size)):
        chosen = torch.randint(len(allowed), (voices,), generator=generator).tolist()
        chords.append(chord([allowed[index] for index in chosen], size, sampling_rate))
    return torch.cat(chords)[:length]


def chord(pitches: Sequence[int], samples: int, sampling_rate: int) -> Tensor:
    """Notes at MIDI pitches, held together: float32 (samples,) below 1, with fades of 10 ms.

    Each is a sum of eight partials that fall off as one over their number.
    """
    time = torch.arange(samples, dtype=torch.float64) / sampling_rate
    total = torch.zeros_like(time)
    for pitch in pitches:
        frequency = 440.0 * 2 ** ((pitch - 69) / 12)
        for partial in range(1, 9):
            if partial * frequency < sampling_rate / 2:
                # Phases apart, so that the partials do not all peak at once.
                total += torch.sin(2 * torch.pi * partial * frequency * time + partial**2) / partial
    fade = (torch.minimum(time, time.flip(0)) / 0.01).clamp_max(1.0)
    return (total * fade / (3.0 * len(pitches))).float()
