"""Notes of a recording over time: spectral peaks, and the notes whose partials they are.

Written for music of sustained notes in the tuning of A4 = 440 Hz. It is a measure, not a transcription: octaves may be
mistaken, pitch classes rarely are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LOWEST_PITCH, HIGHEST_PITCH = 36, 96
"""MIDI numbers of the notes looked for, C2 to C7."""

_TOP_PARTIAL = 124
_PARTIALS = (0, 12, 19, 24, 28, 31, 34, 36, 38, 40)
"""Semitones from a note to its partials 1 to 10."""

_WINDOW_SECONDS = 0.37
_PEAK_OVER_FLOOR = 4.0
_PEAK_UNDER_LOUDEST = 10 ** (-45 / 20)
_QUIET = 10 ** (-40 / 20)
_SILENT = 10 ** (-60 / 20)
_OFF_PITCH = 0.4
_MOST_NOTES = 6
_WEAKEST_NOTE = 0.15
_FUNDAMENTAL_FRACTION = 0.1
_FRAMES_AT_ONCE = 256


@dataclass(frozen=True)
class NoteFrames:
    """Notes of a recording, frame by frame.

    Attributes:
        strength: (frames, pitches) amplitude of each note from `LOWEST_PITCH` to `HIGHEST_PITCH`, 0 where it does not
            sound. Linear in the recording's amplitude.
        loudness: (frames,) root mean square of the middle quarter of the frame, linear, 1.0 is full scale.
        sounding: bool (frames,), `True` for frames at most 40 dB below the loudest and above -60 dB of full scale.
        energy: (frames,) spectral energy.
        stable_energy: (frames,) the part of it in spectral peaks that the frame before or after has as well.
        hop_seconds: time from frame to frame.
        window_seconds: length of a frame.
    """

    strength: Tensor
    loudness: Tensor
    sounding: Tensor
    energy: Tensor
    stable_energy: Tensor
    hop_seconds: float
    window_seconds: float

    @property
    def tonal_clarity(self) -> float:
        """Fraction of the sounding frames' energy in stable spectral peaks: near 1 for held notes, 0 for noise.

        NaN where nothing sounds.
        """
        energy = float(self.energy[self.sounding].sum())
        return float(self.stable_energy[self.sounding].sum()) / energy if energy > 0 else math.nan

    @property
    def noted_fraction(self) -> float:
        """Fraction of the sounding frames in which at least one note was found; NaN where nothing sounds."""
        noted = (self.strength > 0).any(dim=1)[self.sounding]
        return float(noted.float().mean()) if len(noted) else math.nan


def find_notes(audio: Tensor, sampling_rate: int) -> NoteFrames:
    """Find the notes of a recording.

    In windows of about 0.37 s, four to a window's length, spectral peaks are kept that stand out of the spectrum around
    them. They are assigned to notes, the strongest first; from each note's partials, what the partials beside them let
    expect is taken away, so that a note is found on another's partial only where it adds something itself.

    Args:
        audio: float (samples,), mono; on any device.
        sampling_rate: samples a second, at least 8000.

    Raises:
        ValueError: audio of another shape or type or shorter than a window, or a sampling rate that is too low.
    """
    if audio.dim() != 1 or not audio.is_floating_point():
        raise ValueError(f"`audio` must be floating point of shape (samples,), got {audio.dtype} {tuple(audio.shape)}")
    size = shortest_clip(sampling_rate)
    if len(audio) < size:
        raise ValueError(f"`audio` must have at least {size} samples ({size / sampling_rate:.2g} s), got {len(audio)}")
    hop = size // 4
    frames = audio.float().unfold(0, size, hop)
    window = torch.hann_window(size, device=audio.device)
    parts = []
    for part in frames.split(_FRAMES_AT_ONCE):  # of which each is a copy, four times as large as its sound
        spectrum = torch.fft.rfft(part * window).abs() * (2 / window.sum())
        levels = (own.square().mean(dim=1).sqrt() for own in (part, part[:, 3 * hop // 2 : 5 * hop // 2]))
        parts.append((*_peaks(spectrum, sampling_rate / size), *levels))
    peaks, peak_energy, energy, level, loudness = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    sounding = (level >= _QUIET * level.max()) & (level > _SILENT)
    return NoteFrames(
        strength=_assign_notes(peaks) * sounding[:, None],
        loudness=loudness,
        sounding=sounding,
        energy=energy,
        stable_energy=_stable(peaks, peak_energy).clamp_max(energy),
        hop_seconds=hop / sampling_rate,
        window_seconds=size / sampling_rate,
    )


def shortest_clip(sampling_rate: int) -> int:
    """Samples of a window, and so of the shortest recording that notes can be found in.

    Raises:
        ValueError: a sampling rate under 8000, at which the partials of high notes are missing.
    """
    if sampling_rate < 8000:
        raise ValueError(f"`sampling_rate` must be at least 8000, got {sampling_rate}")
    return int(2 ** round(math.log2(_WINDOW_SECONDS * sampling_rate)))


def _peaks(spectrum: Tensor, bin_width: float) -> tuple[Tensor, Tensor, Tensor]:
    """Spectral peaks by semitone.

    Args:
        spectrum: magnitudes (frames, bins).
        bin_width: Hz.

    Returns:
        Amplitude and energy of the strongest peak in each semitone from `LOWEST_PITCH` to `_TOP_PARTIAL`, both
        (frames, semitones) with 0 for none, and the energy of the complete spectrum (frames,).
    """
    middle, left, right = spectrum[:, 2:-2], spectrum[:, 1:-3], spectrum[:, 3:-1]
    is_peak = (middle > left) & (middle >= right) & (middle >= spectrum[:, :-4]) & (middle >= spectrum[:, 4:])
    floor = _floor(spectrum, bin_width)[:, 2:-2]
    is_peak &= middle > _PEAK_OVER_FLOOR * floor
    is_peak &= middle > _PEAK_UNDER_LOUDEST * spectrum.amax(dim=1, keepdim=True)
    # A parabola through the logarithms of three bins has its top where the partial is.
    a, b, c = (part.clamp_min(1e-12).log() for part in (left, middle, right))
    curve = (a - 2 * b + c).clamp_max(-1e-6)
    shift = (0.5 * (a - c) / curve).clamp(-0.5, 0.5)
    index = torch.arange(2, spectrum.shape[1] - 2, device=spectrum.device)
    pitch = 69 + 12 * torch.log2((index + shift) * bin_width / 440.0)
    semitone = pitch.round()
    is_peak &= (pitch - semitone).abs() <= _OFF_PITCH
    is_peak &= (semitone >= LOWEST_PITCH) & (semitone <= _TOP_PARTIAL)
    amplitude = torch.where(is_peak, (b - 0.25 * (a - c) * shift).exp(), 0.0)
    # A Hann window's main lobe is four bins wide.
    lobe = spectrum.square().unfold(1, 5, 1).sum(dim=2)
    target = torch.where(is_peak, semitone - LOWEST_PITCH, 0).long()
    count = _TOP_PARTIAL - LOWEST_PITCH + 1
    empty = spectrum.new_zeros(len(spectrum), count)
    peaks = empty.scatter_reduce(1, target, amplitude, "amax")
    peak_energy = empty.scatter_reduce(1, target, torch.where(is_peak, lobe, 0.0), "amax")
    return peaks, peak_energy, spectrum.square().sum(dim=1)


def _floor(spectrum: Tensor, bin_width: float) -> Tensor:
    """Median magnitude around each bin: that of bands 170 Hz wide, interpolated between their centres."""
    bins = spectrum.shape[1]
    band = max(8, round(170 / bin_width))
    padded = F.pad(spectrum[:, None], (0, -bins % band), mode="replicate")[:, 0]
    medians = padded.unflatten(1, (-1, band)).median(dim=2).values
    return F.interpolate(medians[:, None], size=padded.shape[1], mode="linear", align_corners=False)[:, 0, :bins]


def _stable(peaks: Tensor, peak_energy: Tensor) -> Tensor:
    """Energy (frames,) of the peaks whose semitone has a peak in the frame before or after."""
    there = F.pad(peaks > 0, (0, 0, 1, 1))
    return (peak_energy * (there[:-2] | there[2:])).sum(dim=1)


def _assign_notes(peaks: Tensor) -> Tensor:
    """Strength of each note (frames, pitches) that explains the peaks (frames, semitones), greedily.

    A note's salience is the weighted sum of its partials. After the most salient note was taken, each of its partials
    loses the mean of itself and its two neighbours among the partials, and at most itself.
    """
    count = HIGHEST_PITCH - LOWEST_PITCH + 1
    offsets = torch.tensor(_PARTIALS, device=peaks.device)
    weights = 0.8 ** torch.arange(len(_PARTIALS), device=peaks.device)
    rest = F.pad(peaks, (0, _PARTIALS[-1]))
    partials = torch.arange(count, device=peaks.device)[:, None] + offsets  # (pitches, partials)
    strength = peaks.new_zeros(len(peaks), count)
    weakest = None
    for _ in range(_MOST_NOTES):
        heard = rest[:, partials]  # (frames, pitches, partials)
        salience = (heard * weights).sum(dim=2)
        salience = salience * (heard[..., 0] > _FUNDAMENTAL_FRACTION * heard.amax(dim=2)) * (strength == 0)
        best, pitch = salience.max(dim=1)
        if weakest is None:
            weakest = _WEAKEST_NOTE * best
        taken = (best > 0) & (best >= weakest)
        if not taken.any():
            break
        chosen = partials[pitch]  # (frames, partials)
        amplitudes = rest.gather(1, chosen)
        padded = F.pad(amplitudes, (1, 1), mode="replicate")
        expected = padded.unfold(1, 3, 1).mean(dim=2)
        expected[:, 0] = amplitudes[:, 0]
        left = (amplitudes - expected).clamp_min(0) * taken[:, None] + amplitudes * ~taken[:, None]
        rest = rest.scatter(1, chosen, left)
        strength = strength.scatter_add(1, pitch[:, None], torch.where(taken, best, 0.0)[:, None])
    return strength
