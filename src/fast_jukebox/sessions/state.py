"""What a session knows between two calls: its model's facts, its takes and what was asked for, as its manifest says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fast_jukebox.generation.configuration import check_duration
from fast_jukebox.generation.metadata import encode_metadata
from fast_jukebox.sampling.checks import check_count
from fast_jukebox.sampling.filtering import check_seed
from fast_jukebox.sessions.codes import TakeCodes
from fast_jukebox.sessions.fingerprint import ModelFacts
from fast_jukebox.sessions.run import Job, alike, samplers_of, take_layouts
from fast_jukebox.sessions.store import SessionError, SessionStore
from fast_jukebox.sessions.takes import Stretch, Take, check_whole, checked_settings, metadata_record, told_anew


class SessionState:
    """The takes of a session and the way to new ones; see [`Session`].

    Args:
        store: the session's folder.
        model: what samples and decodes, or `None`.

    Attributes:
        model: likewise.
        facts: what is known of the model that the session was made with.
        takes: all takes, by number.
        jobs: what was asked for and is not done.
    """

    def __init__(self, store: SessionStore, model: Any = None) -> None:
        self._store, self.model = store, model
        self.facts: ModelFacts
        self.takes: dict[int, Take] = {}
        self.jobs: list[Job] = []
        self._seed, self._kept = 0, None

    @property
    def folder(self) -> Path:
        """Where the session is kept."""
        return self._store.folder

    @property
    def kept(self) -> Take | None:
        """The take that is gone on with, if one is kept."""
        return None if self._kept is None else self.takes[self._kept]

    def take(self, number: int | Take | None = None) -> Take:
        """A take by its number, by default the one that is kept.

        Raises:
            ValueError: there is none of that number, or none is kept.
        """
        number = number.number if isinstance(number, Take) else self._kept if number is None else number
        if number is None:
            raise ValueError(f"`take` must be given, as none is kept; one of {', '.join(map(str, self.takes))}")
        if number not in self.takes:
            raise ValueError(f"`take` must be one of {', '.join(map(str, self.takes))}, got {number!r}")
        return self.takes[number]

    def _samples_of(self, start: Any, end: Any, samples: int) -> tuple[int, int]:
        """Seconds as audio samples of a song."""
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

    @property
    def _codes(self) -> TakeCodes:
        return TakeCodes(self._store, self.facts)

    def _changing(self) -> Any:
        return _Changing(self)

    def _refresh(self) -> None:
        body = self._store.read_manifest()
        try:
            self.facts = ModelFacts.from_record(body["model"])
            takes = [Take.from_record(each) for each in body["takes"]]
            self.takes = {take.number: take for take in takes}
            self.jobs = [Job(**{**each, "takes": tuple(each["takes"])}) for each in body["jobs"]]
            self._seed, self._kept = check_seed(body["seed"]), body["kept"]
            if not takes or list(self.takes) != list(range(1, len(takes) + 1)):
                raise ValueError("takes are missing")
            if self._kept is not None:
                check_whole("kept", self._kept, 1, len(takes))
            for take in takes:
                self._check_take(take)
            for job in self.jobs:
                self._check_job(job)
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise SessionError(f"the manifest of {str(self.folder)!r} is not as it was written: {error}") from error

    def _check_take(self, take: Take) -> None:
        """Raise a `ValueError` unless a take is one of the session's model."""
        hops, rate = self.facts.hop_lengths, self.facts.sampling_rate
        check_duration("samples", take.samples / rate)
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

    def _write(self) -> None:
        self._store.write_manifest(
            {
                "model": self.facts.record(),
                "seed": self._seed,
                "kept": self._kept,
                "takes": [take.record() for take in self.takes.values()],
                "jobs": [asdict(job) for job in self.jobs],
            }
        )

    def _children(
        self,
        parent: Take,
        origin: str,
        kept: int,
        samples: int,
        noises: Sequence[tuple[int, int]],
        metadata: Any,
        stop_level: int | None,
        settings: dict[str, Any],
    ) -> list[Take]:
        """New takes that begin with `kept` top codes of a take; written, and what is to be made of them noted."""
        top = len(parent.layouts) - 1
        lowest = check_count("stop_level", top if stop_level is None else stop_level, 0, top)
        own_settings = checked_settings({**parent.settings, **settings})
        given = self._codes.beginning(parent, kept)
        stretches = tuple(stretch for stretch in parent.stretches if stretch.start < kept)
        if metadata is not None:
            stretches = (*stretches, Stretch(kept, told_anew(parent.metadata, metadata_record(metadata, 0))))
        known = tuple(0 if each is None else len(each) for each in given)
        layouts = take_layouts(self.facts, own_settings, samples, known)
        name = self._codes.write_given(given)
        children = [
            Take(
                number=len(self.takes) + index + 1,
                parent=parent.number,
                origin=origin,
                kept=kept,
                samples=samples,
                seed=seed,
                song=song,
                settings=own_settings,
                stretches=stretches,
                given=name,
                known=known,
                layouts=layouts,
            )
            for index, (seed, song) in enumerate(noises)
        ]
        if self.model is not None and metadata is not None:
            encode_metadata(self.model, metadata)  # tells what is dropped of new lyrics
        if origin != "cut":
            self._check_can_be_made(children, lowest)
        self.takes.update({child.number: child for child in children})
        if origin != "cut":
            self.jobs.append(Job(tuple(child.number for child in children), lowest))
        if origin != "branch":
            self._kept = children[0].number
        self._write()
        return children

    def _check_can_be_made(self, takes: Sequence[Take], stop_level: int) -> None:
        """Refuse what `run` would, where there is a model to ask, before it is noted: it would be in the way of all
        that is asked for later.
        """
        if self.model is None:
            return
        self.facts.check(self.model, range(stop_level, len(self.facts.n_ctx)))
        for batch in alike(self._codes, takes):
            samplers_of(self.model, self._codes, batch, stop_level, "auto", None)


class _Changing:
    """Locks a session's folder and reads it anew, as another process may have changed it."""

    def __init__(self, session: SessionState) -> None:
        self.session, self.lock = session, session._store.locked()

    def __enter__(self) -> None:
        self.lock.__enter__()
        try:
            self.session._refresh()
        except BaseException:
            self.lock.__exit__(None, None, None)
            raise

    def __exit__(self, *error: Any) -> None:
        self.lock.__exit__(*error)
