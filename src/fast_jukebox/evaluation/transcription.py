"""Notes and onsets of a recording as events in time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.evaluation.mel import mel_frames, window_length
from fast_jukebox.evaluation.notes import LOWEST_PITCH, NoteFrames, find_notes

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
    edges = F.pad(heard.to(torch.int8), (0, 0, 1, 1)).diff(dim=0)  # (frames + 1, 12): 1 at a start, -1 after an end
    events = []
    for pitch_class in range(12):
        starts = (edges[:, pitch_class] == 1).nonzero()[:, 0].tolist()
        ends = (edges[:, pitch_class] == -1).nonzero()[:, 0].tolist()
        for start, end in zip(starts, ends, strict=True):
            if end - start >= _FEWEST_FRAMES:
                by_octave = octaves[start:end, :, pitch_class].mean(dim=0)
                pitch = LOWEST_PITCH + pitch_class + 12 * int(by_octave.argmax())
                events.append(NoteEvent(*_sounding_time(notes, start, end), pitch, float(by_octave.sum())))
    return sorted(events, key=lambda event: (event.start, event.pitch))


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
