"""The state behind all pages: models, folder, bounds, the queue and the works of each visitor."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fast_jukebox.demo import html
from fast_jukebox.demo.limits import Limits, within
from fast_jukebox.demo.models import StudioModel
from fast_jukebox.demo.sounds import Sounds
from fast_jukebox.demo.work import Queue, Work, WorkState
from fast_jukebox.sampling.checks import check_seed, fresh_seed
from fast_jukebox.sampling.progress import ProgressCallback

Result = TypeVar("Result")
View = TypeVar("View")
Shown = tuple[str | None, str | None]
"""Status and result of a page as HTML, `None` where one stays."""

logger = logging.getLogger(__name__)

_OURS = (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError, ImportError)
"""Errors whose text is meant for people."""


class Studio:
    """The models and the folder behind the pages. Safe to use from many threads.

    Args:
        models: at least one, of different names.
        folder: where songs, sounds and listening tests are kept; made where it is not there. Nothing outside it is
            written.
        limits: bounds on what visitors may ask for.

    Attributes:
        queue: of all works on the models.
        sounds: that pages play.
        recordings: names of the sounds of uploads, by path and rate.
        notes_lock: held while notes of a browser are read and changed.

    Raises:
        ValueError: no models, or two of one name.
        OSError: the folder cannot be made.
    """

    def __init__(self, models: Sequence[StudioModel], folder: str | Path, limits: Limits | None = None) -> None:
        self.models = {each.name: each for each in models}
        if not models or len(self.models) < len(models):
            raise ValueError(f"`models` must be at least one, of different names, got {[each.name for each in models]}")
        self.limits = Limits() if limits is None else limits
        self.folder = Path(folder).expanduser().absolute()
        self.songs_folder, self.tests_folder = self.folder / "songs", self.folder / "tests"
        self.uploads_folder, self.browsers_folder = self.folder / "uploads", self.folder / "browsers"
        for place in (self.songs_folder, self.tests_folder, self.uploads_folder, self.browsers_folder):
            place.mkdir(parents=True, exist_ok=True)
        self.queue = Queue(self.limits.waiting)
        self.sounds = Sounds(
            self.folder / "sounds", self.limits.sounds, self.limits.sound_bytes, self.limits.duration + 1
        )
        self.recordings: dict[tuple[str, int], str] = {}
        self.notes_lock = threading.Lock()
        self._works: dict[tuple[str, str], Work[Any]] = {}
        self._lock = threading.Lock()

    def model(self, name: object) -> StudioModel:
        """A model by the name that pages show, or a `ValueError`."""
        if not isinstance(name, str) or name not in self.models:
            raise ValueError(f"Model must be one of {', '.join(self.models)}, got {str(name)[:80]!r}")
        return self.models[name]

    def begin(self, visitor: str, page: str, run: Callable[[ProgressCallback], Result]) -> Work[Result]:
        """Put a [`Work`] into the queue.

        Raises:
            StudioBusy: the queue is full.
            ValueError: the visitor's last work of the page is not done.
        """
        with self._lock:
            for key in [key for key, work in self._works.items() if work.done]:
                del self._works[key]
            if (visitor, page) in self._works:
                raise ValueError("the last one is not done yet; wait for it or stop it")
            work = Work(self.queue, run)
            self._works[visitor, page] = work
        return work

    def watch(
        self,
        visitor: str,
        page: str,
        run: Callable[[ProgressCallback], Result],
        show: Callable[[WorkState, bool], View],
    ) -> Generator[View, None, Result | None]:
        """Put a [`Work`] into the queue and yield views of its states; returns its result, `None` where it was stopped.

        `show` makes a view of a state; its second argument is `True` for the first.
        """
        work = self.begin(visitor, page, run)
        for index, state in enumerate(work.watch()):
            yield show(state, index == 0)
        return work.result()

    def stop(self, visitor: str, page: str) -> None:
        """End what a visitor has begun on a page, if anything; what is made of it stands."""
        with self._lock:
            work = self._works.get((visitor, page))
        if work is not None:
            work.stop()

    def make_upload_room(self) -> None:
        """Delete the oldest uploads where all of them are more than `limits.sound_bytes`."""
        with self._lock:
            places = [file for file in self.uploads_folder.rglob("*") if file.is_file()]
            ages = sorted((file.stat().st_mtime, file.stat().st_size, file) for file in places)
            total = sum(size for _, size, _ in ages)
            for _, size, file in ages:
                if total <= self.limits.sound_bytes:
                    break
                file.unlink(missing_ok=True)
                total -= size

    def duration(self, value: object, name: str = "Duration") -> float:
        """Seconds of a song, as the browser sent them, or a `ValueError`."""
        return within(name, value, 0.05, self.limits.duration, " s")

    def lyrics(self, value: object) -> str:
        """Lyrics, as the browser sent them; a `ValueError` where they are too long."""
        lyrics = value if isinstance(value, str) else ""
        if len(lyrics) > self.limits.lyrics:
            raise ValueError(f"Lyrics must have at most {self.limits.lyrics} characters, got {len(lyrics)}")
        return lyrics

    def message(self, error: BaseException) -> str:
        """An error's text for a visitor; what is not meant for people goes to the log alone."""
        if not isinstance(error, _OURS):
            logger.error("an error of the studio", exc_info=error)
            return "Something went wrong that should not; the server's log says what."
        lines = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
        return (lines or type(error).__name__).replace(str(self.folder), "the studio's folder")


def reporting(
    failed: Callable[..., View],
) -> Callable[[Callable[..., Iterator[View]]], Callable[..., Iterator[View]]]:
    """A decorator of a page's generator, whose first argument is the studio: an error ends it with a view that
    `failed` makes of the error's text as HTML and of the other arguments.
    """

    def decorate(page: Callable[..., Iterator[View]]) -> Callable[..., Iterator[View]]:
        @functools.wraps(page)
        def views(studio: Studio, *fields: object) -> Iterator[View]:
            try:
                yield from page(studio, *fields)
            except Exception as error:
                yield failed(html.alert(studio.message(error)), *fields)

        return views

    return decorate


def status_only(status: str, *fields: object) -> Shown:
    """A view in which the result stays."""
    return status, None


def seed_of(value: object) -> int:
    """A seed as the browser sent it; nothing draws one, and what is none is a `ValueError`."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return fresh_seed()
    if isinstance(value, str) and value.strip().isdecimal() and len(value.strip()) <= 20:
        return check_seed(int(value))
    raise ValueError(f"Seed must be a whole number from 0 to {2**63 - 1}, or empty, got {str(value)[:40]!r}")
