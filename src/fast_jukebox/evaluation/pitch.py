"""Music in a key: pitch-class content of clips, and the distance between two sets of clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from fast_jukebox.evaluation.notes import LOWEST_PITCH, NoteFrames, find_notes, shortest_clip
from fast_jukebox.utils.files import JsonObject

CLIP_SECONDS = 10.0
"""Length of the clips that songs are cut into; a key is chosen for each."""

PITCH_CLASSES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
}
"""Semitones above the tonic. The natural minor has the pitch classes of its relative major."""


@dataclass(frozen=True)
class Key:
    """A key: `tonic` from 0 (C) to 11 (B) and `scale`, one of `SCALES`."""

    tonic: int
    scale: str

    def __str__(self) -> str:
        return f"{PITCH_CLASSES[self.tonic]} {self.scale}"

    @property
    def pitch_classes(self) -> tuple[int, ...]:
        """Of the scale, from the tonic up."""
        return tuple((self.tonic + step) % 12 for step in SCALES[self.scale])

    @property
    def relative_major(self) -> int:
        """Tonic of the major key with this key's signature."""
        return self.tonic if self.scale == "major" else (self.tonic + 3) % 12


KEY_PROFILES = {
    "major": (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081),
    "minor": (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052),
}
"""Frequency of each pitch class in a key, from the tonic up (Albrecht and Shanahan, Music Perception 31, 2013)."""

_FEWEST_NOTED = 0.1
_HALVINGS = 200

KEYS = tuple(Key(tonic, scale) for scale in SCALES for tonic in range(12))


@dataclass(frozen=True)
class ClipPitch:
    """Pitch content of a clip.

    Attributes:
        key: the key that holds most of the notes' sounding time, see [`pitch_class_seconds`].
        in_key_fraction: the fraction that it holds, in [0, 1]; NaN where notes sound for less than a tenth of the time,
            as in noise, in which a few chance notes would always find a key.
        profile: (12,) fraction of the notes' sounding time of each pitch class, C first; zeros where there is no note.
        pitch_classes: how many pitch classes the clip uses, two to the entropy of the profile: 1 for a drone, 12 where
            all sound equally long; NaN where there is no note.
    """

    key: Key
    in_key_fraction: float
    profile: Tensor
    pitch_classes: float

    @property
    def has_key(self) -> bool:
        """There are notes enough for a key."""
        return not math.isnan(self.in_key_fraction)

    @property
    def aligned_profile(self) -> Tensor:
        """(12,) the profile transposed so that its key has no sharps or flats: C major, A minor."""
        return self.profile.roll(-self.key.relative_major)

    def to_json(self) -> JsonObject:
        """The fields as JSON has them, for [`ClipPitch.from_json`]."""
        return {**asdict(self), "profile": self.profile.tolist()}

    @classmethod
    def from_json(cls, content: JsonObject) -> ClipPitch:
        """The clip that [`ClipPitch.to_json`] gave.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        key, profile = Key(**content["key"]), torch.tensor(content["profile"])
        if key not in KEYS or profile.shape != (12,):
            raise ValueError(f"a clip must have one of {len(KEYS)} keys and a profile of 12 numbers, got {key!r}")
        return cls(key, float(content["in_key_fraction"]), profile, float(content["pitch_classes"]))


def pitch_class_seconds(notes: NoteFrames) -> Tensor:
    """(12,) seconds for which each pitch class sounds, C first.

    Every moment in which a note sounds counts the same, and is shared among the notes by their strength. The sum is the
    time in which a note sounds.
    """
    return pitch_class_frames(notes.strength) * notes.hop_seconds


def pitch_class_frames(strength: Tensor) -> Tensor:
    """The same of the strength (frames, pitches) of notes, in frames."""
    shares = strength / strength.sum(dim=1, keepdim=True).clamp_min(1e-12)
    classes = (torch.arange(strength.shape[1], device=strength.device) + LOWEST_PITCH) % 12
    return strength.new_zeros(12).index_add_(0, classes, shares.sum(dim=0))


def best_key(profile: Tensor) -> tuple[Key, float]:
    """The key whose pitch classes hold most of a profile (12,), C first, and the fraction that they hold.

    Of keys with the same pitch classes, the one whose tonic triad holds more.

    Raises:
        ValueError: a profile of another shape, negative, or that sums to zero.
    """
    _check_profile(profile)
    total = float(profile.sum())
    values = [value / total for value in profile.double().cpu().tolist()]

    def held(classes: Sequence[int]) -> float:
        return math.fsum(values[pitch_class] for pitch_class in classes)

    key = max(KEYS, key=lambda key: (round(held(key.pitch_classes), 9), held(key.pitch_classes[0:5:2])))
    return key, min(held(key.pitch_classes), 1.0)


def correlated_key(profile: Tensor) -> tuple[Key, float]:
    """The major or minor key whose profile in `KEY_PROFILES` correlates most with a profile, and its correlation less
    that of the next key: in [0, 2], 0 where two fit as well.

    It separates a tonic from the others of the same pitch classes, which [`best_key`] does by the tonic triad alone.
    Profiles are those of [`best_key`].
    """
    _check_profile(profile)
    keys = [Key(tonic, scale) for scale in KEY_PROFILES for tonic in range(12)]
    rows = [torch.tensor(KEY_PROFILES[key.scale], dtype=torch.float64).roll(key.tonic) for key in keys]
    both = torch.stack([*rows, profile.double().cpu()])  # (25, 12)
    both = both - both.mean(dim=1, keepdim=True)
    both = both / both.norm(dim=1, keepdim=True).clamp_min(1e-12)
    values, order = (both[:-1] @ both[-1]).sort(descending=True, stable=True)
    return keys[int(order[0])], float(values[0] - values[1])


def _check_profile(profile: Tensor) -> None:
    if profile.shape != (12,) or not bool((profile >= 0).all()) or not float(profile.sum()) > 0:
        raise ValueError(f"`profile` must be 12 non-negative numbers, not all zero, got {profile.tolist()}")


def analyse_clip(audio: Tensor, sampling_rate: int) -> ClipPitch:
    """Pitch content of one clip; arguments and errors are those of [`find_notes`]."""
    notes = find_notes(audio, sampling_rate)
    seconds = pitch_class_seconds(notes).cpu()
    total = float(seconds.sum())
    key, fraction = best_key(seconds) if total > 0 else (KEYS[0], math.nan)
    return ClipPitch(
        key=key,
        in_key_fraction=fraction if notes.noted_fraction >= _FEWEST_NOTED else math.nan,
        profile=seconds / total if total > 0 else seconds,
        pitch_classes=float(torch.special.entr(seconds.double() / total).sum().exp()) if total > 0 else math.nan,
    )


def analyse_song(audio: Tensor, sampling_rate: int, clip_seconds: float = CLIP_SECONDS) -> list[ClipPitch]:
    """Pitch content of a song's clips, side by side from its start; the rest at its end counts if half a clip long.

    A song shorter than a clip is one clip, and one shorter than [`shortest_clip`] none. Other arguments and errors are
    those of [`find_notes`].
    """
    size = round(clip_seconds * sampling_rate)
    clips = list(audio.split(size))
    if len(clips) > 1 and len(clips[-1]) < size / 2:
        clips.pop()
    clips = [clip for clip in clips if len(clip) >= shortest_clip(sampling_rate)]
    return [analyse_clip(clip, sampling_rate) for clip in clips]


def mean_profile(clips: Sequence[ClipPitch]) -> Tensor:
    """(12,) mean of the aligned profiles of the clips that have a key; zeros where none has."""
    profiles = [clip.aligned_profile for clip in clips if clip.has_key]
    return torch.stack(profiles).mean(dim=0) if profiles else torch.zeros(12)


def jensen_shannon(first: Tensor, second: Tensor) -> float:
    """Jensen-Shannon divergence of two distributions in bits, from 0 (equal) to 1 (disjoint); NaN if one is zero."""
    if not (float(first.sum()) > 0 and float(second.sum()) > 0):
        return math.nan
    p, q = (values.double() / values.double().sum() for values in (first, second))
    middle = (p + q) / 2
    terms = [torch.where(part > 0, part * (part / middle).log2(), 0.0).sum() for part in (p, q)]
    return max(float(terms[0] + terms[1]) / 2, 0.0)


def profile_distance(first: Sequence[ClipPitch], second: Sequence[ClipPitch]) -> float:
    """Jensen-Shannon divergence in bits between the mean aligned profiles of two sets of clips."""
    return jensen_shannon(mean_profile(first), mean_profile(second))


def distance_within(songs: Sequence[Sequence[ClipPitch]], count: int | None = None) -> float:
    """[`profile_distance`] of music that differs by chance alone: the floor to compare with.

    The songs are halved at random, 200 times; the distance is the mean of those between the halves' clips, or between
    `count` clips of the one half and all of the other.

    Args:
        count: clips of the smaller set, as many as the set has that is compared; None for all of its half.

    Returns:
        Bits; NaN for fewer than two songs.
    """
    if len(songs) < 2:
        return math.nan
    generator = torch.Generator().manual_seed(0)
    distances = []
    for _ in range(_HALVINGS):
        order = torch.randperm(len(songs), generator=generator).tolist()
        middle = len(songs) // 2
        first, second = ([clip for song in half for clip in songs[song]] for half in (order[:middle], order[middle:]))
        if count is not None:
            first = [first[index] for index in torch.randperm(len(first), generator=generator)[:count].tolist()]
        distances.append(profile_distance(first, second))
    found = [distance for distance in distances if not math.isnan(distance)]
    return math.fsum(found) / len(found) if found else math.nan
