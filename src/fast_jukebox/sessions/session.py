"""Sessions: songs that are kept on disk while they are made, and can be resumed, branched, cut and continued.

Modules that sample or decode are imported where they are used: notes are read and changed without loading torch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fast_jukebox.generation.windows import check_duration
from fast_jukebox.sampling.checks import MOST_SONGS, check_count, check_seed
from fast_jukebox.sessions.codes import TakeCodes
from fast_jukebox.sessions.notes import (
    Job,
    ModelFacts,
    Segment,
    SessionNotes,
    Take,
    checked_settings,
    metadata_record,
    updated_metadata,
)
from fast_jukebox.sessions.store import RESCUE, SessionError, SessionStore
from fast_jukebox.sessions.tree import tree_lines

if TYPE_CHECKING:
    from torch import Tensor

    from fast_jukebox.generation.request import Metadata, SongModel, SongRequest
    from fast_jukebox.sampling.progress import ProgressCallback


class Session:
    """A song in the making and its variants, in a folder.

    A session holds *takes*. A take begins with known codes (none, a recording's, or the past that it shares with the
    take it comes from) and follows from them, a seed and settings; it never changes. `branch`, `extend` and `cut` make
    new takes and note what is to be made; `run` makes it, and saves after every batch of windows. If the process ends
    before, `run` in a new one continues, to the codes that one run would have given.

    ```python
    session = model.new_session("my-song", duration=20, stop_level=2, seed=1)  # a draft: the top level alone
    session.run()
    session.export("draft.wav")
    takes = session.branch(3, seconds=10)
    session.run()
    session.keep(takes[1])
    session.upsample()
    session.export("song.wav")
    ```

    Methods take the one `take` that is kept and the `model` that the session was made or opened with, unless others are
    given. A method that changes the folder locks it: another thread waits, another process is refused. Reading is
    always possible. Sessions come from [`Session.create`] and [`Session.open`].

    Methods raise a `ValueError` that names the argument, its value and what is allowed, also for what is not made yet
    and for another model than the session's; and a `SessionError` where the session is in use or damaged or cannot be
    written: what was saved stands.

    Args:
        store: the session's folder.
        model: to sample and decode with, or `None`.
    """

    _notes: SessionNotes

    def __init__(self, store: SessionStore, model: SongModel | None = None) -> None:
        self._store, self.model = store, model

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike[str],
        model: SongModel,
        request: SongRequest | None = None,
        *,
        model_name: str | None = None,
    ) -> Session:
        """Begin a session: one take for each song. Nothing is sampled before `run`.

        Args:
            folder: a new or empty folder.
            model: a complete model.
            request: the songs to make, by default one from nothing, down to its `stop_level` at the first `run`.
                `start_level` and the fields of `COMPUTING` must have their defaults, as `run` takes them.
            model_name: folder or repository to find the model by; by default where it was loaded from.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
            SessionError: the folder cannot be written.
        """
        from fast_jukebox.generation.request import SongRequest
        from fast_jukebox.sessions.fingerprint import model_facts
        from fast_jukebox.sessions.sampling import first_notes, plan_session

        request = SongRequest() if request is None else request
        session = cls(SessionStore(folder), model)
        session._store.check_new()  # before the work, and again when nobody else can be making one there
        plan, settings = plan_session(model, request)
        facts = model_facts(model, model_name)
        session._store.make_folder()
        with session._store.locked():
            session._store.check_new()
            session._write(first_notes(TakeCodes(session._store, facts), plan, request, settings))
        return session

    @classmethod
    def open(cls, folder: str | os.PathLike[str], model: SongModel | None = None) -> Session:
        """An existing session.

        Args:
            folder: of the session.
            model: the one that the session was made with; not needed where nothing is sampled or decoded.

        Raises:
            SessionError: there is none, it is damaged or of another version.
        """
        session = cls(SessionStore(folder), model)
        session._read()
        return session

    @property
    def folder(self) -> Path:
        """Folder of the session."""
        return self._store.folder

    @property
    def facts(self) -> ModelFacts:
        """Facts of the model that the session was made with."""
        return self._notes.facts

    @property
    def takes(self) -> Mapping[int, Take]:
        """All takes, by number."""
        return self._notes.takes

    @property
    def jobs(self) -> list[Job]:
        """Levels of takes that were asked for and are not made."""
        return list(self._notes.jobs)

    @property
    def kept(self) -> Take | None:
        """The take that methods use by default, if there is one."""
        return None if self._notes.kept is None else self.takes[self._notes.kept]

    def take(self, number: int | Take | None = None) -> Take:
        """A take by its number, by default the one that is kept."""
        return self._notes.take(number)

    def keep(self, take: int | Take) -> Take:
        """Choose the take that methods use by default."""
        with self._changing() as notes:
            found = notes.take(take)
            self._write(replace(notes, kept=found.number))
        return found

    def branch(
        self,
        count: int,
        seconds: float,
        take: int | Take | None = None,
        *,
        metadata: Metadata | None = None,
        stop_level: int | None = None,
        **settings: object,
    ) -> list[Take]:
        """Candidate continuations: takes that begin with this one and add some seconds, each from a separate seed. The
        same call on the same session gives the same candidates; a second call gives others.

        Args:
            count: how many.
            seconds: to add, rounded to codes of the top level.
            take: which one to continue.
            metadata: of the new seconds, of one song, as in `generate`; by default the take's.
            stop_level: the lowest level to make at the next `run`; by default the top alone, a draft.
            settings: of sampling that differ from the take's, such as `temperature`.
        """
        check_count("count", count, 1, MOST_SONGS)
        with self._changing() as notes:
            parent = notes.take(take)
            codes = parent.length(-1) + self.facts.top_codes("seconds", seconds)
            noises = [(notes.branch_seed(parent, index), 0) for index in range(count)]
            samples = codes * self.facts.hop_lengths[-1]
            return self._add(parent, "branch", parent.length(-1), samples, noises, metadata, settings, stop_level)

    def extend(
        self,
        duration: float,
        take: int | Take | None = None,
        *,
        metadata: Metadata | None = None,
        stop_level: int | None = None,
        seed: int | None = None,
        **settings: object,
    ) -> Take:
        """A take that begins with this one and has a longer duration; it is then the one that is kept.

        Args:
            duration: seconds of the result.
            take: see `branch`, like `metadata`, `stop_level` and `settings`.
            seed: of the new seconds; by default the take's.
        """
        rate = self.facts.sampling_rate
        samples = round(check_duration("duration", duration) * rate)
        with self._changing() as notes:
            parent = notes.take(take)
            kept = parent.length(-1) * self.facts.hop_lengths[-1]
            if samples <= kept:
                raise ValueError(
                    f"`duration` must be longer than take {parent.number}, {kept / rate:g} seconds, got {duration!r}"
                )
            noise = (parent.seed, parent.song) if seed is None else (check_seed(seed), 0)
            return self._add(parent, "extend", parent.length(-1), samples, [noise], metadata, settings, stop_level)[0]

    def cut(self, seconds: float, take: int | Take | None = None) -> Take:
        """The beginning of a take, at every level as far as it is made, as a new take; it is then the one that is kept.

        Args:
            seconds: to keep, rounded to codes of the top level.
            take: which one.
        """
        codes = self.facts.top_codes("seconds", seconds)
        with self._changing() as notes:
            parent = notes.take(take)
            if codes > parent.length(-1):
                duration = parent.samples / self.facts.sampling_rate
                raise ValueError(f"`seconds` must be at most the {duration:g} of take {parent.number}, got {seconds!r}")
            samples = min(codes * self.facts.hop_lengths[-1], parent.samples)
            return self._add(parent, "cut", codes, samples, [(parent.seed, parent.song)])[0]

    def upsample(
        self,
        take: int | Take | None = None,
        *,
        stop_level: int = 0,
        start: float | None = None,
        end: float | None = None,
        model: SongModel | None = None,
        progress: ProgressCallback | None = None,
        engine: str = "auto",
        max_batch_size: int | None = None,
    ) -> Take:
        """Make the lower levels of a take, or of a part of it, with the codes that the complete take has there.

        Args:
            take: which one.
            stop_level: the lowest level to make.
            start: seconds; by default the beginning, from which levels with the sequential schedule are always made.
            end: seconds; by default the end.
            model: see `run`, like `progress`, `engine` and `max_batch_size`.
        """
        found = self.take(take)
        self.request([found], stop_level, start, end)
        self.run(model, progress=progress, engine=engine, max_batch_size=max_batch_size)
        return found

    def request(
        self,
        takes: Sequence[int | Take] | None = None,
        stop_level: int = 0,
        start: float | None = None,
        end: float | None = None,
    ) -> None:
        """Note what the next `run` is to make; see `upsample`. By default of all takes."""
        check_count("stop_level", stop_level, 0, len(self.facts.n_ctx) - 1)
        with self._changing() as notes:
            found = [notes.take(take) for take in (list(notes.takes) if takes is None else takes)]
            first, last = notes.span(start, end, min(take.samples for take in found))
            job = Job(tuple(take.number for take in found), stop_level, first, None if end is None else last)
            if job not in notes.jobs:
                self._check_can_be_made(found, stop_level)
                self._write(notes.with_job(job))

    def run(
        self,
        model: SongModel | None = None,
        *,
        progress: ProgressCallback | None = None,
        engine: str = "auto",
        max_batch_size: int | None = None,
    ) -> None:
        """Make what was asked for and is not done, and save after every batch of windows.

        Args:
            model: the session's.
            progress: as in `generate`, for what is left.
            engine: as in `generate`.
            max_batch_size: as in `generate`; at most so many windows are lost when the process is killed.

        Raises:
            ValueError: there is no model, or it is not the session's.
            SessionError: the session is in use, cannot be written or is damaged; what was saved stands.
            GenerationCancelled: `progress` returned `False`; what was saved stands, and `run` continues.
        """
        from fast_jukebox.sessions.fingerprint import check_model
        from fast_jukebox.sessions.sampling import batches, sample_takes

        model = self._model(model)
        with self._changing() as notes:
            levels = {level for job in notes.jobs for level in range(job.stop_level, len(self.facts.n_ctx))}
            check_model(self.facts, model, sorted(levels))
            for job in notes.jobs:
                for batch in batches(self._codes, [notes.takes[number] for number in job.takes]):
                    sample_takes(model, self._codes, batch, job, progress, engine, max_batch_size)
                self._write(replace(self._notes, jobs=tuple(other for other in self._notes.jobs if other != job)))

    resume = run

    def forget(self) -> None:
        """Drop `jobs`. What is sampled stays."""
        with self._changing() as notes:
            self._write(replace(notes, jobs=()))

    def codes(self, take: int | Take | None = None) -> list[Tensor | None]:
        """Codes int64 (1, length) of each level of a take, bottom first; `None` for levels that are not complete."""
        import torch

        found = self._codes.complete(self.take(take))
        return [None if own is None else torch.from_numpy(own).unsqueeze(0) for own in found]

    def fractions(self, take: int | Take | None = None) -> list[float]:
        """Fraction of each level of a take that is made, in [0, 1], bottom first."""
        return self._codes.fractions(self.take(take))

    def tree(self) -> str:
        """The takes as a tree, one a line: origin, metadata and progress of each."""
        fractions = {number: self._codes.fractions(take) for number, take in self.takes.items()}
        return "\n".join(tree_lines(list(self.takes.values()), self._notes.kept, fractions, self.facts.sampling_rate))

    def audio(
        self,
        take: int | Take | None = None,
        level: int | None = None,
        start: float | None = None,
        end: float | None = None,
        model: SongModel | None = None,
    ) -> Tensor:
        """Sound float32 (T,) of a take or of a part of it.

        Args:
            take: which one.
            level: which level to decode; by default the lowest that is made there.
            start: seconds; by default the beginning.
            end: seconds; by default the end.
            model: the session's.
        """
        import torch

        return torch.cat(list(self._sound(take, level, start, end, model)))

    def export(
        self,
        path: str | os.PathLike[str],
        take: int | Take | None = None,
        level: int | None = None,
        start: float | None = None,
        end: float | None = None,
        model: SongModel | None = None,
    ) -> Path:
        """Write what `audio` returns to a `.wav`, `.flac` or `.mp3` file, chunk by chunk, completely or not at all; or
        the codes of every level that is made to a `.safetensors` file.

        Raises:
            ValueError: as `audio`, or another suffix.
            SessionError: the file cannot be written.
        """
        path = Path(path).expanduser()
        if path.suffix.lower() == ".safetensors":
            return self._codes.export(path, self.take(take))
        from fast_jukebox.sessions.export import write_sound

        return write_sound(path, self._sound(take, level, start, end, model), self.facts.sampling_rate)

    def _sound(
        self,
        take: int | Take | None,
        level: int | None,
        start: float | None,
        end: float | None,
        model: SongModel | None,
    ) -> Iterator[Tensor]:
        from fast_jukebox.sessions.export import take_sound
        from fast_jukebox.sessions.fingerprint import check_model

        model, found = self._model(model), self.take(take)
        check_model(self.facts, model, [])
        return take_sound(model.vqvae, self._codes, found, level, *self._notes.span(start, end, found.samples))

    @property
    def _codes(self) -> TakeCodes:
        return TakeCodes(self._store, self.facts)

    def _model(self, model: SongModel | None) -> SongModel:
        found = self.model if model is None else model
        if found is None:
            raise ValueError("`model` must be given, as the session was opened without one")
        return found

    @contextlib.contextmanager
    def _changing(self) -> Iterator[SessionNotes]:
        """The notes on the disk, which another process may have changed, with the folder locked."""
        with self._store.locked():
            self._read()
            yield self._notes

    def _read(self) -> None:
        try:
            self._notes = SessionNotes.from_record(self._store.read_manifest())
        except ValueError as error:
            raise SessionError(
                f"the manifest of {str(self.folder)!r} is not as it was written: {error}; {RESCUE}"
            ) from error

    def _write(self, notes: SessionNotes) -> None:
        self._store.write_manifest(notes.record())
        self._notes = notes

    def _add(
        self,
        parent: Take,
        origin: str,
        kept: int,
        samples: int,
        noises: Sequence[tuple[int, int]],
        metadata: Metadata | None = None,
        settings: Mapping[str, object] | None = None,
        stop_level: int | None = None,
    ) -> list[Take]:
        """Keep new takes that begin with `kept` top codes of another, one for each seed and song number in `noises`,
        and note what is to be made of them.
        """
        top = len(self.facts.n_ctx) - 1
        lowest = check_count("stop_level", top if stop_level is None else stop_level, 0, top)
        own_settings = checked_settings({**parent.settings, **(settings or {})})
        codes = self._codes
        given = codes.beginning(parent, kept)
        segments = tuple(segment for segment in parent.segments if segment.start < kept)
        if metadata is not None:
            segments = (*segments, Segment(kept, updated_metadata(parent.metadata, metadata_record(metadata, 0))))
        known = tuple(0 if own is None else len(own) for own in given)
        # A beginning sounds as its parent does; a song that continues from within the recording fades before.
        recording, recorded = parent.recording, parent.recorded
        samples_kept = kept * self.facts.hop_lengths[-1]
        if origin != "cut" and recorded > samples_kept and (complete := codes.recording(parent)) is not None:
            recording, recorded = codes.write_recording(complete[:samples_kept]), samples_kept
        first = Take(
            number=len(self.takes) + 1,
            parent=parent.number,
            origin=origin,
            kept=kept,
            samples=samples,
            seed=parent.seed,
            song=parent.song,
            settings=own_settings,
            segments=segments,
            given=codes.write_given(given),
            known=known,
            layouts=self.facts.layouts(own_settings, samples, known),
            recording=recording,
            recorded=recorded,
        )
        numbered = enumerate(noises, first.number)
        takes = [replace(first, number=number, seed=seed, song=song) for number, (seed, song) in numbered]
        if self.model is not None and metadata is not None:
            from fast_jukebox.generation.metadata import encode_metadata

            encode_metadata(self.model, metadata)  # warns of what is dropped of new lyrics
        if origin != "cut":
            self._check_can_be_made(takes, lowest)
        self._write(self._notes.with_takes(takes, lowest))
        return takes

    def _check_can_be_made(self, takes: Sequence[Take], stop_level: int) -> None:
        """Refuse what `run` would, where there is a model to ask."""
        if self.model is not None:
            from fast_jukebox.sessions.sampling import check_can_be_made

            check_can_be_made(self.model, self._codes, takes, stop_level)
