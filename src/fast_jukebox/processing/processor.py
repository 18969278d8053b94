"""Label vectors of priors, made of the names and lyrics that people write."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fast_jukebox.hub import download_arguments, prefer_cache
from fast_jukebox.processing.files import (
    CONFIG_NAME,
    VOCABULARY_NAME,
    find_file,
    published_lists,
    read_json,
    write_json,
)
from fast_jukebox.processing.published import ModelConfig, Paths, PriorConfig, characters_of, fitting_names, read_lists
from fast_jukebox.processing.vocabulary import (
    LYRIC_CHARACTERS,
    LabelVocabulary,
    Rows,
    SongWords,
    check_song,
    join_texts,
)
from fast_jukebox.sampling.checks import check_count
from fast_jukebox.utils.text import shown

logger = logging.getLogger(__name__)

_Level = tuple[LabelVocabulary, int, int]
"""Vocabulary, genre slots and characters of lyrics."""
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
            check_count(name, getattr(self, name), fewest, _MOST)

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


# Not a ProcessorMixin, which joins tokenizers and feature extractors: of its methods only the push would serve, and it
# imports torchaudio and asks the Hub for four more files.
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
        self.vocabularies, self.levels = list(vocabularies), list(levels)
        self.sampling_rate = check_count("sampling_rate", sampling_rate)
        for own in self.levels:
            if own is not None and own.vocabulary >= len(self.vocabularies):
                raise ValueError(
                    f"`levels` must name one of {len(self.vocabularies)} vocabularies, got {own.vocabulary}"
                )

    def __call__(
        self, metadata: Mapping[str, object] | Sequence[Mapping[str, object]], unknown: bool = False
    ) -> FastJukeboxLabels:
        """Label vectors of songs. A warning names what is dropped of lyrics.

        Args:
            metadata: of one song, or of several: `artist` (a name), `genre` (a name, or a list of them for priors with
                several genre words), `lyrics` (of the complete song), `total_duration` (seconds of the complete song of
                which a part is made; by default the part's), `offset` (seconds into it, 0 by default), and `unknown`.
                What is left out is unknown, and lyrics empty.
            unknown: take names that are not known as the unknown one; a song's `unknown` takes precedence.

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
        self, metadata: Mapping[str, object] | Sequence[Mapping[str, object]], unknown: bool = False
    ) -> FastJukeboxLabels:
        """As `__call__`, without its warning."""
        songs = [check_song(song) for song in ([metadata] if isinstance(metadata, Mapping) else metadata)]
        if not songs:
            raise ValueError("`metadata` must be of at least one song, got none")
        columns: list[Tensor | None] = []
        dropped = [""] * len(songs)
        for level, own in enumerate(self.levels):
            if own is None:
                columns.append(None)
                continue
            vocabulary = self.vocabularies[own.vocabulary]
            rows = torch.tensor([self._row(song, own, unknown, level) for song in songs], dtype=torch.int64)
            texts: list[list[int]] = [[] for _ in songs]
            if own.lyric_length:
                for index, song in enumerate(songs):
                    texts[index], clean = vocabulary.lyric_ids(song.get("lyrics"))
                    dropped[index] = max(dropped[index], clean.dropped, key=len)
            columns.append(torch.cat([rows, join_texts(texts)], dim=1))  # (N, 4 + genre slots + longest lyrics)
        return FastJukeboxLabels(columns, dropped)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Artists and genres that songs have together: those of the highest level with labels that has any."""
        labelled = [self.vocabularies[own.vocabulary].pairs for own in reversed(self.levels) if own is not None]
        return next(filter(None, labelled), ())

    def for_prior(self, config: PriorConfig) -> tuple[LevelLabels, LabelVocabulary]:
        """The labels that a prior receives, and its vocabulary; a `ValueError` where the processor does not fit it."""
        level = 0 if len(self.levels) == 1 else config.level
        own = self.levels[level] if 0 <= level < len(self.levels) else None
        if own is None:
            raise ValueError(f"the processor has no labels for the prior of level {config.level}")
        vocabulary = self.vocabularies[own.vocabulary]
        check_fit(own, vocabulary, config)
        return own, vocabulary

    def only(self, level: int) -> FastJukeboxProcessor:
        """The processor of one level's prior; a `ValueError` where there is no such level."""
        if not 0 <= level < len(self.levels):
            raise ValueError(f"`level` must be from 0 to {len(self.levels) - 1}, got {shown(level)}")
        return self._of([self._level(level)], self.sampling_rate)

    def check(self, config: PriorConfig | ModelConfig) -> None:
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
                check_fit(own, self.vocabularies[own.vocabulary], prior)

    @classmethod
    def from_vocabulary(cls, vocabulary: LabelVocabulary, config: PriorConfig | ModelConfig) -> FastJukeboxProcessor:
        """A processor for a model or a prior whose labelled levels all have one vocabulary, which must fit
        (`ValueError`).
        """
        return cls._fitting(config, lambda prior: vocabulary)

    @classmethod
    def from_metadata(cls, rows: Rows, config: PriorConfig | ModelConfig) -> FastJukeboxProcessor:
        """A processor of the artists and genres of a dataset; see [`LabelVocabulary.from_metadata`].

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
        cls, config: PriorConfig | ModelConfig, artists: Paths, genres: Paths
    ) -> FastJukeboxProcessor:
        """A processor of the lists that were published with Jukebox's weights.

        Args:
            config: of a model or of a prior. Each level takes the list that has as many ids as its prior, or else the
                longest that fits.
            artists, genres: a file, or several (as a model needs whose levels have different ones): lines `name;id`, or
                JSON in transformers 4's layout.

        Raises:
            ValueError: a file is damaged, or none fits a level.
            OSError: a file is not there.
        """
        artist_lists, genre_lists = read_lists(artists), read_lists(genres)

        def vocabulary(prior: PriorConfig) -> LabelVocabulary:
            names = [("num_artists", artist_lists), ("num_genres", genre_lists)]
            found = [fitting_names(name, lists, prior) for name, lists in names]
            return _vocabulary(found[0], found[1], prior)

        return cls._fitting(config, vocabulary)

    @classmethod
    def without_names(cls, config: PriorConfig | ModelConfig) -> FastJukeboxProcessor:
        """A processor that knows no artist and no genre, for models whose lists are not at hand: of lyrics, of lengths,
        and of names that are taken as unknown ones. Lyrics are dropped where a prior's characters are not the published
        ones.
        """

        def vocabulary(prior: PriorConfig) -> LabelVocabulary:
            if not prior.lyric_length or prior.lyric_vocab_size in LYRIC_CHARACTERS:
                return _vocabulary({}, {}, prior)
            # As many characters, of private use, as the prior has.
            return _vocabulary({}, {}, prior, "".join(map(chr, range(0xF0000, 0xF0000 + prior.lyric_vocab_size - 1))))

        return cls._fitting(config, vocabulary)

    @classmethod
    def join(cls, processors: Sequence[FastJukeboxProcessor | None]) -> FastJukeboxProcessor:
        """One processor of those of single levels, bottom first; `None` for a level without labels.

        Raises:
            ValueError: one has more than one level, or their sampling rates differ.
        """
        rates = {processor.sampling_rate for processor in processors if processor is not None}
        if len(rates) != 1:
            raise ValueError(f"`processors` must be of one sampling rate, got {sorted(rates)}")
        for processor in processors:
            if processor is not None and len(processor.levels) != 1:
                raise ValueError(f"`processors` must have one level each, got one of {len(processor.levels)}")
        return cls._of([None if each is None else each._level(0) for each in processors], rates.pop())

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], **download: object) -> FastJukeboxProcessor:
        """The processor of a folder or repository, which may be a model's.

        Args:
            download: options such as `revision`, `token`, `cache_dir`, `subfolder`.

        Raises:
            OSError: it has no such files.
            ValueError: they are damaged.
            HubError: the repository cannot be read.
        """
        download = prefer_cache(source, download_arguments(download))
        paths = {name: find_file(source, name, **download) for name in (CONFIG_NAME, VOCABULARY_NAME)}
        missing = [name for name, path in paths.items() if path is None]
        if missing:
            raise OSError(f"`{source}` has no {' and no '.join(missing)}, so it holds no processor")
        config, written = (read_json(str(path)) for path in paths.values())
        try:
            vocabularies = [LabelVocabulary(**own) for own in written["vocabularies"]]
            levels = [None if own is None else LevelLabels(**own) for own in config["levels"]]
            return cls(vocabularies, levels, config["sampling_rate"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"they lack {error}" if isinstance(error, KeyError) else error
            raise ValueError(
                f"the processor's files in `{source}`, {CONFIG_NAME} and {VOCABULARY_NAME}, are damaged ({reason}): "
                "save the processor again, or fetch them again"
            ) from error

    @classmethod
    def find(
        cls, source: str | os.PathLike[str], config: PriorConfig | ModelConfig, **download: object
    ) -> FastJukeboxProcessor | None:
        """The processor that lies beside a model, or one of the published lists that do; `None` where there are none.

        Raises:
            ValueError, HubError: as [`from_pretrained`]; or the processor does not fit the model. Published lists that
                do not are left alone, with a warning.
        """
        if not any(prior.num_artists for prior in _prior_configs(config)):
            return None
        if find_file(source, CONFIG_NAME, **download) is not None:
            processor = cls.from_pretrained(source, **download)
            if not hasattr(config, "prior_configs") and len(processor.levels) > 1:
                processor = processor.only(_prior_configs(config)[0].level)
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
        except ValueError as error:  # the model can be used without
            logger.warning("the lists of artists and genres beside `%s` cannot be used: %s", source, error)
            return None

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: object) -> list[str]:
        """Write `processor_config.json` and `vocabulary.json` into a folder, such as a model's; returns their paths."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        vocabulary, config = folder / VOCABULARY_NAME, folder / CONFIG_NAME
        write_json(vocabulary, {"vocabularies": [own.to_dict() for own in self.vocabularies]})
        levels = [None if own is None else dict(vars(own)) for own in self.levels]
        name = type(self).__name__
        write_json(config, {"processor_class": name, "sampling_rate": self.sampling_rate, "levels": levels})
        return [str(vocabulary), str(config)]

    def _level(self, level: int) -> _Level | None:
        own = self.levels[level]
        return None if own is None else (self.vocabularies[own.vocabulary], own.max_genres, own.lyric_length)

    @classmethod
    def _of(cls, levels: Sequence[_Level | None], sampling_rate: int) -> FastJukeboxProcessor:
        """The processor of some levels, equal vocabularies merged."""
        vocabularies: list[LabelVocabulary] = []
        labels: list[LevelLabels | None] = []
        for level in levels:
            if level is not None and level[0] not in vocabularies:
                vocabularies.append(level[0])
            labels.append(None if level is None else LevelLabels(vocabularies.index(level[0]), *level[1:]))
        return cls(vocabularies, labels, sampling_rate)

    @classmethod
    def _fitting(
        cls, config: PriorConfig | ModelConfig, vocabulary: Callable[[PriorConfig], LabelVocabulary]
    ) -> FastJukeboxProcessor:
        """The processor with a vocabulary for each labelled prior of a configuration, checked."""
        priors = _prior_configs(config)
        levels = [(vocabulary(own), own.max_genres, own.lyric_length) if own.num_artists else None for own in priors]
        processor = cls._of(levels, priors[0].sampling_rate)
        processor.check(config)
        return processor

    def _row(self, song: SongWords, own: LevelLabels, unknown: bool, level: int) -> list[int]:
        """Total length, offset, window length, artist and genres of a song for one level."""
        unknown, vocabulary = song.get("unknown", unknown), self.vocabularies[own.vocabulary]
        try:
            artist = vocabulary.artist_id(song.get("artist"), unknown)
            genres = vocabulary.genre_ids(song.get("genre"), unknown)
        except ValueError as error:
            raise ValueError(f"{error} (the prior of level {level})") from None
        if len(genres) > own.max_genres:
            raise ValueError(
                f"`genre` must be at most {own.max_genres} words for the prior of level {level}, got "
                f"{shown(song['genre'])}"
            )
        times = [
            round(seconds * self.sampling_rate) for seconds in (song.get("total_duration", 0), song.get("offset", 0))
        ]
        return [*times, 0, artist, *genres, *[-1] * (own.max_genres - len(genres))]


def _prior_configs(config: PriorConfig | ModelConfig) -> Sequence[PriorConfig]:
    """The configurations of the priors of a model's, or the prior's alone."""
    return getattr(config, "prior_configs", None) or [config]


def _vocabulary(
    artists: dict[str, int], genres: dict[str, int], config: PriorConfig, characters: str | None = None
) -> LabelVocabulary:
    """The vocabulary of a prior with such names, and the published characters unless others are given."""
    if characters is None:
        characters = characters_of(config) if config.lyric_length else LYRIC_CHARACTERS[80]
    return LabelVocabulary(artists, genres, config.max_genres > 1, characters)


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
