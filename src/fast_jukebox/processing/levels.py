"""Labels that the prior of a level receives."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from fast_jukebox.processing.published import PriorConfig
from fast_jukebox.processing.vocabulary import LabelVocabulary

_MOST = 1_000_000  # of anything that a level has


@dataclass(frozen=True)
class LevelLabels:
    """Conditioning of a level's prior: a vocabulary's number, genre slots, and characters of lyrics in a window.

    Raises:
        ValueError: a number is none, too small, or larger than any prior's.
    """

    vocabulary: int = 0
    max_genres: int = 1
    lyric_length: int = 0

    def __post_init__(self) -> None:
        for name, fewest in (("vocabulary", 0), ("max_genres", 1), ("lyric_length", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not fewest <= value <= _MOST:
                raise ValueError(f"`{name}` must be an integer from {fewest} to {_MOST}, got {value!r}")

    @property
    def label_length(self) -> int:
        """Columns of a label vector before the lyrics."""
        return 4 + self.max_genres


@dataclass(frozen=True)
class FastJukeboxLabels:
    """Labels of songs from [`FastJukeboxProcessor`].

    Args:
        metadata: for each level, bottom first, int64 (N, 4 + genre slots + characters of the longest lyrics): total
            length (0 where none was given), offset and 0 in audio samples, artist, genres (-1 in empty slots), and for
            priors with lyrics the characters of the complete song, -1 after those of shorter ones; `None` for priors
            without labels. `generate` takes the list, and of the lyrics what each window needs.
        dropped: of each song, the characters of its lyrics that no vocabulary of its priors spells.
    """

    metadata: list[Tensor | None]
    dropped: list[str] = field(default_factory=list)


def check_fit(own: LevelLabels, vocabulary: LabelVocabulary, config: PriorConfig) -> None:
    """Raise a `ValueError` unless labels fit a prior; names the field of its configuration."""
    needs = [("num_artists", vocabulary.num_artists, False), ("num_genres", vocabulary.num_genres, False)]
    needs += [("max_genres", own.max_genres, True), ("lyric_length", own.lyric_length, True)]
    if own.lyric_length:
        needs.append(("lyric_vocab_size", len(vocabulary.characters) + 1, True))
    for name, needed, exact in needs:
        there = getattr(config, name)
        if there < needed or (exact and there != needed):
            raise ValueError(
                f"`{name}` of the prior of level {config.level} must be {needed if exact else f'at least {needed}'} "
                f"for this vocabulary, got {there}"
            )
