"""What people write of a song to what priors read: names and lyrics to label vectors."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fast_jukebox.processing.files import (
    CONFIG_NAME,
    VOCABULARY_NAME,
    find_file,
    published_lists,
    read_json,
    write_json,
)
from fast_jukebox.processing.text import LYRIC_CHARACTERS, check_song, join_texts
from fast_jukebox.processing.vocabulary import LabelVocabulary, characters_of, fitting_names, read_lists

logger = logging.getLogger(__name__)


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
            _check_whole(name, getattr(self, name), fewest, _MOST)

    @property
    def label_length(self) -> int:
        """Columns of a label vector before the lyrics."""
        return 4 + self.max_genres


@dataclass(frozen=True)
class FastJukeboxLabels:
    """What [`FastJukeboxProcessor`] makes of songs.

    Args:
        metadata: for each level, bottom first, int64 (N, 4 + genre slots + characters of the longest lyrics): total
            length (0 where none was given), offset and 0 in audio samples, artist, genres (-1 in empty slots), and for
            priors with lyrics the characters of the whole song, -1 after those of shorter ones; `None` for priors
            without labels. `generate` takes the list, and of the lyrics what each window needs.
        dropped: of each song, the characters of its lyrics that no vocabulary of its priors spells.
    """

    metadata: list[Tensor | None]
    dropped: list[str] = field(default_factory=list)


class FastJukeboxProcessor:
    """Artists, genres and lyrics of songs to the label vectors of each level's prior.

    ```python
    processor = FastJukeboxProcessor.from_pretrained("path/or/repository")
    labels = processor({"artist": "The Choir", "genre": "hymn", "lyrics": "Ah, ah", "total_duration": 180})
    model.generate(duration=20, metadata=labels.metadata)
    ```

    A model loaded from a folder that has the processor's files has it as `model.processor`, and takes such dictionaries
    as `metadata`.

    Args:
        vocabularies: those of the priors.
        levels: for each level, bottom first, what its prior receives; `None` for one without labels. A prior that
            stands alone is the only level.
        sampling_rate: audio samples a second.

    Raises:
        ValueError: a level names a vocabulary that is not there, or the rate is no positive integer.
    """

    def __init__(
        self, vocabularies: Sequence[LabelVocabulary], levels: Sequence[LevelLabels | None], sampling_rate: int = 44100
    ) -> None:
        self.vocabularies, self.levels, self.sampling_rate = list(vocabularies), list(levels), sampling_rate
        _check_whole("sampling_rate", sampling_rate, 1)
        for own in self.levels:
            if own is not None and not 0 <= own.vocabulary < len(self.vocabularies):
                raise ValueError(
                    f"`levels` must name one of {len(self.vocabularies)} vocabularies, got {own.vocabulary}"
                )

    def __call__(
        self, metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]], unknown: bool = False
    ) -> FastJukeboxLabels:
        """Label vectors of songs.

        Args:
            metadata: of one song, or of several: `artist` (a name), `genre` (a name, or a list of them for priors with
                several genre words), `lyrics` (the whole song's), `total_duration` (seconds of the whole song of which
                a part is made; by default the part's), `offset` (seconds into it, 0 by default), and `unknown`. What is
                left out is unknown, and lyrics empty.
            unknown: take names that are not known as the unknown one; a song's own `unknown` goes before it.

        A warning names what is dropped of lyrics.

        Raises:
            ValueError: a name is not known (names the five nearest), there are more genre words than slots, or
                something else is not as above.
        """
        labels = self.encode(metadata, unknown)
        for index, characters in enumerate(labels.dropped):
            if characters:
                shown = "".join(dict.fromkeys(characters))
                logger.warning(
                    "of the lyrics of song %d, %d characters cannot be spelt and were dropped: %s",
                    index, len(characters), shown if len(shown) <= 40 else f"{shown[:40]}...",
                )  # fmt: skip
        return labels

    def encode(
        self, metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]], unknown: bool = False
    ) -> FastJukeboxLabels:
        """As `__call__`, without its warning."""
        songs = [metadata] if isinstance(metadata, Mapping) else list(metadata)
        if not songs:
            raise ValueError("`metadata` must be of at least one song, got none")
        songs = [check_song(song) for song in songs]
        columns: list[Tensor | None] = []
        dropped = [""] * len(songs)
        for level, own in enumerate(self.levels):
            if own is None:
                columns.append(None)
                continue
            vocabulary, rows, texts = self.vocabularies[own.vocabulary], [], []
            for index, song in enumerate(songs):
                rows.append(self._row(song, own, vocabulary, unknown, level))
                text: list[int] = []
                if own.lyric_length:
                    text, clean = vocabulary.lyric_ids(song.get("lyrics"))
                    dropped[index] = max(dropped[index], clean.dropped, key=len)
                texts.append(text)
            columns.append(torch.cat([torch.tensor(rows, dtype=torch.int64), join_texts(texts)], dim=1))
        return FastJukeboxLabels(columns, dropped)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Artists and genres that songs have together: those of the highest level with labels that has any."""
        for own in reversed(self.levels):
            if own is not None and self.vocabularies[own.vocabulary].pairs:
                return self.vocabularies[own.vocabulary].pairs
        return ()

    def for_prior(self, config: Any) -> tuple[LevelLabels, LabelVocabulary]:
        """What the prior of a configuration receives, and its vocabulary.

        Raises:
            ValueError: the processor does not fit it; see [`check`].
        """
        level = 0 if len(self.levels) == 1 else config.level
        own = self.levels[level] if 0 <= level < len(self.levels) else None
        if own is None:
            raise ValueError(f"the processor has no labels for the prior of level {config.level}")
        _check_fit(own, self.vocabularies[own.vocabulary], config)
        return own, self.vocabularies[own.vocabulary]

    def only(self, level: int) -> FastJukeboxProcessor:
        """The processor of one level's prior.

        Raises:
            ValueError: there is no such level.
        """
        if not 0 <= level < len(self.levels):
            raise ValueError(f"`level` must be from 0 to {len(self.levels) - 1}, got {level!r}")
        own = self.levels[level]
        if own is None:
            return FastJukeboxProcessor([], [None], self.sampling_rate)
        vocabulary = self.vocabularies[own.vocabulary]
        return FastJukeboxProcessor(
            [vocabulary], [LevelLabels(0, own.max_genres, own.lyric_length)], self.sampling_rate
        )

    def check(self, config: Any) -> None:
        """Raise a `ValueError` unless the processor fits a model's, or a prior's, configuration: names the field."""
        configs = _prior_configs(config)
        if len(configs) != len(self.levels):
            raise ValueError(
                f"the processor's `levels` must be as many as the model's, {len(configs)}, got {len(self.levels)}"
            )
        for prior, own in zip(configs, self.levels, strict=True):
            if (own is not None) != (prior.num_artists > 0):
                raise ValueError(
                    f"the processor's `levels` {'lack' if own is None else 'have'} labels for level {prior.level}, "
                    f"whose prior has {prior.num_artists} artists (`num_artists`)"
                )
            if own is not None:
                _check_fit(own, self.vocabularies[own.vocabulary], prior)

    @classmethod
    def from_vocabulary(cls, vocabulary: LabelVocabulary, config: Any) -> FastJukeboxProcessor:
        """A processor whose labelled levels all have one vocabulary.

        Args:
            vocabulary: the vocabulary.
            config: of a model or of a prior.

        Raises:
            ValueError: it does not fit the configuration.
        """
        return cls._of([(prior, vocabulary) for prior in _prior_configs(config)])

    @classmethod
    def from_metadata(cls, rows: Any, config: Any) -> FastJukeboxProcessor:
        """A processor of a compilation's own artists and genres; see [`LabelVocabulary.from_metadata`].

        Raises:
            ValueError: there are more of them than the configuration has ids for.
        """
        labelled = [prior for prior in _prior_configs(config) if prior.num_artists]
        vocabulary = LabelVocabulary.from_metadata(
            rows,
            genre_words=any(prior.max_genres > 1 for prior in labelled),
            characters=next((characters_of(prior) for prior in labelled if prior.lyric_length), LYRIC_CHARACTERS[80]),
        )
        return cls.from_vocabulary(vocabulary, config)

    @classmethod
    def from_vocabulary_files(
        cls,
        config: Any,
        artists: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        genres: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    ) -> FastJukeboxProcessor:
        """A processor of the lists that were published with Jukebox's weights.

        Args:
            config: of a model or of a prior. Each level takes the list that has as many ids as its prior, or else the
                longest that fits.
            artists: a file, or several (as a model needs whose levels have different ones): lines `name;id`, or JSON in
                transformers 4's layout.
            genres: likewise.

        Raises:
            ValueError: a file is damaged, or none fits a level.
            OSError: a file is not there.
        """
        lists = {"num_artists": read_lists(artists), "num_genres": read_lists(genres)}
        pairs = []
        for prior in _prior_configs(config):
            ids = {name: fitting_names(name, own, prior) for name, own in lists.items()} if prior.num_artists else {}
            pairs.append((prior, _vocabulary(ids.get("num_artists", {}), ids.get("num_genres", {}), prior)))
        return cls._of(pairs)

    @classmethod
    def without_names(cls, config: Any) -> FastJukeboxProcessor:
        """A processor that knows no artist and no genre, for models whose lists are not at hand: of lyrics, of lengths,
        and of names that are taken as unknown ones. Lyrics are dropped where a prior's characters are not the published
        ones.
        """
        return cls._of([(prior, _vocabulary({}, {}, prior, _unspelt(prior))) for prior in _prior_configs(config)])

    @classmethod
    def join(cls, processors: Sequence[FastJukeboxProcessor | None]) -> FastJukeboxProcessor:
        """One processor of those of single levels, bottom first; `None` for a level without labels.

        Raises:
            ValueError: one has more than one level, or their sampling rates differ.
        """
        vocabularies: list[LabelVocabulary] = []
        levels: list[LevelLabels | None] = []
        rates = {processor.sampling_rate for processor in processors if processor is not None}
        if len(rates) != 1:
            raise ValueError(f"`processors` must be of one sampling rate, got {sorted(rates)}")
        for processor in processors:
            if processor is None:
                levels.append(None)
                continue
            if len(processor.levels) != 1:
                raise ValueError(f"`processors` must have one level each, got one of {len(processor.levels)}")
            own = processor.levels[0]
            if own is not None:
                vocabulary = processor.vocabularies[own.vocabulary]
                own = LevelLabels(_number(vocabulary, vocabularies), own.max_genres, own.lyric_length)
            levels.append(own)
        return cls(vocabularies, levels, rates.pop())

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], **download: Any) -> FastJukeboxProcessor:
        """The processor of a folder or repository, which may be a model's.

        Args:
            source: the folder or repository.
            download: `revision`, `token`, `cache_dir`, `subfolder` and their like.

        Raises:
            OSError: it has no such files.
            ValueError: they are damaged.
            HubError: the repository cannot be read.
        """
        download = {key: value for key, value in download.items() if key in _DOWNLOAD and value is not None}
        paths = {name: find_file(source, name, **download) for name in (CONFIG_NAME, VOCABULARY_NAME)}
        missing = [name for name, path in paths.items() if path is None]
        if missing:
            raise OSError(f"`{source}` has no {' and no '.join(missing)}, so it holds no processor")
        config, written = (read_json(str(path)) for path in paths.values())
        try:
            vocabularies = [LabelVocabulary(**own) for own in written["vocabularies"]]
            levels = [None if own is None else LevelLabels(**own) for own in config["levels"]]
            return cls(vocabularies, levels, config["sampling_rate"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the processor's files in `{source}` are damaged: {error!r}") from error

    @classmethod
    def find(cls, source: str | os.PathLike[str], config: Any, **download: Any) -> FastJukeboxProcessor | None:
        """The processor that lies beside a model, or one of the published lists that do; `None` where there are none.

        Args:
            source: the model's folder or repository.
            config: of the model; one without labels has no processor.
            download: see [`from_pretrained`].

        Raises:
            ValueError, HubError: as [`from_pretrained`]; or the processor does not fit the model. Published lists that
                do not are left alone, with a warning.
        """
        if not any(prior.num_artists for prior in _prior_configs(config)):
            return None
        if find_file(source, CONFIG_NAME, **download) is not None:
            processor = cls.from_pretrained(source, **download)
            if not hasattr(config, "prior_configs") and len(processor.levels) > 1:
                processor = processor.only(config.level)
            try:
                processor.check(config)
            except ValueError as error:
                raise ValueError(
                    f"{CONFIG_NAME} of `{source}` is of another model: {error}; save the processor with the model again"
                ) from error
            return processor
        artists, genres = published_lists(source, **download)
        if not artists or not genres:
            return None
        try:
            return cls.from_vocabulary_files(config, artists, genres)
        except ValueError as error:  # the weights are none the worse for it
            logger.warning("the lists of artists and genres beside `%s` cannot be used: %s", source, error)
            return None

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> list[str]:
        """Write `processor_config.json` and `vocabulary.json` into a folder, such as a model's; returns their paths."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        vocabulary, config = folder / VOCABULARY_NAME, folder / CONFIG_NAME
        write_json(vocabulary, {"vocabularies": [own.to_dict() for own in self.vocabularies]})
        levels = [None if own is None else dict(vars(own)) for own in self.levels]
        write_json(
            config, {"processor_class": type(self).__name__, "sampling_rate": self.sampling_rate, "levels": levels}
        )
        return [str(vocabulary), str(config)]

    @classmethod
    def _of(cls, pairs: Sequence[tuple[Any, LabelVocabulary]]) -> FastJukeboxProcessor:
        vocabularies: list[LabelVocabulary] = []
        levels: list[LevelLabels | None] = []
        for prior, vocabulary in pairs:
            own = None
            if prior.num_artists:
                own = LevelLabels(_number(vocabulary, vocabularies), prior.max_genres, prior.lyric_length)
                _check_fit(own, vocabulary, prior)
            levels.append(own)
        return cls(vocabularies, levels, pairs[0][0].sampling_rate)

    def _row(
        self, song: Mapping[str, Any], own: LevelLabels, vocabulary: LabelVocabulary, unknown: bool, level: int
    ) -> list[int]:
        """Total length, offset, window length, artist and genres of a song for one level."""
        unknown = song.get("unknown", unknown)
        try:
            artist = vocabulary.artist_id(song.get("artist"), unknown)
            genres = vocabulary.genre_ids(song.get("genre"), unknown)
        except ValueError as error:
            raise ValueError(f"{error} (the prior of level {level})") from None
        if len(genres) > own.max_genres:
            raise ValueError(
                f"`genre` must be at most {own.max_genres} words for the prior of level {level}, got {song['genre']!r}"
            )
        times = [round((song.get(name) or 0.0) * self.sampling_rate) for name in ("total_duration", "offset")]
        return [*times, 0, artist, *genres, *[-1] * (own.max_genres - len(genres))]


_DOWNLOAD = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only", "subfolder")


_MOST = 1_000_000  # of anything that a level has


def _check_whole(name: str, value: Any, fewest: int, most: int | None = None) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < fewest or (most is not None and value > most):
        limit = f"of at least {fewest}" if most is None else f"from {fewest} to {most}"
        raise ValueError(f"`{name}` must be an integer {limit}, got {value!r}")


def _prior_configs(config: Any) -> list[Any]:
    """The configurations of the priors of a model's, or the prior's own."""
    return list(getattr(config, "prior_configs", None) or [config])


def _vocabulary(
    artists: dict[str, int], genres: dict[str, int], config: Any, characters: str | None = None
) -> LabelVocabulary:
    """The vocabulary of a prior with such names, and the published characters unless others are given."""
    if characters is None:
        characters = characters_of(config) if config.lyric_length else LYRIC_CHARACTERS[80]
    return LabelVocabulary(artists, genres, config.max_genres > 1, characters)


def _unspelt(config: Any) -> str | None:
    """As many characters, of private use, as a prior has that are not the published ones."""
    if not config.lyric_length or config.lyric_vocab_size in LYRIC_CHARACTERS:
        return None
    return "".join(map(chr, range(0xF0000, 0xF0000 + config.lyric_vocab_size - 1)))


def _check_fit(own: LevelLabels, vocabulary: LabelVocabulary, config: Any) -> None:
    facts = [("num_artists", vocabulary.num_artists, False), ("num_genres", vocabulary.num_genres, False)]
    facts += [("max_genres", own.max_genres, True), ("lyric_length", own.lyric_length, True)]
    if own.lyric_length:
        facts.append(("lyric_vocab_size", len(vocabulary.characters) + 1, True))
    for name, needed, exact in facts:
        there = getattr(config, name)
        if there < needed or (exact and there != needed):
            raise ValueError(
                f"`{name}` of the prior of level {config.level} must be {needed if exact else f'at least {needed}'} "
                f"for this vocabulary, got {there}"
            )


def _number(vocabulary: LabelVocabulary, known: list[LabelVocabulary]) -> int:
    """Which of the known vocabularies it is; it becomes one."""
    if vocabulary not in known:
        known.append(vocabulary)
    return known.index(vocabulary)
