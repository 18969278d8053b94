"""Sources of sound as readers of frames: arrays, and files by libsndfile."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from bisect import bisect_right
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np
import soundfile
from torch import Tensor

from fast_jukebox.audio.bytes import ByteReader, RangesFile
from fast_jukebox.audio.containers import FFMPEG_HINT, find_layout
from fast_jukebox.audio.layout import Layout
from fast_jukebox.audio.mpeg import mpeg_layout
from fast_jukebox.audio.quiet import quiet_decoder
from fast_jukebox.audio.resample import MAX_RATE, check_rate
from fast_jukebox.utils.text import printable

# libsndfile says this where a stream does not state its length.
_UNKNOWN_FRAMES = 2**63 - 1
_SKIPPED_AT_ONCE = 2**16
_LAYOUTS: dict[Hashable, Layout] = {}
_MOST_LAYOUTS = 4096
_T = TypeVar("_T")


@dataclass(frozen=True)
class AudioInfo:
    """Format and length of a sound.

    Attributes:
        sampling_rate: samples a second.
        channels: number of channels.
        frames: samples in each channel that can be read, or None where only reading finds out.
        container: such as `"WAV"`, or `"array"`.
        subtype: how a sample is stored, such as `"PCM_16"` or numpy's name of a type.
        missing: what the header states and the file lacks, as of one that was cut off; None where all is there.
        left_out: what the file holds and is not read; None where there is nothing such.
    """

    sampling_rate: int
    channels: int
    frames: int | None
    container: str
    subtype: str
    missing: str | None = None
    left_out: str | None = None

    @property
    def duration(self) -> float | None:
        """Length in seconds, or None where only reading finds out."""
        return None if self.frames is None else self.frames / self.sampling_rate


class Reader(Protocol):
    """Frames of a sound, read one block after the other; a context manager that closes it.

    Attributes:
        name: for messages.
        info: of the whole sound.
    """

    name: str
    info: AudioInfo

    def seek(self, frame: int) -> None:
        """Read on from this frame."""

    def read(self, frames: int) -> np.ndarray:
        """At most so many frames, float32 (frames, channels); none at the end."""

    def close(self) -> None:
        """Release the source."""

    def __enter__(self) -> Reader: ...
    def __exit__(self, *error: object) -> None: ...


class ArrayReader:
    """Frames of an array that is in memory.

    Args:
        array: (samples,) or (channels, samples), float, or signed integer of 8 to 32 bits.
        rate: samples a second.
        name: for messages.

    Raises:
        ValueError: another shape or type, or no rate.
    """

    def __init__(self, array: Any, rate: Any, name: str = "the array") -> None:
        if rate is None:
            raise ValueError("`source_rate` must be given with an array, got None")
        check_rate("source_rate", rate)
        array = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
        if array.ndim not in (1, 2) or array.dtype.kind not in "fi":
            raise ValueError(
                f"an array of audio must be float or signed integer, (samples,) or (channels, samples), "
                f"got {array.dtype} {array.shape}"
            )
        if array.dtype.kind == "i" and array.dtype.itemsize > 4:
            raise ValueError(
                f"an array of audio must be float, or integer of at most 32 bits, which are taken for its whole range, "
                f"got {array.dtype}: give it the type of its samples, such as `array.astype('int16')`"
            )
        if array.ndim == 2 and array.shape[0] > array.shape[1] > 0:
            raise ValueError(
                f"an array of audio must be (samples,) or (channels, samples), got {array.shape}: {array.shape[0]} "
                "channels of fewer samples; turn (samples, channels) round with `array.T`"
            )
        self.name, self.position = name, 0
        self.array = np.atleast_2d(array)
        channels, frames = self.array.shape
        self.info = AudioInfo(rate, channels, frames, "array", str(array.dtype))

    def seek(self, frame: int) -> None:
        self.position = frame

    def read(self, frames: int) -> np.ndarray:
        block = self.array[:, self.position : self.position + frames].T
        self.position += len(block)
        scale = 1.0 if block.dtype.kind == "f" else -1.0 / np.iinfo(block.dtype).min
        return block.astype(np.float32) * np.float32(scale)

    def close(self) -> None:
        pass

    def __enter__(self) -> ArrayReader:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class FileReader:
    """Frames of a file by libsndfile, all its parts one after the other.

    Args:
        file: can seek; closed with the reader only where `owned`.
        name: for messages.
        key: the same for the same bytes, under which what was found of the file is remembered; None for no memory.
        owned: whether the file was opened for this reader.

    Raises:
        ValueError: it is no sound that can be read; names it.
    """

    def __init__(self, file: BinaryIO, name: str, key: Hashable = None, owned: bool = True) -> None:
        self.name, self._file, self._owned = name, file, owned
        self._sound: _ForwardFile | None = None
        self._bytes: RangesFile | None = None
        self._part = -1
        self._position = 0  # in the part that is open
        try:
            self._layout = self._find_layout(key)
            self.info, self._starts = self._measure()
        except BaseException:
            self.close()
            raise

    def seek(self, frame: int) -> None:
        """Read on from this frame; where seeking fails, or is not exact, frames are read and thrown away up to it."""
        part = max(0, bisect_right(self._starts, frame) - 1)
        self._open(part)
        self._seek_in_part(frame - self._starts[part])

    def read(self, frames: int) -> np.ndarray:
        while True:
            assert self._sound is not None
            block = self._read(frames)
            if len(block) or self._part + 1 >= len(self._layout.parts):
                return block
            self._open(self._part + 1)

    def close(self) -> None:
        if self._sound is not None:
            sound, self._sound = self._sound, None
            self._call(sound.close)
        if self._owned:
            self._file.close()

    def __enter__(self) -> FileReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _find_layout(self, key: Hashable) -> Layout:
        known = None if key is None else _LAYOUTS.get(key)
        if known is not None:
            return known
        data = ByteReader(self._file)
        try:
            layout = find_layout(data)
        except ValueError as error:
            raise ValueError(f"{self.name} {error}") from error
        self._layout = layout
        self._open(0)
        assert self._sound is not None
        if self._sound.format == "MP3" and not layout.quiet:
            # libsndfile takes much for MPEG audio: only where most of the file is such frames, it is.
            frames = mpeg_layout(data, 0)
            if frames is None:
                raise ValueError(f"{self.name} is no sound that can be read, though it looks a little like MP3")
            layout = frames
        if key is not None:
            if len(_LAYOUTS) >= _MOST_LAYOUTS:
                _LAYOUTS.clear()
            _LAYOUTS[key] = layout
        return layout

    def _measure(self) -> tuple[AudioInfo, list[int]]:
        """The whole sound's format and length, and the first frame of each part, as far as they are known."""
        counts: list[int] = []
        first: _ForwardFile | None = None
        for index in range(len(self._layout.parts)):
            self._open(index)
            sound = self._sound
            assert sound is not None
            rate = sound.samplerate
            if not 1 <= rate <= MAX_RATE:
                raise ValueError(f"{self.name} has {rate} samples a second; from 1 to {MAX_RATE} can be read")
            if first is None:
                first, format_ = sound, (rate, sound.channels, sound.format, sound.subtype)
            if rate != format_[0]:
                raise ValueError(
                    f"{self.name} changes from {format_[0]} to {rate} samples a second in its part {index + 1}, which "
                    f"cannot be read; {FFMPEG_HINT}"
                )
            if sound.frames >= _UNKNOWN_FRAMES or sound.frames < 0:
                if len(self._layout.parts) > 1:
                    counts.append(self._count())
                    continue
                break
            counts.append(sound.frames)
        known = sum(counts) if len(counts) == len(self._layout.parts) else None
        info = AudioInfo(
            *(format_[0], format_[1], known, format_[2], format_[3]), self._layout.missing, self._layout.left_out
        )
        starts = list(accumulate(counts, initial=0))[: len(self._layout.parts)]
        self._open(0)
        return info, starts

    def _count(self) -> int:
        """Frames of the open part, by reading it."""
        total = 0
        while count := len(self._read(_SKIPPED_AT_ONCE)):
            total += count
        return total

    def _open(self, index: int) -> None:
        """Let a part be read from its beginning."""
        if index == self._part and self._position == 0 and self._sound is not None:
            return
        if self._sound is not None:
            sound, self._sound = self._sound, None
            self._call(sound.close)
        part = self._layout.parts[index]
        self._bytes = RangesFile(self._file, part.ranges, part.prefix)
        source = self._bytes
        try:
            with quiet_decoder() if self._layout.quiet else contextlib.nullcontext():
                self._sound = _ForwardFile(source)
        except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
            if source.error is not None:
                raise source.error from error
            reason = getattr(error, "error_string", None) or str(error)
            raise ValueError(f"{self.name} is no sound that can be read: {reason}") from error
        self._part, self._position = index, 0

    def _seek_in_part(self, frame: int) -> None:
        assert self._sound is not None
        sound, part = self._sound, self._layout.parts[self._part]
        target = (frame if part.exact_until is None else min(frame, part.exact_until)) - part.lead
        if target > 0:
            try:
                reached = self._call(lambda: sound.seek(target))
            except ValueError:
                reached = -1
            if reached == target:
                self._position = target
            else:
                self._position = -1  # somewhere
                self._open(self._part)
        while self._position < frame:
            if not len(self._read(min(_SKIPPED_AT_ONCE, frame - self._position))):
                return

    def _read(self, frames: int) -> np.ndarray:
        sound = self._sound
        assert sound is not None
        block = self._call(lambda: sound.read(frames, dtype="float32", always_2d=True))
        self._position += len(block)
        return block

    def _call(self, action: Callable[[], _T]) -> _T:
        """What libsndfile does, its errors as ours."""
        try:
            with quiet_decoder() if self._layout.quiet else contextlib.nullcontext():
                result = action()
        except (soundfile.SoundFileError, RuntimeError) as error:
            if self._bytes is not None and self._bytes.error is not None:
                raise self._bytes.error from error
            raise ValueError(f"{self.name} is broken: {getattr(error, 'error_string', error)}") from error
        if self._bytes is not None and self._bytes.error is not None:
            raise self._bytes.error
        return result


class _ForwardFile(soundfile.SoundFile):
    """A file that is read forward: after each block, soundfile would seek to where it is, which not all can."""

    def seekable(self) -> bool:
        return False


def open_reader(source: Any, source_rate: int | None) -> Reader:
    """The reader of a source as [`~fast_jukebox.audio.io.load_audio`] takes it.

    Raises:
        ValueError: it is no sound that can be read.
        OSError: the file cannot be opened.
    """
    if isinstance(source, dict):
        if source.get("array") is not None:
            return ArrayReader(source["array"], source.get("sampling_rate", source_rate))
        name = str(source["path"]) if source.get("path") else None
        if source.get("bytes") is not None:
            return _bytes_reader(source["bytes"], name or "the given bytes")
        source = name
    if hasattr(source, "get_all_samples"):
        samples = source.get_all_samples()
        return ArrayReader(samples.data, int(samples.sample_rate), "the decoder")
    if isinstance(source, bytes | bytearray | memoryview):
        return _bytes_reader(source, "the given bytes")
    if isinstance(source, str | os.PathLike):
        file = Path(source).open("rb")  # noqa: SIM115 (closed by the reader)
        found = os.fstat(file.fileno())
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        return FileReader(file, printable(source), key)
    if isinstance(source, Tensor | np.ndarray | list | tuple):
        return ArrayReader(source, source_rate)
    if hasattr(source, "read") and hasattr(source, "seek"):
        return FileReader(source, str(getattr(source, "name", "the given file")), owned=False)
    raise ValueError(
        f"`source` must be a path, bytes, a binary file, an array, or a dictionary of one, got {type(source)}"
    )


def _bytes_reader(data: bytes | bytearray | memoryview, name: str) -> FileReader:
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return FileReader(io.BytesIO(data), printable(name), (len(data), digest))
