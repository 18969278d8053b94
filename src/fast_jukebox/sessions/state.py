"""State of a session as its manifest holds it: the model's facts, takes and jobs, and how new takes come about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fast_jukebox.generation.plan import SongPlan, plan_song, resolve_generation_config
from fast_jukebox.generation.request import COMPUTING, Metadata, SongModel, SongRequest
from fast_jukebox.generation.settings import SETTINGS, check_duration, song_layouts
from fast_jukebox.generation.windows import Layout
from fast_jukebox.sampling.checks import MOST_SONGS, check_count, check_seed
from fast_jukebox.sampling.engine import sampling_mode
from fast_jukebox.sessions.codes import TakeCodes
from fast_jukebox.sessions.fingerprint import ModelFacts
from fast_jukebox.sessions.store import SessionError, SessionStore
from fast_jukebox.sessions.takes import (
    Segment,
    Take,
    check_whole,
    checked_settings,
    derived_seed,
    metadata_record,
    seconds_to_codes,
    updated_metadata,
)


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
        """Whether less than the complete takes is wanted."""
        return self.start > 0 or self.end is not None


@dataclass(frozen=True)
class SessionState:
    """What a session knows between two calls. It never changes: what is new is another state.

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

    def record(self) -> dict[str, Any]:
        """The state as the manifest holds it."""
        return {
            "model": self.facts.record(),
            "seed": self.seed,
            "kept": self.kept,
            "takes": [take.record() for take in self.takes.values()],
            "jobs": [asdict(job) for job in self.jobs],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> SessionState:
        """The state that `record` was made of.

        Raises:
            KeyError, TypeError, ValueError, AttributeError, ArithmeticError: `record` is none.
        """
        takes = [Take.from_record(each) for each in record["takes"]]
        state = cls(
            facts=ModelFacts.from_record(record["model"]),
            takes={take.number: take for take in takes},
            jobs=tuple(Job(**{**each, "takes": tuple(each["takes"])}) for each in record["jobs"]),
            seed=check_seed(record["seed"]),
            kept=record["kept"],
        )
        if not takes or list(state.takes) != list(range(1, len(takes) + 1)):
            raise ValueError("takes are missing")
        if state.kept is not None:
            check_whole("kept", state.kept, 1, len(takes))
        for take in takes:
            state._check_take(take)
        for job in state.jobs:
            state._check_job(job)
        return state

    @classmethod
    def read(cls, store: SessionStore) -> SessionState:
        """The state on the disk.

        Raises:
            SessionError: there is no session, or it is damaged or of another version.
        """
        body = store.read_manifest()
        try:
            return cls.from_record(body)
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise SessionError(f"the manifest of {str(store.folder)!r} is not as it was written: {error}") from error

    @classmethod
    def first(
        cls, facts: ModelFacts, plan: SongPlan, request: SongRequest, settings: dict[str, Any], codes: TakeCodes
    ) -> SessionState:
        """The state of a new session: one take for each song of a plan, of which what is given is written."""
        metadata = plan.drawn if request.metadata is None else request.metadata
        recordings = codes.write_recording(plan.recording)
        origin = "recording" if request.prompt is not None else "codes" if request.codes else "new"
        takes = {}
        for song in range(plan.num_samples):
            given = [None if each is None else each[song if each.shape[0] > 1 else 0].cpu() for each in plan.given]
            takes[song + 1] = Take(
                number=song + 1,
                parent=None,
                origin=origin,
                kept=0 if given[-1] is None else len(given[-1]),
                samples=plan.samples or 0,
                seed=plan.seeds[song],
                song=plan.songs[song],
                settings=settings,
                segments=(Segment(0, metadata_record(metadata, song)),),
                given=codes.write_given(given),
                known=tuple(0 if each is None else len(each) for each in given),
                layouts=tuple(layout for layout in plan.layouts if layout is not None),
                recording=recordings[song if len(recordings) > 1 else 0],
                recorded=0 if plan.recording is None else plan.recording.samples.shape[1],
            )
        job = Job(tuple(takes), request.stop_level)
        return cls(facts, takes, (job,), plan.seeds[0], 1 if plan.num_samples == 1 else None)

    def _check_take(self, take: Take) -> None:
        """Raise a `ValueError` unless a take is one of the session's model."""
        hops, rate = self.facts.hop_lengths, self.facts.sampling_rate
        check_duration("samples", take.samples / rate)
        if take.recording is not None:
            check_duration("recorded", take.recorded / rate)
        lengths = [-(-take.samples // hops[-1]) * (hops[-1] // hop) for hop in hops]
        if [layout.length for layout in take.layouts] != lengths:
            raise ValueError(f"take {take.number} is of another model")
        for layout, n_ctx in zip(take.layouts, self.facts.n_ctx, strict=True):
            check_whole("size", layout.size, 1, n_ctx)
        check_whole("kept", take.kept, 0, lengths[-1])

    def _check_job(self, job: Job) -> None:
        """Raise a `ValueError` unless something can be asked for so."""
        numbers = [check_whole("takes", number, 1, len(self.takes)) for number in job.takes]
        check_whole("stop_level", job.stop_level, 0, len(self.facts.n_ctx) - 1)
        shortest = min(self.takes[number].samples for number in numbers)
        check_whole("start", job.start, 0, shortest - 1)
        if job.end is not None:
            check_whole("end", job.end, job.start + 1, shortest)

    def take(self, number: int | Take | None = None) -> Take:
        """A take by its number, by default the one that is kept.

        Raises:
            ValueError: there is none of that number, or none is kept.
        """
        number = number.number if isinstance(number, Take) else self.kept if number is None else number
        if number is None:
            raise ValueError(f"`take` must be given, as none is kept; one of {', '.join(map(str, self.takes))}")
        if number not in self.takes:
            raise ValueError(f"`take` must be one of {', '.join(map(str, self.takes))}, got {number!r}")
        return self.takes[number]

    def span(self, start: float | None, end: float | None, samples: int) -> tuple[int, int]:
        """Seconds from and to which a song of so many samples is meant, as audio samples.

        Raises:
            ValueError: they are no part of the song.
        """
        rate, first, last = self.facts.sampling_rate, 0, samples
        if start is not None and start != 0:
            check_duration("start", start)
            first = round(start * rate)
        if end is not None:
            check_duration("end", end)
            last = round(end * rate)
        if not first < last <= samples:
            raise ValueError(
                f"`start` and `end` must be a part of the take's {samples / rate:g} seconds, got {start!r} and {end!r}"
            )
        return first, last

    def with_takes(self, takes: Sequence[Take], stop_level: int) -> SessionState:
        """The state with new takes, to be made down to a level; all but branches are then kept."""
        origin, numbers = takes[0].origin, tuple(take.number for take in takes)
        state = replace(self, takes={**self.takes, **dict(zip(numbers, takes, strict=True))})
        if origin != "cut":
            state = state.with_job(Job(numbers, stop_level))
        return state if origin == "branch" else replace(state, kept=numbers[0])

    def with_job(self, job: Job) -> SessionState:
        """The state with something more to do."""
        return self if job in self.jobs else replace(self, jobs=(*self.jobs, job))

    def branches(
        self,
        codes: TakeCodes,
        parent: Take,
        count: int,
        seconds: float,
        metadata: Metadata | None,
        settings: Mapping[str, Any],
    ) -> list[Take]:
        """Takes that add seconds to another, each from a separate seed; see [`Session.branch`]."""
        check_count("count", count, 1, MOST_SONGS)
        facts, kept = self.facts, parent.length(-1)
        new = seconds_to_codes("seconds", seconds, facts.hop_lengths[-1], facts.sampling_rate)
        before = sum(child.parent == parent.number and child.origin == "branch" for child in self.takes.values())
        noises = [(derived_seed(self.seed, parent.number, before + index), 0) for index in range(count)]
        samples = (kept + new) * facts.hop_lengths[-1]
        return self._children(codes, parent, "branch", kept, samples, noises, metadata, settings)

    def extension(
        self,
        codes: TakeCodes,
        parent: Take,
        duration: float,
        seed: int | None,
        metadata: Metadata | None,
        settings: Mapping[str, Any],
    ) -> list[Take]:
        """A take that has a longer duration than another, with which it begins; see [`Session.extend`]."""
        check_duration("duration", duration)
        facts, kept = self.facts, parent.length(-1)
        samples, own = round(duration * facts.sampling_rate), kept * facts.hop_lengths[-1]
        if samples <= own:
            raise ValueError(
                f"`duration` must be longer than take {parent.number}, {own / facts.sampling_rate:g} seconds, got "
                f"{duration!r}"
            )
        noise = (parent.seed, parent.song) if seed is None else (check_seed(seed), 0)
        return self._children(codes, parent, "extend", kept, samples, [noise], metadata, settings)

    def beginning(self, codes: TakeCodes, parent: Take, seconds: float) -> list[Take]:
        """The first seconds of a take as a separate take; see [`Session.cut`]."""
        facts = self.facts
        kept = seconds_to_codes("seconds", seconds, facts.hop_lengths[-1], facts.sampling_rate)
        if kept > parent.length(-1):
            raise ValueError(
                f"`seconds` must be at most the {parent.samples / facts.sampling_rate:g} of take {parent.number}, got "
                f"{seconds!r}"
            )
        samples = min(kept * facts.hop_lengths[-1], parent.samples)
        return self._children(codes, parent, "cut", kept, samples, [(parent.seed, parent.song)], None, {})

    def _children(
        self,
        codes: TakeCodes,
        parent: Take,
        origin: str,
        kept: int,
        samples: int,
        noises: Sequence[tuple[int, int]],
        metadata: Metadata | None,
        settings: Mapping[str, Any],
    ) -> list[Take]:
        """New takes, one for each seed and song number in `noises`, that begin with `kept` top codes of a take. These
        codes are written.
        """
        facts, own_settings = self.facts, checked_settings({**parent.settings, **settings})
        given = codes.beginning(parent, kept)
        segments = tuple(segment for segment in parent.segments if segment.start < kept)
        if metadata is not None:
            segments = (*segments, Segment(kept, updated_metadata(parent.metadata, metadata_record(metadata, 0))))
        known = tuple(0 if each is None else len(each) for each in given)
        layouts = take_layouts(facts, own_settings, samples, known)
        name = codes.write_given(given)
        # A beginning sounds as its parent does; a song that goes on from within the recording fades before.
        recording, recorded = parent.recording, parent.recorded
        if origin != "cut" and recorded > kept * facts.hop_lengths[-1]:
            recorded = kept * facts.hop_lengths[-1]
            recording = codes.write_recording(codes.recording(parent), recorded)[0]
        return [
            Take(
                number=len(self.takes) + index + 1,
                parent=parent.number,
                origin=origin,
                kept=kept,
                samples=samples,
                seed=seed,
                song=song,
                settings=own_settings,
                segments=segments,
                given=name,
                known=known,
                layouts=layouts,
                recording=recording,
                recorded=recorded,
            )
            for index, (seed, song) in enumerate(noises)
        ]


def plan_session(model: SongModel, request: SongRequest) -> tuple[SongPlan, dict[str, Any]]:
    """The plan of a new session, of which every level has windows whenever it is made, and its sampling settings.

    Raises:
        ValueError: the model refuses the request, or a session does.
    """
    refused = [name for name in request.arguments() if name in ("start_level", *COMPUTING)]
    if refused:
        raise ValueError(f"`{refused[0]}` is no argument of a new session; `run` takes what is about computing")
    with sampling_mode(model):
        plan = plan_song(model, replace(request, stop_level=0))
    check_count("stop_level", request.stop_level, 0, len(plan.layouts) - 1)
    config = resolve_generation_config(model, request)
    for song in range(plan.num_samples):
        metadata_record(request.metadata, song)  # refused before there is a folder
    return plan, checked_settings({name: getattr(config, name) for name in SETTINGS})


def take_layouts(
    facts: ModelFacts, settings: Mapping[str, Any], samples: int, known: Sequence[int]
) -> tuple[Layout, ...]:
    """The windows of each level of a song that begins with `known` codes, as `generate` lays them out.

    Raises:
        ValueError: the song is longer than one can be, or a setting does not fit the model.
    """
    hops = facts.hop_lengths
    check_duration("duration", samples / facts.sampling_rate)
    lengths = [-(-samples // hops[-1]) * (hops[-1] // hop) for hop in hops]
    return tuple(song_layouts(settings, lengths, hops, facts.n_ctx, known))
