"""Metrics of complete songs in which silence counts, and their means over a set of songs with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fast_jukebox.evaluation.distance import Estimate, bootstrap_mean
from fast_jukebox.evaluation.notes import LOWEST_PITCH, QUIET, NoteFrames, find_notes, find_onsets, note_events, runs
from fast_jukebox.evaluation.pitch import CLIP_SECONDS, best_key, pitch_class_frames

LONG_SILENCE_SECONDS = 2.0
"""A song with a longer silence is counted as one with a hole."""

_LEVEL_SECONDS = 0.05
_PASSAGE_SECONDS = 2.0
_SAME = 0.9


@dataclass(frozen=True)
class SongMetrics:
    """Metrics of one song. Each is over the complete song, so that silence lowers or raises it and is never left out.

    Attributes:
        duration: seconds.
        quiet_fraction: fraction of the time below -40 dBFS (root mean square of 50 ms, full scale 1.0).
        longest_silence: seconds of the longest segment of that.
        long_silence: 1 where that is over 2 s, else 0.
        notes_per_minute: notes heard, see [`note_events`].
        onsets_per_minute: attacks heard, see [`find_onsets`].
        noted_fraction: fraction of the time in which a note sounds.
        in_key_fraction: fraction of the time in which a note of the key sounds; the key is the best one of each 10 s,
            see [`best_key`]. At most `noted_fraction`; their ratio is the notes' own.
        tonal_clarity: mean over the time of the fraction of the energy in stable spectral peaks; 0 in silence.
        repetition: fraction of the passages of 2 s that were heard before in the song, see [`repeated_fraction`].
    """

    duration: float
    quiet_fraction: float
    longest_silence: float
    long_silence: float
    notes_per_minute: float
    onsets_per_minute: float
    noted_fraction: float
    in_key_fraction: float
    tonal_clarity: float
    repetition: float


METRICS = tuple(entry.name for entry in fields(SongMetrics) if entry.name != "duration")
"""Names of the metrics of a song."""


def measure_song(audio: Tensor, sampling_rate: int) -> SongMetrics:
    """Metrics of a song, of any length down to a window of 0.37 s.

    Args:
        audio: float (samples,), mono, full scale 1.0; on any device.
        sampling_rate: samples a second, at least 8000.

    Raises:
        ValueError: audio of another shape or type, with values that are not finite or shorter than a window, or a
            sampling rate that is too low.
    """
    if audio.dim() == 1 and audio.is_floating_point() and not bool(audio.isfinite().all()):
        raise ValueError("`audio` must be finite, got NaN or infinite samples")
    notes = find_notes(audio, sampling_rate)
    loud = notes.loudness >= QUIET  # (frames,)
    duration = len(audio) / sampling_rate
    segments = [end - start for start, end in quiet_segments(audio, sampling_rate)]
    clarity = torch.where(loud & notes.sounding, notes.stable_energy / notes.energy.clamp_min(1e-12), 0.0)
    strength = notes.strength * loud[:, None]
    return SongMetrics(
        duration=duration,
        quiet_fraction=math.fsum(segments) / duration,
        longest_silence=max(segments, default=0.0),
        long_silence=float(max(segments, default=0.0) > LONG_SILENCE_SECONDS),
        notes_per_minute=60 * len(note_events(notes)) / duration,
        onsets_per_minute=60 * len(find_onsets(audio, sampling_rate)) / duration,
        noted_fraction=float((strength > 0).any(dim=1).float().mean()),
        in_key_fraction=_in_key_fraction(strength, round(CLIP_SECONDS / notes.hop_seconds)),
        tonal_clarity=float(clarity.mean()),
        repetition=repeated_fraction(melody(notes), round(_PASSAGE_SECONDS / notes.hop_seconds)),
    )


def quiet_windows(audio: Tensor, sampling_rate: int) -> Tensor:
    """Bool (windows,), `True` where 50 ms of sound (samples,) are below -40 dBFS; a rest of half a window counts.

    Raises:
        ValueError: audio shorter than half a window.
    """
    size = round(_LEVEL_SECONDS * sampling_rate)
    windows = [window for window in audio.float().split(size) if len(window) >= size / 2]
    if not windows:
        raise ValueError(f"`audio` must have at least {size // 2} samples, got {len(audio)}")
    return torch.stack([window.square().mean().sqrt() < QUIET for window in windows])


def quiet_segments(audio: Tensor, sampling_rate: int) -> list[tuple[float, float]]:
    """Start and end in seconds of each segment of [`quiet_windows`]."""
    size = round(_LEVEL_SECONDS * sampling_rate)
    return [
        (start * size / sampling_rate, min(end * size, len(audio)) / sampling_rate)
        for start, end in runs(quiet_windows(audio, sampling_rate))
    ]


def melody(notes: NoteFrames) -> Tensor:
    """int64 (frames,): the MIDI pitch class of the strongest note of each frame, 0 to 11, or -1 for silence or none."""
    strength = notes.strength * (notes.loudness >= QUIET)[:, None]
    best, pitch = strength.max(dim=1)
    return torch.where(best > 0, (pitch + LOWEST_PITCH) % 12, -1)


def repeated_fraction(symbols: Tensor, passage: int, same: float = _SAME) -> float:
    """Fraction of passages that occurred before, apart from those that begin within a passage of the start.

    A passage occurred before where at least `same` of its symbols are those of one that ended before it began. Silence
    and a held note repeat themselves: 1. Music lies in between, notes drawn at random near 0.

    Args:
        symbols: int64 (frames,), such as [`melody`].
        passage: frames of a passage.
        same: fraction of equal symbols that makes two passages the same.

    Returns:
        In [0, 1]; 0 where the song is shorter than two passages, of which none can be a repetition.
    """
    count = len(symbols) - 2 * passage + 1
    if count < 1:
        return 0.0
    needed = math.ceil(same * passage - 1e-9)
    repeated = torch.zeros(len(symbols) - passage + 1, dtype=torch.bool, device=symbols.device)
    for lag in range(passage, len(symbols) - passage + 1):
        equal = (symbols[lag:] == symbols[:-lag]).int().cumsum(0)  # of frame i and frame i + lag
        within = equal[passage - 1 :].clone()
        within[1:] -= equal[:-passage]
        repeated[lag:] |= within >= needed
    return float(repeated[passage:].float().mean())


def summarise_songs(songs: Sequence[Mapping[str, float]], resamples: int = 1000, seed: int = 0) -> dict[str, Estimate]:
    """Mean and interval of each number over songs. Each song that has the number counts the same, see
    [`bootstrap_mean`].

    Args:
        songs: numbers by name of each song, such as `asdict(measure_song(...))`; those that are NaN or infinite do not
            count.
    """
    found = {}
    for name in dict.fromkeys(name for song in songs for name in song):  # of a low rate a song has fewer
        values = torch.tensor([song.get(name, math.nan) for song in songs], dtype=torch.float64)
        found[name] = bootstrap_mean(values[values.isfinite()], resamples, seed)
    return found


def _in_key_fraction(strength: Tensor, clip_frames: int) -> float:
    """Fraction of the frames of (frames, pitches) in which a note of the clip's key sounds, shared by strength."""
    profiles = [pitch_class_frames(clip).cpu() for clip in strength.split(clip_frames)]
    sounding = [(profile, float(profile.sum())) for profile in profiles]
    return sum(best_key(profile)[1] * frames for profile, frames in sounding if frames > 0) / len(strength)
