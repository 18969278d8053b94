"""Label vectors of training windows, from the metadata of a dataset's songs."""

from __future__ import annotations

import copy
import logging
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fast_jukebox.models.prior import FastJukeboxPriorConfig
from fast_jukebox.processing import FastJukeboxProcessor, LabelVocabulary, LevelLabels
from fast_jukebox.processing.vocabulary import UNKNOWN, column_of, join_texts, names_in, window_lyrics
from fast_jukebox.utils.text import shown

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


class WindowLabels:
    """Label vectors of windows of a dataset's songs.

    With a processor, songs have `artist`, `genre` and `lyrics`, any of which a song may lack: it is then of the unknown
    artist or genre, or without lyrics, as are names that the vocabulary lacks. Without one they have the ids
    `artist_id` and `genre_ids`.

    Args:
        dropout: probability of a window to receive no artist and genre, and, drawn separately, no lyrics.
        seed: of those draws; `None` for no dropout.

    Raises:
        ValueError: the processor does not fit the prior, or `dropout` is no probability.
    """

    def __init__(
        self,
        songs: Dataset,
        config: FastJukeboxPriorConfig,
        processor: FastJukeboxProcessor | None = None,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
            raise ValueError(f"`label_dropout` must be from 0 to 1, got {shown(dropout)}")
        self.config, self.dropout, self.seed = config, dropout, seed
        self.texts: list[list[int]] = [[] for _ in range(len(songs))]
        if processor is None:
            given = zip(column_of(songs, "artist_id"), column_of(songs, "genre_ids"), strict=True)
            self.ids = [(artist or 0, list(genres or [0])) for artist, genres in given]
        else:
            own, vocabulary = processor.for_prior(config)
            self.ids, self.texts = _encoded(songs, vocabulary, own)

    def __call__(self, song: int, start: int, length: int, window: int, epoch: int = 0) -> Tensor:
        """The label vector int64 (metadata_length,) of a window.

        Args:
            length: codes of the complete song.
            window, epoch: numbers on which, with the seed, the dropout depends.
        """
        config = self.config
        (artist, genres), text = self.ids[song], self.texts[song]
        no_labels = no_lyrics = False
        if self.dropout and self.seed is not None:
            # The last number keeps these draws apart from those of the window's place.
            draws = np.random.default_rng((self.seed, epoch, window, 1)).random(2)
            no_labels, no_lyrics = (draws < self.dropout).tolist()
        if no_labels:
            artist, genres = 0, [0]
        genres = [*genres, *[-1] * config.max_genres][: config.max_genres]
        times = [codes * config.hop_length for codes in (length, start, config.n_ctx)]
        if config.use_timing:  # a song that is shorter than any the prior was made for counts as of the shortest length
            times[0] = max(times[0], math.ceil(config.min_duration * config.sampling_rate))
        labels = torch.tensor([[*times, artist, *genres]], dtype=torch.int64)
        if config.has_lyrics:
            labels = torch.cat([labels, join_texts([[] if no_lyrics else text])], dim=1)
            labels = window_lyrics(labels, config.label_length, config.lyric_length)[0]
        return labels[0]


def labelled_config(
    config: FastJukeboxPriorConfig,
    vocabulary: LabelVocabulary,
    *,
    max_genres: int = 1,
    lyric_length: int = 0,
    longest: float = 600.0,
) -> FastJukeboxPriorConfig:
    """Configuration of a prior conditioned on a dataset's artists and genres; the top one on time and lyrics too.

    Args:
        lyric_length: characters of lyrics that the top prior receives before its codes; every fourth layer then attends
            to them. With the context they are a multiple of `num_rows`.
        longest: seconds of the longest song.

    Raises:
        ValueError: the numbers do not fit together.
    """
    config = copy.deepcopy(config)
    config.num_artists, config.num_genres = vocabulary.num_artists, vocabulary.num_genres
    config.max_genres = max_genres
    if not config.has_upper_level:
        config.use_timing = True
        window = config.n_ctx * config.hop_length / config.sampling_rate
        config.min_duration, config.max_duration = 0.0, float(max(600, math.ceil(longest + window) + 1))
        if lyric_length:
            config.lyric_length, config.lyric_vocab_size = lyric_length, len(vocabulary.characters) + 1
            config.layer_types = [*config.layer_types[: config.layer_period], "lyric_prefix"]
    config.validate()
    return config


def name_ids(vocabulary: LabelVocabulary, artist: str | None, genre: str | list[str] | None) -> tuple[int, list[int]]:
    """The ids of a song's artist and genres, those of unknown names 0; of one genre where a song has one."""
    names = [genre] if isinstance(genre, str) else list(genre or [])
    genres = vocabulary.genre_ids(names if vocabulary.genre_words else names[:1], unknown=True)
    return vocabulary.artist_id(artist, unknown=True), genres


def _encoded(
    songs: Dataset, vocabulary: LabelVocabulary, own: LevelLabels
) -> tuple[list[tuple[int, list[int]]], list[list[int]]]:
    """Artist and genres, and the characters of the lyrics, of each song."""
    given = [column_of(songs, name) for name in ("artist", "genre", "lyrics")]
    ids, texts, dropped = [], [], 0
    for artist, genre, lyrics in zip(*given, strict=True):
        artist_id, genres = name_ids(vocabulary, artist, genre)
        ids.append((artist_id, genres[: own.max_genres]))
        text, clean = vocabulary.lyric_ids(lyrics if own.lyric_length else None)
        texts.append(text)
        dropped += len(clean.dropped)
    if dropped:
        logger.warning("%d characters of the songs' lyrics cannot be spelt and were dropped", dropped)
    _warn_of_unknown(songs, vocabulary)
    named = sum(artist > 0 for artist, _ in ids), sum(genres[0] > 0 for _, genres in ids), sum(map(bool, texts))
    logger.info("of %d songs, %d have a known artist, %d a known genre, %d lyrics", len(ids), *named)
    return ids, texts


def _warn_of_unknown(songs: Dataset, vocabulary: LabelVocabulary) -> None:
    """Warn of names that songs have and the vocabulary lacks: these songs train as those of the unknown one."""
    find = {
        "artist": lambda name: [vocabulary.artist_id(name, unknown=True)],
        "genre": lambda name: vocabulary.genre_ids(name, unknown=True),
    }
    for column, ids_of in find.items():
        names = sorted({name for name in names_in(songs, column) if vocabulary.normalise(name) != UNKNOWN})
        lacking = [name for name in names if 0 in ids_of(name)]
        if lacking:
            listed = ", ".join(map(repr, lacking[:5])) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
            logger.warning(
                "the model does not know the %s %s, whose songs count as of an unknown one: run_prior.py teaches a "
                "model the names of the songs that it trains on, unless `--new_names` is false",
                column, listed,
            )  # fmt: skip
