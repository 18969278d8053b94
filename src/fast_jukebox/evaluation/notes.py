"""Notes of a recording: spectral peaks, the notes whose partials they are, and notes and onsets as events in time.

Written for music of sustained notes in the tuning of A4 = 440 Hz. It is a measure, not a transcription: octaves may be
mistaken, pitch classes rarely are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.evaluation.mel import mel_frames, window_length

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


QUIET = 0.01
"""Root mean square below which sound counts as silence: -40 dB of full scale (dBFS, where 0 dB is an RMS of 1.0)."""

_FEWEST_FRAMES = 2
_WEAKEST = 0.35
_ONSET_HOP = 0.01
_ONSET_BANDS = 80
_ONSET_LAG = 3
_ONSET_FLOOR = 1e-3
_ONSET_RISE = 1.0
_ONSET_CONTEXT = 40
_ONSET_SPACING = 6


@dataclass(frozen=True)
class NoteEvent:
    """A note heard: `start` and `end` in seconds, MIDI `pitch`, and `strength`, its mean amplitude."""

    start: float
    end: float
    pitch: int
    strength: float


def transcribe(audio: Tensor, sampling_rate: int) -> list[NoteEvent]:
    """Notes of a recording, sorted by start and pitch; arguments and errors are those of [`find_notes`]."""
    return note_events(find_notes(audio, sampling_rate))


def note_events(notes: NoteFrames) -> list[NoteEvent]:
    """Notes held over two frames or more, sorted by start and pitch.

    Octaves of a pitch class are one note, of the strongest octave: stops of an organ sound several. A note counts where
    its pitch class has over 0.35 times the amplitude of the strongest in the frame and the frame is not below
    [`QUIET`]; a gap of one frame does not end it. A note struck again while it sounds is one event: attacks are counted
    by [`find_onsets`].
    """
    octaves = F.pad(notes.strength, (0, -notes.strength.shape[1] % 12)).unflatten(1, (-1, 12))
    strength = octaves.sum(dim=1)  # (frames, 12), from the class of `LOWEST_PITCH`
    heard = (strength > 0) & (strength >= _WEAKEST * strength.amax(dim=1, keepdim=True))
    heard &= (notes.loudness >= QUIET)[:, None]
    heard[1:-1] |= heard[:-2] & heard[2:]
    events = []
    for pitch_class in range(12):
        for start, end in runs(heard[:, pitch_class]):
            if end - start >= _FEWEST_FRAMES:
                by_octave = octaves[start:end, :, pitch_class].mean(dim=0)
                pitch = LOWEST_PITCH + pitch_class + 12 * int(by_octave.argmax())
                events.append(NoteEvent(*_sounding_time(notes, start, end), pitch, float(by_octave.sum())))
    return sorted(events, key=lambda event: (event.start, event.pitch))


def runs(there: Tensor) -> list[tuple[int, int]]:
    """Start and end, without the latter, of each run of `True` in bool (n,)."""
    edges = F.pad(there.to(torch.int8), (1, 1)).diff()  # (n + 1,): 1 at a start, -1 after an end
    starts, ends = ((edges == sign).nonzero()[:, 0].tolist() for sign in (1, -1))
    return list(zip(starts, ends, strict=True))


def _sounding_time(notes: NoteFrames, start: int, end: int) -> tuple[float, float]:
    """Start and end in seconds of a note heard in the frames from `start` to `end`, without the latter.

    A note beside another shows in a window before it fills it, by about a quarter of the window; beside silence and at
    the ends of the recording it does not.
    """
    quiet = notes.loudness < QUIET
    half, quarter = notes.window_seconds / 2, notes.window_seconds / 4
    first, last = start * notes.hop_seconds + half, (end - 1) * notes.hop_seconds + half  # centres of frames
    begin = 0.0 if start == 0 else first - notes.hop_seconds / 2 if quiet[start - 1] else first + quarter
    stop = last + half if end == len(quiet) else last + notes.hop_seconds / 2 if quiet[end] else last - quarter
    return begin, max(stop, begin + notes.hop_seconds)


def find_onsets(audio: Tensor, sampling_rate: int) -> Tensor:
    """Times at which something in sound (samples,) begins, found by the spectral flux.

    The rise of each of 80 mel bands in decibels over 30 ms, averaged over the bands. An onset is a peak of it that
    exceeds its mean over 0.8 s around by 1 dB, at least 60 ms from the next, where the sound after it is above
    [`QUIET`] and not much softer than before. (Method: Dixon, "Onset detection revisited", DAFx 2006; lag as in Böck
    and Widmer, DAFx 2013.)

    Returns:
        float32 (onsets,), seconds, ascending; empty for silence.

    Raises:
        ValueError: audio of another shape or type.
    """
    if audio.dim() != 1 or not audio.is_floating_point():
        raise ValueError(f"`audio` must be floating point of shape (samples,), got {audio.dtype} {tuple(audio.shape)}")
    n_fft, hop = window_length(sampling_rate), max(round(_ONSET_HOP * sampling_rate), 1)
    audio = F.pad(audio.float(), (n_fft // 2, n_fft // 2))
    # (bands, frames), of amplitudes, in decibels; what is softer than the floor does not rise.
    bands = mel_frames(audio, sampling_rate, _ONSET_BANDS, hop) * (4 / n_fft) ** 2
    decibels = 10 * bands.clamp_min(_ONSET_FLOOR**2).log10()
    earlier = F.pad(decibels, (_ONSET_LAG, 0), value=20 * math.log10(_ONSET_FLOOR))[:, : decibels.shape[1]]
    flux = (decibels - earlier).clamp_min(0).mean(dim=0)  # (frames,)
    loudness = F.avg_pool1d(audio.square()[None], n_fft, hop)[0].sqrt()
    padded = F.pad(loudness, (_ONSET_LAG, _ONSET_LAG))
    before, after = padded[: -2 * _ONSET_LAG], padded[2 * _ONSET_LAG :]
    begins = (after >= QUIET) & (after >= before / 2)  # the end of a note clicks as well
    mean = F.avg_pool1d(flux[None], 2 * _ONSET_CONTEXT + 1, 1, _ONSET_CONTEXT, count_include_pad=False)[0]
    peak = flux == F.max_pool1d(flux[None], 2 * _ONSET_SPACING + 1, 1, _ONSET_SPACING)[0]
    frames = (peak & (flux > mean + _ONSET_RISE) & begins).nonzero()[:, 0]
    return frames.float() * hop / sampling_rate
