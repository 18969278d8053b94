"""Texts that people write as metadata of songs."""

from __future__ import annotations

from collections.abc import Mapping

from fast_jukebox.processing.processor import FastJukeboxProcessor
from fast_jukebox.processing.text import SongWords


def text_song(processor: FastJukeboxProcessor | None, text: str) -> SongWords:
    """Metadata of a text: a genre, an artist, `GENRE by ARTIST`, or for models with lyrics anything else as
    the words that are sung.

    Raises:
        ValueError: the model takes no words, or not these.
    """
    if not text.strip():
        return {}
    labelled = [level for level in reversed(processor.levels) if level is not None] if processor is not None else []
    if processor is None or not labelled:
        raise ValueError(f"the model takes no words, got {text!r:.80}: call it without")
    vocabulary = processor.vocabularies[labelled[0].vocabulary]
    genre, by, artist = text.partition(" by ")
    readings: list[SongWords] = [{"genre": text.strip()}, {"artist": text.strip()}]
    if by:
        readings.append({"genre": genre.strip(), "artist": artist.strip()})
    for song in readings:
        try:
            vocabulary.genre_ids(song.get("genre")), vocabulary.artist_id(song.get("artist"))
        except ValueError:
            continue
        return song
    if any(level.lyric_length for level in labelled):
        return {"lyrics": text}
    raise ValueError(
        f"a text must be a genre, an artist or `GENRE by ARTIST` of those that the model knows, got {text!r:.80}: "
        f"{_some(vocabulary.genres)} by {_some(vocabulary.artists)}"
    )


def _some(names: Mapping[str, int]) -> str:
    """Known names, the first ten of many."""
    known = [name for name in names if names[name]]
    return ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
