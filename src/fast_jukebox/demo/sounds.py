"""Sound files of the studio, in its folder, under names that nobody can guess."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from fast_jukebox.audio.io import load_audio, save_audio
from fast_jukebox.evaluation.notes import shortest_clip
from fast_jukebox.evaluation.pictures import envelope, plot_notes, plot_spectrograms
from fast_jukebox.utils.files import write_file

FORMATS = ("wav", "flac", "mp3")
"""Formats of a download."""
PICTURES = ("notes", "spectrogram", "alignment")
"""Pictures of a sound; the last is there where a song with lyrics was aligned."""

_TOKEN = re.compile(r"[0-9a-f]{32}")
_FACTS = "facts.json"
_PICTURE_SECONDS = 60.0
"""Seconds of a sound that are drawn, from its beginning."""
_LIVE = 32
"""Songs in the making whose sound is kept at once."""
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def new_token() -> str:
    """A name that nobody can guess: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def is_token(text: object) -> bool:
    """A text may be a name of [`new_token`]; others are never made a path."""
    return isinstance(text, str) and _TOKEN.fullmatch(text) is not None


@dataclass(frozen=True)
class Sound:
    """A sound file.

    Attributes:
        token: its name.
        title: of the files that are downloaded: letters, digits and `-`.
        rate: samples a second.
        samples: how many.
        low: smallest sample of each of the parts of a waveform.
        high: largest sample of each.
        tags: of the files, see [`save_audio`].
    """

    token: str
    title: str
    rate: int
    samples: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.samples / self.rate

    @property
    def formats(self) -> tuple[str, ...]:
        """Of downloads."""
        return FORMATS if self.rate in _MP3_RATES else FORMATS[:2]

    @property
    def has_notes(self) -> bool:
        """It is long enough for its notes to be estimated."""
        return self.rate >= 8000 and self.samples >= shortest_clip(self.rate)


class Live:
    """Sound in the making: 16-bit little-endian samples that any number of listeners can follow from the beginning.

    Args:
        rate: samples a second.
        most_seconds: what is kept; what is written beyond is dropped.
    """

    def __init__(self, rate: int, most_seconds: float) -> None:
        self.rate, self._most = rate, round(rate * most_seconds) * 2
        self._data, self._ended = bytearray(), False
        self._changed = threading.Condition()

    def write(self, audio: Tensor) -> None:
        """Append float samples (T,) in [-1, 1], or clipped to it."""
        samples = np.round(audio.detach().cpu().float().clamp(-1, 1).numpy() * 32767).astype("<i2").tobytes()
        with self._changed:
            self._data += samples[: self._most - len(self._data)]
            self._changed.notify_all()

    def end(self) -> None:
        """Nothing more comes."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def chunks(self) -> Iterator[bytes]:
        """The sound as it is written, from the beginning to the end."""
        position = 0
        while True:
            with self._changed:
                if position == len(self._data):
                    if self._ended:
                        return
                    self._changed.wait(1.0)
                chunk = bytes(self._data[position:])
            position += len(chunk)
            if chunk:
                yield chunk


class Sounds:
    """Sound files in a folder, the oldest of which make room for new ones. Safe to use from many threads."""

    def __init__(self, folder: Path, most: int, most_bytes: int, most_seconds: float) -> None:
        self.folder, self._most, self._most_bytes, self._most_seconds = folder, most, most_bytes, most_seconds
        self._live: OrderedDict[str, Live] = OrderedDict()
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, audio: Tensor, rate: int, title: str, tags: dict[str, str] | None = None) -> Sound:
        """Keep a sound, float (T,), clipped to [-1, 1]; the title is that of the files to download."""
        audio = audio.detach().cpu().float().clamp(-1, 1)
        token = new_token()
        low, high = waveform(audio)
        title = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "song"
        sound = Sound(token, title, rate, len(audio), low, high, tags or {})
        place = self.folder / token
        place.mkdir()
        save_audio(place / "sound.wav", audio, rate, tags=tags)
        write_file(place / _FACTS, json.dumps(asdict(sound)))
        self._make_room()
        return sound

    def get(self, token: object) -> Sound | None:
        """The sound of a name, `None` where there is none (any more)."""
        if not isinstance(token, str) or not is_token(token):
            return None
        try:
            record = json.loads((self.folder / token / _FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return Sound(**{**record, "low": tuple(record["low"]), "high": tuple(record["high"])})

    def file(self, token: object, suffix: str) -> Path | None:
        """A sound's file in one of [`FORMATS`], made when it is asked for first; `None` where there is none."""
        sound = self.get(token)
        if sound is None or suffix not in sound.formats:
            return None
        path = self.folder / sound.token / f"sound.{suffix}"
        if not path.is_file():
            save_audio(path, self.audio(sound), sound.rate, tags=sound.tags)
        return path

    def picture(self, token: object, kind: str) -> Path | None:
        """One of [`PICTURES`] of a sound's first minute, drawn when it is asked for first; `None` where there is none.

        Raises:
            ImportError: matplotlib is not there.
        """
        sound = self.get(token)
        if sound is None or kind not in PICTURES or (kind == "notes" and not sound.has_notes):
            return None
        path = self.folder / sound.token / f"{kind}.png"
        if kind == "alignment":
            return path if path.is_file() else None
        if not path.is_file():
            clip = {"": self.audio(sound)[: round(_PICTURE_SECONDS * sound.rate)]}
            if kind == "notes":
                plot_notes(path, clip, sound.rate, min(sound.duration, _PICTURE_SECONDS))
            else:
                plot_spectrograms(path, clip, sound.rate)
        return path

    def audio(self, sound: Sound) -> Tensor:
        """Its samples, float32 (T,)."""
        return load_audio(self.folder / sound.token / "sound.wav", sampling_rate=sound.rate)

    def new_live(self, rate: int) -> tuple[str, Live]:
        """Sound in the making and its name; the oldest ends where there are too many."""
        token, live = new_token(), Live(rate, self._most_seconds)
        with self._lock:
            self._live[token] = live
            while len(self._live) > _LIVE:
                self._live.popitem(last=False)[1].end()
        return token, live

    def live(self, token: str) -> Live | None:
        """Sound in the making by its name."""
        with self._lock:
            return self._live.get(token)

    def _make_room(self) -> None:
        """Delete the oldest sounds where there are too many, but never the newest."""
        with self._lock:
            places = [place for place in self.folder.iterdir() if is_token(place.name)]
            ages = sorted((place.stat().st_mtime, place) for place in places)
            sizes = {place: sum(_size(file) for file in place.iterdir()) for place in places}
            count, total = len(places), sum(sizes.values())
            for _, place in ages[:-1]:
                if count <= self._most and total <= self._most_bytes:
                    break
                shutil.rmtree(place, ignore_errors=True)
                count, total = count - 1, total - sizes[place]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # a temporary file that was renamed meanwhile
        return 0


def waveform(audio: Tensor, parts: int = 300) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Smallest and largest sample of each of equal parts of sound (T,), to three digits."""
    if not len(audio):
        return (), ()
    low, high = envelope(audio, parts)
    return tuple(round(each, 3) for each in low.tolist()), tuple(round(each, 3) for each in high.tolist())
