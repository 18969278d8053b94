"""Sessions: songs that are made over days, kept on disk after every batch of windows, branched, cut and continued."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fast_jukebox.generation.configuration import SETTINGS, check_duration
from fast_jukebox.generation.plan import plan_song, resolve_generation_config
from fast_jukebox.generation.request import COMPUTING, SongModel, SongRequest
from fast_jukebox.sampling.checks import check_count
from fast_jukebox.sampling.engine import sampling_mode
from fast_jukebox.sampling.filtering import check_seed
from fast_jukebox.sampling.progress import ProgressCallback
from fast_jukebox.sessions.fingerprint import ModelFacts
from fast_jukebox.sessions.reading import SessionReading
from fast_jukebox.sessions.run import Job, alike, sample_takes
from fast_jukebox.sessions.store import SessionStore
from fast_jukebox.sessions.takes import (
    Stretch,
    Take,
    checked_settings,
    derived_seed,
    metadata_record,
    seconds_to_codes,
)


class Session(SessionReading):
    """A song in the making and its variants, in a folder.

    A session holds *takes*. A take begins with codes that are known (none, a recording's, or a past that it shares with
    the take it comes from) and follows from them, a seed and settings; it never changes. `branch`, `extend` and `cut`
    make new takes and say what is to be done, `run` does it, and saves after every batch of windows. Whatever ends the
    process, `run` in a new one goes on, to the codes that one run would have given.

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

    A method that needs a model takes the one that the session was made or opened with. One that changes the folder
    locks it, so that a second process is refused; reading is always possible.

    Use [`Session.create`] and [`Session.open`].

    Attributes:
        folder: where it is kept.
        model: what samples and decodes, or `None`.
        facts: what is known of the model that it was made with.
        takes: all takes, by number.
        jobs: what was asked for and is not done.
    """

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
            model: a whole model.
            request: the songs to make, by default one from nothing. Its `stop_level` is the lowest level that the first
                `run` makes. `start_level` and the fields of `COMPUTING` must have their defaults, as `run` takes them.
            model_name: folder or repository to find the model by; by default where it was loaded from.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
            SessionError: the folder cannot be written.
        """
        request = SongRequest() if request is None else request
        refused = [name for name in request.arguments() if name in ("start_level", *COMPUTING)]
        if refused:
            raise ValueError(f"`{refused[0]}` is no argument of a new session; `run` takes what is about computing")
        session = cls(SessionStore(folder), model)
        session._store.check_new()  # before the work, and again when nobody else can be making one there
        with sampling_mode(model):
            plan = plan_song(model, replace(request, stop_level=0))  # every level has windows, whenever it is made
        check_count("stop_level", request.stop_level, 0, len(plan.layouts) - 1)
        config = resolve_generation_config(model, request)
        settings = checked_settings({name: getattr(config, name) for name in SETTINGS})
        origin = "recording" if request.prompt is not None else "codes" if request.codes else "new"
        session.facts = ModelFacts.of(model, model_name)
        session._seed = plan.seeds[0]
        told = plan.drawn if request.metadata is None else request.metadata
        records = [metadata_record(told, song) for song in range(plan.num_samples)]
        session._store.make_folder()
        with session._store.locked():
            session._store.check_new()
            for song, told in enumerate(records):
                given = [None if each is None else each[song if each.shape[0] > 1 else 0].cpu() for each in plan.given]
                take = Take(
                    number=song + 1,
                    parent=None,
                    origin=origin,
                    kept=0 if given[-1] is None else len(given[-1]),
                    samples=plan.samples,
                    seed=plan.seeds[song],
                    song=plan.songs[song],
                    settings=settings,
                    stretches=(Stretch(0, told),),
                    given=session._codes.write_given(given),
                    known=tuple(0 if each is None else len(each) for each in given),
                    layouts=tuple(plan.layouts),
                )
                session.takes[take.number] = take
            session._kept = 1 if plan.num_samples == 1 else None
            session.jobs = [Job(tuple(session.takes), request.stop_level)]
            session._write()
        return session

    @classmethod
    def open(cls, folder: str | os.PathLike[str], model: Any = None) -> Session:
        """A session that is there.

        Args:
            folder: of the session.
            model: a whole model, the one that the session was made with; where nothing is sampled or decoded it is not
                needed.

        Raises:
            SessionError: there is none, it is damaged or of another version.
        """
        session = cls(SessionStore(folder), model)
        session._refresh()
        return session

    def keep(self, take: int | Take) -> Take:
        """Go on with a take: `extend`, `branch`, `cut`, `upsample` and `export` mean it from now on."""
        with self._changing():
            found = self.take(take)
            self._kept = found.number
            self._write()
        return found

    def branch(
        self,
        count: int,
        seconds: float,
        take: int | Take | None = None,
        *,
        metadata: Any = None,
        stop_level: int | None = None,
        **settings: Any,
    ) -> list[Take]:
        """Candidates of what comes next: takes that begin with this one and go on for some seconds, each from a seed
        of its own. The same call on the same session gives the same candidates; a second call gives others.

        Args:
            count: how many.
            seconds: to add, in whole codes of the top level.
            take: which one to go on from, by default the one that is kept.
            metadata: what the new seconds are told, of one song, as in `generate`; by default what the take was told.
            stop_level: the lowest level to make at the next `run`; by default the top alone, a draft.
            settings: of sampling that differ from the take's, such as `temperature`.

        Raises:
            ValueError: an argument is not as asked, the take's top level is not made yet, or the model that the session
                has refuses what it is told.
        """
        check_count("count", count)
        with self._changing():
            parent = self.take(take)
            new = seconds_to_codes("seconds", seconds, self.facts.hop_lengths[-1], self.facts.sampling_rate)
            before = sum(child.parent == parent.number and child.origin == "branch" for child in self.takes.values())
            seeds = [derived_seed(self._seed, parent.number, before + index) for index in range(count)]
            kept = parent.length(-1)
            samples = (kept + new) * self.facts.hop_lengths[-1]
            told = (metadata, stop_level, settings)
            return self._children(parent, "branch", kept, samples, [(seed, 0) for seed in seeds], *told)

    def extend(
        self,
        duration: float,
        take: int | Take | None = None,
        *,
        metadata: Any = None,
        stop_level: int | None = None,
        seed: int | None = None,
        **settings: Any,
    ) -> Take:
        """A take that begins with this one and goes on to a longer duration; it is then the one that is kept.

        Args:
            duration: seconds of the whole.
            take: see `branch`.
            metadata: see `branch`.
            stop_level: see `branch`.
            seed: of the new seconds; by default the take's own.
            settings: see `branch`.

        Raises:
            ValueError: as `branch`, or the duration is not longer than the take.
        """
        check_duration("duration", duration)
        with self._changing():
            parent = self.take(take)
            samples, kept = round(duration * self.facts.sampling_rate), parent.length(-1)
            if samples <= kept * self.facts.hop_lengths[-1]:
                raise ValueError(
                    f"`duration` must be longer than take {parent.number}, "
                    f"{kept * self.facts.hop_lengths[-1] / self.facts.sampling_rate:g} seconds, got {duration!r}"
                )
            noise = (parent.seed, parent.song) if seed is None else (check_seed(seed), 0)
            (child,) = self._children(parent, "extend", kept, samples, [noise], metadata, stop_level, settings)
            return child

    def cut(self, seconds: float, take: int | Take | None = None) -> Take:
        """The beginning of a take as a take of its own, with what is made of it at every level; it is then the one that
        is kept.

        Args:
            seconds: to keep, in whole codes of the top level.
            take: see `branch`.

        Raises:
            ValueError: more seconds than the take has, or they are not made yet.
        """
        with self._changing():
            parent = self.take(take)
            kept = seconds_to_codes("seconds", seconds, self.facts.hop_lengths[-1], self.facts.sampling_rate)
            if kept > parent.length(-1):
                raise ValueError(
                    f"`seconds` must be at most the {parent.samples / self.facts.sampling_rate:g} of take "
                    f"{parent.number}, got {seconds!r}"
                )
            samples = min(kept * self.facts.hop_lengths[-1], parent.samples)
            (child,) = self._children(parent, "cut", kept, samples, [(parent.seed, parent.song)], None, None, {})
            return child

    def upsample(
        self,
        take: int | Take | None = None,
        *,
        stop_level: int = 0,
        start: float | None = None,
        end: float | None = None,
        **options: Any,
    ) -> Take:
        """Make the lower levels of a take, or of a part of it, with the codes that the whole has there.

        Args:
            take: by default the one that is kept.
            stop_level: the lowest level to make.
            start: seconds; by default the beginning.
            end: seconds; by default the end. Levels with the sequential schedule are made from the beginning on.
            options: of `run`.

        Raises:
            ValueError: there is no such take or part.
        """
        found = self.take(take)
        self.request([found], stop_level, start, end)
        self.run(**options)
        return found

    def request(
        self,
        takes: Sequence[int | Take] | None = None,
        stop_level: int = 0,
        start: float | None = None,
        end: float | None = None,
    ) -> None:
        """Note what the next `run` is to make; see `upsample`. By default of all takes.

        Raises:
            ValueError: there is no such take, level or part; or the model that the session has cannot make it.
        """
        check_count("stop_level", stop_level, 0, len(self.facts.n_ctx) - 1)
        with self._changing():
            found = [self.take(take) for take in (list(self.takes) if takes is None else takes)]
            shortest = min(take.samples for take in found)
            first, last = self._samples_of(start, end, shortest)
            job = Job(tuple(take.number for take in found), stop_level, first, None if end is None else last)
            if job not in self.jobs:
                self._check_can_be_made(found, stop_level)
                self.jobs.append(job)
                self._write()

    def run(
        self,
        model: Any = None,
        *,
        progress: ProgressCallback | None = None,
        engine: str = "auto",
        max_batch_size: int | None = None,
    ) -> None:
        """Do what was asked for and is not done, and save after every batch of windows.

        Args:
            model: by default the one that the session was made or opened with.
            progress: as in `generate`, for what is left.
            engine: likewise.
            max_batch_size: likewise; how much is lost at most when the process is killed.

        Raises:
            ValueError: there is no model, or it is not the session's.
            SessionError: the session is in use, cannot be written or is damaged; what was saved stands.
            GenerationCancelled: `progress` returned `False`; what was saved stands, and `run` goes on.
        """
        model = self._model(model)
        with self._changing():
            levels = {level for job in self.jobs for level in range(job.stop_level, len(self.facts.n_ctx))}
            self.facts.check(model, sorted(levels))
            while self.jobs:
                job = self.jobs[0]
                wanted = [self.takes[number] for number in job.takes]
                for batch in alike(self._codes, wanted):
                    sample_takes(model, self._codes, batch, job, progress, engine, max_batch_size)
                self.jobs = [other for other in self.jobs if other != job]
                self._write()

    resume = run

    def forget(self) -> None:
        """Let go of what was asked for and is not done. What is sampled stays."""
        with self._changing():
            self.jobs.clear()
            self._write()
