"""Metadata of songs in words, from a command's options or a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fast_jukebox.data.metadata import json_rows
from fast_jukebox.processing.vocabulary import check_song
from fast_jukebox_cli.options import Words

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LONGEST = 2**20
"""Bytes of a file of lyrics."""
_LARGEST_TABLE = 2**28
"""Bytes of a file of requests."""


def song_words(given: Words, offset: float | None = None) -> dict[str, object] | None:
    r"""`metadata` of `generate` from a command's options; `None` where none is given. Errors name the option."""
    lyrics = given.lyrics
    if lyrics is not None and given.lyrics_file is not None:
        raise ValueError("`--lyrics` must not be given with `--lyrics-file`, got both")
    if lyrics is not None:
        lyrics = lyrics.replace("\\n", "\n")
    if given.lyrics_file is not None:
        lyrics = _read(given.lyrics_file.expanduser())
    words = {**vars(given), "lyrics": lyrics, "offset": offset, "unknown": given.unknown or None}
    del words["lyrics_file"]
    return dict(check_song(words)) or None


def words_for(model: PreTrainedModel, words: dict[str, object] | None) -> dict[str, object] | None:
    """Metadata of a new song; where nothing is said, `None` if the model can draw labels, else an empty dictionary."""
    labelled = any(prior.config.metadata_length for prior in model.priors)
    draws = bool(getattr(getattr(model, "processor", None), "pairs", ()))
    return {} if words is None and labelled and not draws else words


def dropped_note(dropped: str) -> str:
    """A note on characters of lyrics that a model cannot spell; there is at least one."""
    were = "1 character of the lyrics was" if len(dropped) == 1 else f"{len(dropped)} characters of the lyrics were"
    return f"{were} dropped: {''.join(dict.fromkeys(dropped))}"


def read_requests(path: Path) -> list[dict[str, object]]:
    """Metadata of songs, of a JSON Lines file; a `ValueError` names a line that is wrong."""
    if path.stat().st_size > _LARGEST_TABLE:
        raise ValueError(
            f"`--requests` must have at most {_LARGEST_TABLE} bytes, got {path.stat().st_size} in {str(path)!r}"
        )
    rows = []
    for where, row in json_rows(path):
        try:
            rows.append(dict(check_song(row)))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    if not rows:
        raise ValueError(f"`--requests` must have a song a line, got nothing in {str(path)!r}")
    return rows


def _read(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"`--lyrics-file` must be a file, got {str(path)!r}")
    if path.stat().st_size > _LONGEST:
        raise ValueError(f"`--lyrics-file` must have at most {_LONGEST} bytes, got {path.stat().st_size}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"`--lyrics-file` must be UTF-8 text, got {str(path)!r}: {error}") from error
