"""Songs of the page Compose: sessions in the studio's folder, each with a record of the page's own."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from fast_jukebox.demo.models import StudioModel, described
from fast_jukebox.demo.sounds import Sound, is_token, new_token
from fast_jukebox.demo.studio import Studio
from fast_jukebox.sampling.progress import ProgressCallback
from fast_jukebox.sessions.notes import Take
from fast_jukebox.sessions.session import Session
from fast_jukebox.utils.files import write_file

_RECORD = "song.json"
_LONGEST_TITLE = 60
_MOST_REMEMBERED = 500
"""Songs that are noted of a browser."""


@dataclass(frozen=True)
class SongRecord:
    """Facts of a song beside its session.

    Attributes:
        key: its name, which opens it: whoever knows it may change the song.
        title: of the song.
        model: name of the model that makes it.
        created: seconds since 1970.
        parts: of each take by its number, spans in seconds that were upsampled alone.
        sounds: names of the studio's sounds, by what they are of: see [`sound_name`].
    """

    key: str
    title: str
    model: str
    created: float
    parts: dict[str, list[list[float]]] = field(default_factory=dict)
    sounds: dict[str, str] = field(default_factory=dict)


def sound_name(take: int, level: int, part: Sequence[float] | None = None) -> str:
    """Name in a record of the sound of a take, decoded from a level; of all of it or of a part in seconds."""
    return f"{take}/{level}" + ("" if part is None else f"/{part[0]:g}-{part[1]:g}")


class ComposedSong:
    """A song with its session, read from the folder."""

    def __init__(self, studio: Studio, record: SongRecord, session: Session, model: StudioModel) -> None:
        self.studio, self.record, self.session, self.model = studio, record, session, model

    @classmethod
    def create(cls, studio: Studio, title: object, model: StudioModel, **request: object) -> ComposedSong:
        """Begin a song; nothing of it is sampled yet.

        Raises:
            ValueError: there are as many songs as there may be, or what the model refuses.
        """
        if sum(1 for _ in studio.songs_folder.iterdir()) >= studio.limits.songs:
            raise ValueError(f"the studio keeps {studio.limits.songs} songs already; delete some of its folder")
        key = new_token()
        shown = " ".join(str(title or "").split())[:_LONGEST_TITLE]
        folder = studio.songs_folder / key
        record = SongRecord(key, shown or f"Song of {time.strftime('%d %B, %H:%M')}", model.name, time.time())
        folder.mkdir()
        try:
            session = model.model.new_session(folder / "session", model_name=model.source, **request)  # type: ignore[arg-type]  # checked by the model
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        song = cls(studio, record, session, model)
        song.write(record)
        return song

    @classmethod
    def open(cls, studio: Studio, key: object) -> ComposedSong:
        """A song by its key.

        Raises:
            ValueError: there is none, or its model is not in the studio.
        """
        record = read_record(studio, key)
        if record.model not in studio.models:
            raise ValueError(f"the song {record.title!r} is made by the model {record.model!r}, which is not loaded")
        model = studio.models[record.model]
        return cls(studio, record, Session.open(song_folder(studio, key) / "session", model.model), model)

    def write(self, record: SongRecord) -> None:
        """Keep a new record, all of it or nothing."""
        self.record = record
        write_file(song_folder(self.studio, record.key) / _RECORD, json.dumps(asdict(record)))

    @property
    def rate(self) -> int:
        """Samples a second."""
        return self.session.facts.sampling_rate

    def level(self, take: Take) -> int | None:
        """The lowest level that is complete; `None` where none is."""
        fractions = self.session.fractions(take)
        return next((level for level, done in enumerate(fractions) if done >= 1), None)

    def sound(self, take: Take) -> Sound | None:
        """The sound of a take at its best, where it is at hand."""
        level = self.level(take)
        return None if level is None else self._sound(sound_name(take.number, level))

    def parts(self, take: Take) -> list[tuple[list[float], Sound]]:
        """Parts of a take that were upsampled alone, in seconds, with their sounds; none once all of it is."""
        if self.level(take) == 0:
            return []
        found = [
            (part, self._sound(sound_name(take.number, 0, part)))
            for part in self.record.parts.get(str(take.number), [])
        ]
        return [(part, sound) for part, sound in found if sound is not None]

    def run(self, report: ProgressCallback) -> None:
        """Make what was asked for and is not done, and decode what is new; when stopped, what was saved stands."""
        asked = self.session.jobs
        self.session.run(progress=report, engine="auto")
        parts = {number: [list(part) for part in own] for number, own in self.record.parts.items()}
        for job in asked:
            if not job.is_part or job.stop_level != 0:
                continue
            for number in job.takes:
                end = self.session.take(number).samples if job.end is None else job.end
                part = [job.start / self.rate, end / self.rate]
                own = parts.setdefault(str(number), [])
                if part not in own:
                    own.append(part)
        self.write(replace(self.record, parts=parts))
        self.decode()

    def decode(self) -> None:
        """Make the sounds that are not at hand: of every take at its best, and of its parts."""
        sounds = dict(self.record.sounds)
        for take in self.session.takes.values():
            level = self.level(take)
            wanted: list[tuple[int, list[float] | None]] = [] if level is None else [(level, None)]
            if level:
                wanted += [(0, part) for part in self.record.parts.get(str(take.number), [])]
            for own, part in wanted:
                name = sound_name(take.number, own, part)
                if self._sound(name) is None:
                    start, end = (None, None) if part is None else part
                    audio = self.session.audio(take, own, start, end)
                    title = f"{self.record.title}-take-{take.number}" + ("-part" if part else "")
                    sounds[name] = self.studio.sounds.add(audio, self.rate, title, self._tags(take)).token
        self.write(replace(self.record, sounds=sounds))

    def check_room(self, more: int) -> None:
        """Raise a `ValueError` for more takes than a song may have."""
        if len(self.session.takes) + more > self.studio.limits.takes:
            raise ValueError(f"a song may have {self.studio.limits.takes} takes; begin another one")

    def labels(self, take: Take) -> str:
        """Labels of a take's newest part, in words."""
        metadata = take.metadata
        words = metadata.get("words") if isinstance(metadata, dict) else None
        return described(words if isinstance(words, dict) else None)

    def _sound(self, name: str) -> Sound | None:
        return self.studio.sounds.get(self.record.sounds.get(name))

    def _tags(self, take: Take) -> dict[str, str]:
        return {"title": self.record.title, "comment": f"take {take.number}, seed {take.seed}"}


def read_record(studio: Studio, key: object) -> SongRecord:
    """The record of a song.

    Raises:
        ValueError: there is no song of that key, or its notes are damaged.
    """
    try:
        return SongRecord(**json.loads((song_folder(studio, key) / _RECORD).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        raise ValueError("the song's notes cannot be read") from error


def songs_of(studio: Studio, browser: object) -> list[str]:
    """Keys of the songs that a browser has had open, the last one last; none for a name that is none."""
    if not isinstance(browser, str) or not is_token(browser):
        return []
    try:
        found = json.loads((studio.browsers_folder / f"{browser}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [key for key in found if is_token(key)] if isinstance(found, list) else []


def remember_song(studio: Studio, browser: str, key: str) -> None:
    """Note that a browser has a song open. Pages of one browser share its notes."""
    with studio.notes_lock:
        known = songs_of(studio, browser)
        if known[-1:] != [key]:
            known = [*[each for each in known if each != key][-_MOST_REMEMBERED:], key]
            write_file(studio.browsers_folder / f"{browser}.json", json.dumps(known))


def song_folder(studio: Studio, key: object) -> Path:
    """The folder of a song.

    Raises:
        ValueError: there is no song of that key.
    """
    if not isinstance(key, str) or not is_token(key) or not (studio.songs_folder / key).is_dir():
        raise ValueError("there is no song of this key in the studio")
    return studio.songs_folder / key
