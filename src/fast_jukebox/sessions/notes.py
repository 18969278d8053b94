"""Notes of a session, as its manifest holds them: the model, the takes and what was asked for. Loads no torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TypeVar

from fast_jukebox.generation.windows import SETTINGS, Layout, check_duration, check_settings, song_layouts
from fast_jukebox.sampling.checks import check_count, check_seed
from fast_jukebox.utils.text import shown

ORIGINS = ("new", "recording", "codes", "branch", "extend", "cut")
"""Origins of a take."""

_LARGEST = 2**31 - 1
"""Of whatever counts codes, samples or takes."""

_Entry = TypeVar("_Entry")

MetadataRecord = dict[str, object] | None
"""Metadata of one song as JSON holds it: `{"words": {...}}`, `{"labels": [...]}`, `{"levels": [[...], None, ...]}`."""


def _entry(kind: type[_Entry], record: object, **parts: object) -> _Entry:
    """A dataclass from its fields in JSON; `parts` are the fields that are dataclasses."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass, which no type says
    if not isinstance(record, dict) or set(record) != names:
        raise ValueError(f"`{kind.__name__}` has the fields {', '.join(sorted(names))}, got {record!r:.60}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
    return kind(**{**values, **parts})


@dataclass(frozen=True)
class ModelFacts:
    """Facts of a model, by which a session knows it. Lists have an entry a level, bottom first.

    Attributes:
        name: the folder or repository that it was loaded from, or another name; may be empty.
        revision: the commit of the repository, or `None`.
        sampling_rate: audio samples a second.
        hop_lengths: audio samples a code stands for.
        codebook_size: codes are below it.
        n_ctx: codes of a prior's context.
        vqvae: digest of the VQ-VAE's weights, which give codes their meaning.
        priors: fingerprint of each prior.
        adapters: the folder or repository of the adapter that was merged into each prior, or `None`; empty where no
            prior has one.
    """

    name: str
    revision: str | None
    sampling_rate: int
    hop_lengths: tuple[int, ...]
    codebook_size: int
    n_ctx: tuple[int, ...]
    vqvae: str
    priors: tuple[str, ...]
    adapters: tuple[str | None, ...] = ()

    @classmethod
    def from_record(cls, record: object) -> ModelFacts:
        """The facts that `record` was made of.

        Raises:
            ValueError, TypeError: `record` is none.
        """
        facts = _entry(cls, {"adapters": [], **record} if isinstance(record, dict) else record)
        texts = (facts.name, facts.vqvae, *facts.priors, *(text or "" for text in (facts.revision, *facts.adapters)))
        if not all(isinstance(text, str) for text in texts) or len(facts.adapters) not in (0, len(facts.priors)):
            raise ValueError("`model` holds something else where a name is expected")
        for count in (facts.sampling_rate, facts.codebook_size, *facts.hop_lengths, *facts.n_ctx):
            check_count("model", count, 1, _LARGEST)
        ratios = zip(facts.hop_lengths, facts.hop_lengths[1:], strict=False)
        if not len(facts.hop_lengths) == len(facts.n_ctx) == len(facts.priors) > 0 or any(u % h for h, u in ratios):
            raise ValueError("`model` has levels that do not fit together")
        return facts

    @property
    def source(self) -> str:
        """Name, revision and adapters of the model, for people."""
        name = self.name or "another model"
        revision = f" at revision {self.revision}" if self.revision else ""
        adapters = [f"{level}={source}" for level, source in enumerate(self.adapters) if source is not None]
        return name + revision + (f" with the adapter {', '.join(adapters)}" if adapters else "")

    def lengths(self, samples: int) -> list[int]:
        """Codes of each level of a song of so many audio samples."""
        top = self.hop_lengths[-1]
        return [-(-samples // top) * (top // hop) for hop in self.hop_lengths]

    def layouts(self, settings: Mapping[str, object], samples: int, known: Sequence[int]) -> tuple[Layout, ...]:
        """The windows of each level of a song that begins with `known` codes, as `generate` lays them out."""
        check_duration("duration", samples / self.sampling_rate)
        return tuple(song_layouts(settings, self.lengths(samples), self.hop_lengths, self.n_ctx, known))

    def top_codes(self, name: str, seconds: object) -> int:
        """Codes of the top level that `seconds` are, at least one."""
        return max(round(check_duration(name, seconds) * self.sampling_rate / self.hop_lengths[-1]), 1)


@dataclass(frozen=True)
class Segment:
    """Metadata of a part of a song.

    Attributes:
        start: position in codes of the top level from which on it holds.
        metadata: see [`MetadataRecord`].
    """

    start: int
    metadata: MetadataRecord


@dataclass(frozen=True)
class Take:
    """One song: what it begins with and how the rest is sampled. It never changes; what is sampled of it is kept apart
    and follows from it.

    Its codes are those that `model.generate(samples / sampling_rate, codes=<what is given>, seed=[seed],
    song_ids=[song], ...)` gives with the same settings. Lists have an entry a level, bottom first.

    Attributes:
        number: counts from 1.
        parent: the take that it continues, or `None`.
        origin: one of [`ORIGINS`].
        kept: how many top codes it begins with that are its parent's, a recording's or were given.
        samples: audio samples of the song, T.
        seed: of its noise.
        song: which song of its seed it is.
        settings: those of [`~fast_jukebox.generation.windows.SETTINGS`].
        segments: metadata of the song's parts; ordered, the first from 0.
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
    settings: Mapping[str, object]
    segments: tuple[Segment, ...]
    given: str | None
    known: tuple[int, ...]
    layouts: tuple[Layout, ...]
    recording: str | None = None
    recorded: int = 0

    def record(self) -> dict[str, object]:
        """The take as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: object, facts: ModelFacts) -> Take:
        """The take that `record` was made of.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: `record` is none, or of another model.
        """
        segments = tuple(_entry(Segment, each) for each in record["segments"])  # type: ignore[index]  # raised if none
        layouts = tuple(_entry(Layout, each) for each in record["layouts"])  # type: ignore[index]
        take = _entry(cls, record, segments=segments, layouts=layouts)
        lengths = facts.lengths(check_count("samples", take.samples))
        check_duration("samples", take.samples / facts.sampling_rate)
        check_count("number", take.number, 1, _LARGEST)
        check_count("kept", take.kept, 0, lengths[-1])
        check_count("song", take.song, 0, 2**32 - 1)
        check_seed(take.seed)
        if take.parent is not None:
            check_count("parent", take.parent, 1, take.number - 1)
        check_count("recorded", take.recorded, 0, 0 if take.recording is None else _LARGEST)
        if take.recording is not None:
            check_duration("recorded", take.recorded / facts.sampling_rate)
        starts = [check_count("start", segment.start, 0, _LARGEST) for segment in segments]
        for segment in segments:
            _check_metadata(segment.metadata)
        for name, right in (
            ("origin", take.origin in ORIGINS),
            ("given", take.given is None or re.fullmatch(r"given-[0-9a-f]{24}", take.given)),
            ("recording", take.recording is None or re.fullmatch(r"recording-[0-9a-f]{24}", take.recording)),
            ("segments", starts[:1] == [0] and starts == sorted(starts)),
            ("settings", checked_settings(take.settings) == take.settings),
            ("known", any(take.known) == (take.given is not None)),
        ):
            if not right:
                raise ValueError(f"`{name}` of take {take.number} is not as it was written")
        entries = zip(layouts, take.known, lengths, facts.n_ctx, strict=True)
        for level, (layout, known, length, n_ctx) in enumerate(entries):
            check_count("level", layout.level, level, level)
            check_count("length", layout.length, length, length)
            check_count("size", layout.size, 1, n_ctx)
            check_count("hop", layout.hop, 1, layout.size)
            check_count("known", known, 0, length)
            check_count("given", layout.given, known, known)
            if layout.segment is not None:
                check_count("segment", layout.segment, 1, layout.size)
            if not isinstance(layout.parallel, bool):
                raise ValueError(f"`parallel` is {layout.parallel!r}")
        return take

    def length(self, level: int) -> int:
        """Codes of a level."""
        return self.layouts[level].length or 0

    @property
    def metadata(self) -> MetadataRecord:
        """Metadata of its newest segment."""
        return self.segments[-1].metadata


@dataclass(frozen=True)
class Job:
    """Levels of takes that were asked for and may not be made yet.

    Attributes:
        takes: their numbers.
        stop_level: the lowest level to make.
        start: the first audio sample wanted; 0 for the beginning.
        end: the one after the last, or `None` for the end.
    """

    takes: tuple[int, ...]
    stop_level: int
    start: int = 0
    end: int | None = None

    @property
    def is_part(self) -> bool:
        """True where less than the complete takes is wanted."""
        return self.start > 0 or self.end is not None


@dataclass(frozen=True)
class SessionNotes:
    """State of a session between two calls. It never changes: what is new is another one.

    Attributes:
        facts: of the model that the session was made with.
        takes: all takes, by number.
        jobs: what was asked for and is not done.
        seed: from which those of branches are derived.
        kept: number of the take that is kept, or `None`.
    """

    facts: ModelFacts
    takes: Mapping[int, Take]
    jobs: tuple[Job, ...]
    seed: int
    kept: int | None

    def record(self) -> dict[str, object]:
        """The notes as the manifest holds them."""
        return {
            "model": asdict(self.facts),
            "seed": self.seed,
            "kept": self.kept,
            "takes": [take.record() for take in self.takes.values()],
            "jobs": [asdict(job) for job in self.jobs],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> SessionNotes:
        """The notes that `record` was made of.

        Raises:
            ValueError: `record` is none.
        """
        try:
            facts = ModelFacts.from_record(record["model"])
            listed, asked = record["takes"], record["jobs"]
            if not isinstance(listed, list) or not isinstance(asked, list) or not listed:
                raise ValueError("`takes` and `jobs` must be lists")
            takes = [Take.from_record(each, facts) for each in listed]
            if [take.number for take in takes] != list(range(1, len(takes) + 1)):
                raise ValueError("`takes` are missing")
            jobs = [_entry(Job, each) for each in asked]
            for job in jobs:
                numbers = [check_count("takes", number, 1, len(takes)) for number in job.takes]
                shortest = min(takes[number - 1].samples for number in numbers)
                check_count("stop_level", job.stop_level, 0, len(facts.n_ctx) - 1)
                check_count("start", job.start, 0, shortest - 1)
                if job.end is not None:
                    check_count("end", job.end, job.start + 1, shortest)
            kept = None if record["kept"] is None else check_count("kept", record["kept"], 1, len(takes))
            return cls(facts, {take.number: take for take in takes}, tuple(jobs), check_seed(record["seed"]), kept)
        except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"it lacks or mistakes {error}") from error

    def take(self, number: int | Take | None = None) -> Take:
        """A take by its number, by default the one that is kept.

        Raises:
            ValueError: there is none of that number, or none is kept.
        """
        number = number.number if isinstance(number, Take) else self.kept if number is None else number
        if number is not None and number in self.takes:
            return self.takes[number]
        got = ", as none is kept" if number is None else f", got {shown(number)}"
        raise ValueError(f"`take` must be one of {', '.join(map(str, self.takes))}{got}")

    def span(self, start: float | None, end: float | None, samples: int) -> tuple[int, int]:
        """The audio samples from one time to another, in seconds, of a song of so many samples."""
        rate = self.facts.sampling_rate
        first = 0 if not start else round(check_duration("start", start) * rate)
        last = samples if end is None else round(check_duration("end", end) * rate)
        if not first < last <= samples:
            raise ValueError(
                f"`start` and `end` must be a part of the take's {samples / rate:g} seconds, got {start!r} and {end!r}"
            )
        return first, last

    def with_takes(self, takes: Sequence[Take], stop_level: int) -> SessionNotes:
        """The notes with new takes, to be made down to a level; all but branches are then kept."""
        origin, numbers = takes[0].origin, tuple(take.number for take in takes)
        notes = replace(self, takes={**self.takes, **dict(zip(numbers, takes, strict=True))})
        if origin != "cut":
            notes = notes.with_job(Job(numbers, stop_level))
        return notes if origin == "branch" else replace(notes, kept=numbers[0])

    def with_job(self, job: Job) -> SessionNotes:
        """The notes with something more to do."""
        return self if job in self.jobs else replace(self, jobs=(*self.jobs, job))

    def branch_seed(self, parent: Take, index: int) -> int:
        """The seed of a take's branch, by how many it had before: always another one, and always the same."""
        before = sum(child.parent == parent.number and child.origin == "branch" for child in self.takes.values())
        digest = hashlib.sha256(f"{self.seed}/{parent.number}/{before + index}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 11  # below 2**53, so that it survives JSON


def metadata_record(metadata: object, song: int) -> MetadataRecord:
    """Metadata of one song, as JSON holds it.

    Args:
        metadata: that of `generate`: `None`, label vectors int64 (N or 1, width), a list of them, one a level, words
            (a dictionary), or a list of dictionaries, one a song.
        song: which row.

    Raises:
        ValueError: it is something else.
    """
    if metadata is None:
        return None
    if isinstance(metadata, Mapping):
        return {"words": _plain(metadata)}
    if hasattr(metadata, "tolist"):
        return {"labels": _row(metadata.tolist(), song)}
    if isinstance(metadata, list | tuple) and metadata:
        if all(isinstance(each, Mapping) for each in metadata):
            return {"words": _plain(_row(metadata, song))}
        if all(each is None or hasattr(each, "tolist") for each in metadata):
            return {"levels": [None if each is None else _row(each.tolist(), song) for each in metadata]}
    raise ValueError(
        "`metadata` must be None, label vectors, a list of them, one a level, or a dictionary of words, got "
        f"{type(metadata).__name__}"
    )


def updated_metadata(before: MetadataRecord, now: MetadataRecord) -> MetadataRecord:
    """Metadata from now on: words that `now` does not name stay."""
    match before, now:
        case {"words": dict(old)}, {"words": dict(new)}:
            return {"words": {**old, **new}}
    return now


def _check_metadata(record: object) -> None:
    """Raise a `ValueError` unless [`metadata_record`] gives such a record."""
    vectors: list[object] = []
    match record:
        case None:
            pass
        case {"words": dict(words), **others} if not others:
            _plain(words)
        case {"labels": list(labels), **others} if not others:
            vectors = [labels]
        case {"levels": list(levels), **others} if not others:
            vectors = [labels for labels in levels if labels is not None]
        case _:
            raise ValueError(f"`metadata` is {record!r:.60}")
    for own in vectors:
        if not isinstance(own, list) or not all(type(label) is int and -(2**63) <= label < 2**63 for label in own):
            raise ValueError(f"`labels` is {own!r:.60}")


def _row(songs: Sequence[_Entry], song: int) -> _Entry:
    return songs[song if len(songs) > 1 else 0]


def _plain(words: Mapping[str, object]) -> dict[str, object]:
    for name, value in words.items():
        parts = value if isinstance(value, list | tuple) else [value]
        if not all(each is None or isinstance(each, str | int | float | bool) for each in parts):
            raise ValueError(f"`metadata` must hold words and numbers, got {type(value).__name__} for {shown(name)}")
    return {name: list(value) if isinstance(value, tuple) else value for name, value in words.items()}


def checked_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Sampling settings as JSON holds them.

    Raises:
        ValueError: a name or a value that no generation takes.
    """
    for name in settings:
        if name not in SETTINGS:
            raise ValueError(f"settings of a take are {', '.join(SETTINGS)}; got {shown(name)}")
    check_settings(settings)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
