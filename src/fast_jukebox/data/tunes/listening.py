"""Checks of a rendering: its level, jumps between samples, and the sound of the score's notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SoundCheck:
    """Measures of a recording: `peak` and `rms` in [0, 1], `largest_jump` between neighbouring samples, and `click`.

    `click` is the largest bend of the waveform (its second difference) relative to the root mean square of the
    bends in the 512 samples around it: under 10 for music as it is played here, near 18 for a single
    wrong sample in a quieter place. Bends 60 dB below full scale do not count.
    """

    peak: float
    rms: float
    largest_jump: float
    click: float


@dataclass(frozen=True)
class NoteCheck:
    """Fractions of the notes asked for that sound (`heard`), and of their unasked neighbours that would pass
    (`heard_elsewhere`); `count` notes were long enough to be measured.
    """

    heard: float
    heard_elsewhere: float
    count: int


def check_sound(audio: np.ndarray) -> SoundCheck:
    """Measure a recording, float (samples,) in [-1, 1]."""
    audio = np.asarray(audio, dtype=np.float32)
    bends = np.diff(audio, 2)
    bends = bends[: len(bends) // 512 * 512].reshape(-1, 512)
    # The floor, 60 dB below full scale, keeps a soft onset after silence from counting as a click.
    scale = np.sqrt((bends.astype(np.float64) ** 2).mean(axis=1)) + 1e-3
    return SoundCheck(
        peak=float(np.abs(audio).max()),
        rms=float(np.sqrt((audio.astype(np.float64) ** 2).mean())),
        largest_jump=float(np.abs(np.diff(audio)).max(initial=0.0)),
        click=float((np.abs(bends).max(axis=1) / scale).max(initial=0.0)) if len(bends) else 0.0,
    )


def check_notes(audio: np.ndarray, sampling_rate: int, notes: Sequence[tuple[float, float, int]]) -> NoteCheck:
    """Detect the notes asked for in the spectrum of a recording.

    While a note sounds, the amplitude at its first three partials must exceed three times the median of the pitches
    within six semitones that nobody plays and that are no partial of what is played. Up to 80 notes are measured,
    spread evenly over the piece.

    Args:
        notes: (start, end, MIDI pitch) with the times in seconds.
    """
    # Notes so long that their second partial and a neighbour's are four bins of a Hann window apart.
    candidates = [
        (start, end, pitch)
        for start, end, pitch in notes
        if min(end - start, 1.0) * 2 * _frequency(pitch) * (2 ** (1 / 12) - 1) >= 4
    ]
    step = max(1, -(-len(candidates) // 80))
    heard, elsewhere = [], []
    for start, end, pitch in candidates[::step]:
        end = min(end, start + 1.0)
        window = audio[round(start * sampling_rate) : round(end * sampling_rate)]
        # Everything that sounds within the window, or rang a quarter second before it.
        played = {other for begin, stop, other in notes if begin < end and stop > start - 0.25}
        partials = {other + partial for other in played for partial in (0, 12, 19, 24, 28, 31, 34, 36)}
        near = [other for other in range(pitch - 6, pitch + 7) if other not in partials]
        if len(window) < 2 or len(near) < 3:
            continue
        spectrum = np.abs(np.fft.rfft(window * np.hanning(len(window)), n=4 * len(window)))
        amplitudes = {other: _amplitude(spectrum, sampling_rate, other) for other in [*near, pitch]}
        threshold = 3.0 * float(np.median([amplitudes[other] for other in near]))
        heard.append(amplitudes[pitch] > threshold)
        elsewhere += [amplitudes[other] > threshold for other in near]
    if not heard:
        return NoteCheck(0.0, 0.0, 0)
    return NoteCheck(float(np.mean(heard)), float(np.mean(elsewhere)), len(heard))


def _frequency(pitch: float) -> float:
    return 440.0 * 2 ** ((pitch - 69) / 12)


def _amplitude(spectrum: np.ndarray, sampling_rate: int, pitch: int) -> float:
    """Amplitude of the strongest bins within 40 cents of the first three partials of `pitch`, together."""
    total = 0.0
    bin_width = sampling_rate / (2 * (len(spectrum) - 1))
    for partial in (1, 2, 3):
        centre = _frequency(pitch) * partial / bin_width
        low, high = int(centre * 2 ** (-0.4 / 12)), int(centre * 2 ** (0.4 / 12)) + 1
        total += float(spectrum[low : high + 1].max(initial=0.0))
    return total
