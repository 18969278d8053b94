"""Takes: the versions of a song that a session holds. Each says once and for all how its codes come about."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from fast_jukebox.generation.configuration import FastJukeboxGenerationConfig
from fast_jukebox.generation.levels import LevelCodes
from fast_jukebox.generation.settings import SETTINGS, check_duration
from fast_jukebox.generation.windows import Layout, Window

ORIGINS = ("new", "recording", "codes", "branch", "extend", "cut")
"""How a take came about."""

GIVEN_NAME = r"given-[0-9a-f]{24}"
"""Of a file of codes that takes begin with."""

RECORDING_NAME = r"recording-[0-9a-f]{24}"
"""Of a file of a recording's samples that takes begin with."""

WindowCodes = dict[int, Tensor]
"""What was sampled of a level of a take: of each window that is done, by its number in the layout, the new codes."""

_OF_RECORDINGS = {"recording", "recorded"}
"""Fields of a [`Take`] that only one which continues a recording states."""


@dataclass(frozen=True)
class Segment:
    """From where on a song is told what.

    Attributes:
        start: the song's position, in codes of the top level.
        metadata: see [`metadata_record`].
    """

    start: int
    metadata: Any


@dataclass(frozen=True)
class Take:
    """One song: what it begins with and how the rest is sampled. It never changes; what is sampled of it is kept apart
    and follows from it.

    Its codes are those that `model.generate(samples / sampling_rate, codes=<what is given>, seed=[seed],
    song_ids=[song], ...)` gives with the same settings. Lists have an entry a level, bottom first.

    Attributes:
        number: counts from 1.
        parent: the take that it goes on from, or `None`.
        origin: one of [`ORIGINS`].
        kept: how many top codes it begins with that are its parent's, a recording's or were given.
        samples: audio samples of the song, T.
        seed: of its noise.
        song: which song of its seed it is.
        settings: of [`FastJukeboxGenerationConfig`], those of [`SETTINGS`].
        segments: what the song is told, from where on; ordered, the first from 0.
        given: name of the file of codes that it begins with, or `None`.
        known: how many codes it begins with at each level.
        layouts: the windows of each level.
        recording: name of the file with the samples of the recording that it begins with, or `None`.
        recorded: how many of these samples it begins with.
    """

    number: int
    parent: int | None
    origin: str
    kept: int
    samples: int
    seed: int
    song: int
    settings: Mapping[str, Any]
    segments: tuple[Segment, ...]
    given: str | None
    known: tuple[int, ...]
    layouts: tuple[Layout, ...]
    recording: str | None = None
    recorded: int = 0

    def record(self) -> dict[str, Any]:
        """The take as JSON holds it; of one without a recording as versions that knew none wrote it."""
        record = {**asdict(self), "settings": dict(self.settings)}
        return record if self.recording else {name: record[name] for name in record if name not in _OF_RECORDINGS}

    @classmethod
    def from_record(cls, record: Any) -> Take:
        """The take that `record` was made of.

        Raises:
            KeyError, TypeError, ValueError: `record` is none.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(record, dict) or set(record) not in (names, names - _OF_RECORDINGS):
            raise ValueError("a take has other fields")
        segments = tuple(Segment(**each) for each in record["segments"])
        layouts = tuple(Layout(**each) for each in record["layouts"])
        take = cls(**{**record, "segments": segments, "layouts": layouts, "known": tuple(record["known"])})
        check_whole("number", take.number, 1)
        for name in ("samples", "kept", "seed", "song"):
            check_whole(name, getattr(take, name), name == "samples")
        if take.parent is not None:
            check_whole("parent", take.parent, 1, take.number - 1)
        if take.origin not in ORIGINS or not (take.given is None or re.fullmatch(GIVEN_NAME, take.given)):
            raise ValueError("a take is not as it was written")
        check_whole("recorded", take.recorded)
        if not (take.recorded == 0 if take.recording is None else re.fullmatch(RECORDING_NAME, take.recording)):
            raise ValueError("a take is not as it was written")
        starts = [check_whole("start", segment.start) for segment in segments]
        if not starts or starts[0] != 0 or starts != sorted(starts) or len(take.known) != len(layouts):
            raise ValueError("a take is not as it was written")
        for segment in segments:
            metadata_argument(segment.metadata)
        for level, (layout, known) in enumerate(zip(layouts, take.known, strict=True)):
            _check_layout(layout, level, known)
        if checked_settings(take.settings) != take.settings or not any(take.known) == (take.given is not None):
            raise ValueError("a take is not as it was written")
        return take

    def length(self, level: int) -> int:
        """Codes of a level."""
        return int(self.layouts[level].length or 0)

    def config(self) -> FastJukeboxGenerationConfig:
        """Its settings for `generate`."""
        return FastJukeboxGenerationConfig(**self.settings)

    @property
    def metadata(self) -> Any:
        """What its newest segment is told."""
        return self.segments[-1].metadata


def check_whole(name: str, value: Any, least: int = 0, most: int = 2**63 - 1) -> int:
    """A whole number of a manifest, or a `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"`{name}` is {value!r}")
    return value


def _check_layout(layout: Layout, level: int, known: int) -> None:
    """Raise a `ValueError` unless the windows of a level of a take can be laid out so."""
    check_whole("level", layout.level, level, level)
    length = check_whole("length", layout.length, 1)
    check_whole("size", layout.size, 1)
    check_whole("hop", layout.hop, 1, layout.size)
    check_whole("known", known, 0, length)
    check_whole("given", layout.given, known, known)
    if layout.stretch is not None:
        check_whole("stretch", layout.stretch, 1, layout.size)
    if not isinstance(layout.parallel, bool):
        raise ValueError(f"`parallel` is {layout.parallel!r}")


@dataclass(frozen=True)
class PartLayout(Layout):
    """The windows of a level that it takes to know its codes from `first` to `last` as the whole layout gives them: of
    parallel windows those that reach into the part, of sequential ones all up to its end.
    """

    first: int = 0
    last: int = 0

    def windows(self) -> Iterator[Window]:
        """The windows, in order."""
        whole = list(super().windows())
        if not self.parallel:
            yield from (window for window in whole if window.new_start < self.last)
            return
        ends = [*(window.seam_end for window in whole[1:]), self.length][: len(whole)]
        joins = False
        for window, end in zip(whole, ends, strict=True):
            earliest = max(window.seam_end - window.seam_length, window.new_start)
            if earliest < self.last and end > self.first:
                # The first of a part joins nothing: where it would, lies before the part.
                yield window if joins else replace(window, seam_end=0, seam_length=0)
                joins = True


def part_of(layout: Layout, first: int, last: int) -> PartLayout:
    """The part of a layout from one code to another."""
    return PartLayout(**{field.name: getattr(layout, field.name) for field in fields(Layout)}, first=first, last=last)


def window_key(window: Window) -> tuple[int, int, int]:
    """What tells a window from all others of its layout, whatever part of it is made."""
    return window.start, window.prompt_length, window.length


def window_numbers(layout: Layout) -> dict[tuple[int, int, int], int]:
    """The number of each window of a layout, by [`window_key`]."""
    return {window_key(window): number for number, window in enumerate(layout.windows())}


def part_layouts(layouts: Sequence[Layout], stop_level: int, first: int, last: int) -> list[Layout | None]:
    """What to sample at each level, so that the codes of `stop_level` from `first` to `last` are known; `None` below.

    Each level above is needed under whole windows of the one below.
    """
    parts: list[Layout | None] = [None] * len(layouts)
    for level in range(stop_level, len(layouts)):
        part = part_of(layouts[level], first, last)
        parts[level] = part
        if level + 1 < len(layouts):
            ratio = int(layouts[level].length or 0) // int(layouts[level + 1].length or 1)
            windows = list(part.windows())
            first = min([first, *(window.start for window in windows)]) // ratio
            last = -(-max([last, *(window.end for window in windows)]) // ratio)
    return parts


def read_span(layout: Layout, given: Tensor | None, sampled: WindowCodes, first: int, last: int) -> Tensor | None:
    """Codes int64 (last - first,) of a level of a take, or `None` where not all are made.

    Args:
        layout: of the level.
        given: int64 (known,) codes that the take begins with, or `None`.
        sampled: what was sampled.
        first: the song's position of the first code.
        last: the one after the last.
    """
    part, numbers = part_of(layout, first, last), window_numbers(layout)
    own = LevelCodes(1, None if given is None else given.unsqueeze(0), part, torch.device("cpu"))
    for window in part.windows():
        new = sampled.get(numbers[window_key(window)])
        if new is None:
            return None
        prompt = own.read(window.start, window.new_start)
        own.place(window, torch.cat([prompt, new.to(torch.int64).unsqueeze(0)], dim=1), slice(0, 1))
    return own.read(first, last)[0].clone()


def made_from_start(layout: Layout, sampled: WindowCodes) -> int:
    """How many codes from the song's beginning are made and will not change."""
    made = layout.given
    for number, window in enumerate(layout.windows()):
        if number not in sampled:
            break
        made = max(made, window.final)
    return made


def derived_seed(seed: int, parent: int, index: int) -> int:
    """The seed of a take's child, by how many children the parent had before: another one each, always the same."""
    told = hashlib.sha256(f"{seed}/{parent}/{index}".encode()).digest()
    return int.from_bytes(told[:8], "big") >> 11


def metadata_record(metadata: Any, song: int) -> Any:
    """What one song is told, as JSON holds it.

    Args:
        metadata: that of `generate`: `None`, label vectors int64 (N or 1, width), a list of them, one a level, words
            (a dictionary), or a list of dictionaries, one a song.
        song: which row.

    Raises:
        ValueError: it is something else.
    """
    if metadata is None:
        return None
    if isinstance(metadata, Tensor):
        return {"labels": _row(metadata, song)}
    if isinstance(metadata, Mapping):
        return {"words": _plain(metadata)}
    if isinstance(metadata, list | tuple) and metadata:
        if all(isinstance(each, Mapping) for each in metadata):
            return {"words": _plain(metadata[song if len(metadata) > 1 else 0])}
        if all(each is None or isinstance(each, Tensor) for each in metadata):
            return {"levels": [None if each is None else _row(each, song) for each in metadata]}
    raise ValueError(
        "`metadata` must be None, label vectors, a list of them, one a level, or a dictionary of words, got "
        f"{type(metadata).__name__}"
    )


def updated_metadata(before: Any, now: Any) -> Any:
    """What a song is told from now on: of words, those that are not said again stay."""
    if isinstance(before, dict) and isinstance(now, dict) and "words" in before and "words" in now:
        return {"words": {**before["words"], **now["words"]}}
    return now


def metadata_argument(record: Any) -> Any:
    """What `generate` takes, from what [`metadata_record`] made.

    Raises:
        ValueError: it made something else.
    """
    if record is None:
        return None
    told = list(record.items()) if isinstance(record, dict) else []
    match told:
        case [("words", dict(words))]:
            return _plain(words)
        case [("labels", list(labels))]:
            return _label_row(labels)
        case [("levels", list(levels))]:
            return [None if each is None else _label_row(each) for each in levels]
    raise ValueError(f"`metadata` is {record!r}")


def _label_row(labels: Any) -> Tensor:
    if not isinstance(labels, list):
        raise ValueError(f"`labels` is {labels!r}")
    return torch.tensor([[check_whole("labels", label, -(2**63)) for label in labels]], dtype=torch.int64)


def _row(labels: Tensor, song: int) -> list[int]:
    return [int(value) for value in labels[song if labels.shape[0] > 1 else 0].tolist()]


def _plain(words: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in words.items():
        parts = value if isinstance(value, list | tuple) else [value]
        if not all(each is None or isinstance(each, str | int | float | bool) for each in parts):
            raise ValueError(f"`metadata` must hold words and numbers, got {type(value).__name__} for {name!r}")
    return {name: list(value) if isinstance(value, tuple) else value for name, value in words.items()}


def checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` as JSON holds them.

    Raises:
        ValueError: a name or a value that no generation takes.
    """
    unknown = [name for name in settings if name not in SETTINGS]
    if unknown:
        raise ValueError(f"settings of a take are {', '.join(SETTINGS)}; got {unknown[0]!r}")
    FastJukeboxGenerationConfig(**settings)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def seconds_to_codes(name: str, seconds: Any, hop_length: int, sampling_rate: int) -> int:
    """`seconds` in whole codes of a hop length, at least one.

    Raises:
        ValueError: no number of seconds that a song can have.
    """
    check_duration(name, seconds)
    return max(round(seconds * sampling_rate / hop_length), 1)
