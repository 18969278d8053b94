"""Sources of sound as readers of frames: arrays, and files by libsndfile."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

import numpy as np
import soundfile
from torch import Tensor

from fast_jukebox.audio.bytes import ByteReader, RangesFile
from fast_jukebox.audio.containers import FFMPEG_HINT, find_layout
from fast_jukebox.audio.layout import Layout
from fast_jukebox.audio.mpeg import mpeg_layout
from fast_jukebox.audio.quiet import quiet_decoder
from fast_jukebox.audio.resample import MAX_RATE, check_rate
from fast_jukebox.utils.files import open_regular
from fast_jukebox.utils.text import printable

# libsndfile says this where a stream does not state its length.
_UNKNOWN_FRAMES = 2**63 - 1
_SKIPPED_AT_ONCE = 2**16
_REPAIR_HINT = "fetch it again, or save what is left of it, for example with `ffmpeg -i FILE FIXED.flac`"
_LAYOUTS: dict[Hashable, Layout] = {}
_MOST_LAYOUTS = 4096
_T = TypeVar("_T")

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class AudioInfo:
    """Format and length of a sound.

    Attributes:
        frames: samples in each channel that can be read, or None where only reading finds out.
        container: such as `"WAV"`, or `"array"`.
        subtype: how a sample is stored, such as `"PCM_16"` or numpy's name of a type.
        missing: what the header states and the file lacks, as of one that was cut off; None where all is there.
        left_out: what the file holds and is not read; None where all is read.
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


class Reader(ABC):
    """Frames of a sound, read one block after the other; a context manager that closes it."""

    name: str
    info: AudioInfo

    @abstractmethod
    def seek(self, frame: int) -> None:
        """Read on from this frame."""

    @abstractmethod
    def read(self, frames: int) -> np.ndarray:
        """At most so many frames, float32 (frames, channels); none at the end."""

    def close(self) -> None:  # noqa: B027 (an array has nothing to release)
        """Release the source."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class ArrayReader(Reader):
    """Frames of an array (samples,) or (channels, samples), float, or signed integer of 8 to 32 bits."""

    def __init__(self, array: object, rate: object, name: str = "the array") -> None:
        rate = check_rate("source_rate", rate)
        array = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
        if array.ndim not in (1, 2) or array.dtype.kind not in "fi":
            raise ValueError(
                f"an array of audio must be float or signed integer, (samples,) or (channels, samples), "
                f"got {array.dtype} {array.shape}"
            )
        if array.dtype.kind == "i" and array.dtype.itemsize > 4:
            raise ValueError(
                f"an array of audio must be float, or integer of at most 32 bits, which are taken for its full range, "
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


class FileReader(Reader):
    """Frames of a file by libsndfile, all its parts one after the other.

    Args:
        file: can seek; closed with the reader only where `owned`.
        name: for messages.
        key: equal for equal bytes, under which the file's layout is cached; None for no cache.
        owned: the file was opened for this reader.

    Raises:
        ValueError: it is no sound that can be read; names it.
    """

    def __init__(self, file: BinaryIO, name: str, key: Hashable = None, owned: bool = True) -> None:
        self.name, self._file, self._owned = name, file, owned
        self._sound: _ForwardFile | None = None
        self._bytes = RangesFile(file, ())
        self._part = -1
        self._position = 0  # in the part that is open
        try:
            self._layout = self._find_layout(key)
            self.info, self._starts = self._measure()
        except BaseException:
            self.close()
            raise

    def seek(self, frame: int) -> None:
        """Read on from this frame; where seeking fails, or is not exact, frames are read and dropped up to it."""
        index = max(0, bisect_right(self._starts, frame) - 1)
        sound, part, frame = self._open(index), self._layout.parts[index], frame - self._starts[index]
        target = (frame if part.exact_until is None else min(frame, part.exact_until)) - part.lead
        if target > 0:
            try:
                reached = self._call(lambda: sound.seek(target))
            except ValueError:
                reached = -1
            self._position = reached if reached == target else -1  # somewhere
            if reached != target:
                self._open(index)
        while self._position < frame and len(self._read(min(_SKIPPED_AT_ONCE, frame - self._position))):
            pass

    def read(self, frames: int) -> np.ndarray:
        while True:
            block = self._read(frames)
            if len(block) or self._part + 1 >= len(self._layout.parts):
                return block
            self._open(self._part + 1)

    def close(self) -> None:
        self._close_part()
        if self._owned:
            self._file.close()

    def _find_layout(self, key: Hashable) -> Layout:
        known = None if key is None else _LAYOUTS.get(key)
        if known is not None:
            return known
        data = ByteReader(self._file)
        try:
            self._layout = layout = find_layout(data)
        except ValueError as error:
            raise ValueError(f"{self.name} {error}") from error
        frames: Layout | None = layout
        try:
            if self._open(0).format == "MP3" and not layout.quiet:
                # libsndfile takes much for MPEG audio: only where most of the file is such frames, it is.
                frames = mpeg_layout(data, 0)
        except ValueError:  # MPEG audio may also begin within a frame
            frames = mpeg_layout(data, 0)
            if frames is None:
                raise
        if frames is None:
            raise ValueError(
                f"{self.name} is no sound that can be read, though it looks a little like MP3; {_REPAIR_HINT}"
            )
        layout = frames
        if key is not None:
            if len(_LAYOUTS) >= _MOST_LAYOUTS:
                _LAYOUTS.clear()
            _LAYOUTS[key] = layout
        return layout

    def _measure(self) -> tuple[AudioInfo, list[int]]:
        """Format and length of the complete sound, and the first frame of each part, as far as they are known."""
        parts, layout = len(self._layout.parts), self._layout
        first = self._open(0)
        counts: list[int] = []
        for index in range(parts):
            sound = self._open(index)
            if not 1 <= sound.samplerate <= MAX_RATE:
                raise ValueError(
                    f"{self.name} has {sound.samplerate} samples a second; from 1 to {MAX_RATE} can be read; "
                    f"{FFMPEG_HINT}"
                )
            if sound.samplerate != first.samplerate:
                raise ValueError(
                    f"{self.name} changes from {first.samplerate} to {sound.samplerate} samples a second in its part "
                    f"{index + 1}, which cannot be read; {FFMPEG_HINT}"
                )
            gaps = self._layout.parts[index].has_gaps
            if 0 <= sound.frames < _UNKNOWN_FRAMES and not gaps:
                counts.append(sound.frames)
            elif parts > 1 or gaps:  # only reading finds out
                counts.append(sum(iter(lambda: len(self._read(_SKIPPED_AT_ONCE)), 0)))
        known = sum(counts) if len(counts) == parts else None
        facts = first.samplerate, first.channels, known, first.format, first.subtype
        starts = list(accumulate(counts, initial=0))[:parts]
        self._open(0)
        return AudioInfo(*facts, layout.missing, layout.left_out), starts

    def _open(self, index: int) -> _ForwardFile:
        """Open a part at its beginning."""
        if self._sound is not None and index == self._part and self._position == 0:
            return self._sound
        self._close_part()
        part = self._layout.parts[index]
        self._bytes = source = RangesFile(self._file, part.ranges, part.prefix)
        try:
            with self._quiet():
                self._sound = _ForwardFile(source)
        except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
            if source.error is not None:
                raise source.error from error
            reason = (getattr(error, "error_string", None) or str(error)).rstrip(".")
            if reason.startswith("File does not exist"):  # libsndfile's words for MPEG audio without a whole frame
                reason = "it ends before the first sound"
            raise ValueError(f"{self.name} is no sound that can be read: {reason}; {_REPAIR_HINT}") from error
        self._part, self._position = index, 0
        return self._sound

    def _close_part(self) -> None:
        sound, self._sound = self._sound, None
        if sound is not None:
            self._call(sound.close)

    def _read(self, frames: int) -> np.ndarray:
        sound = self._sound
        assert sound is not None
        block = self._call(lambda: sound.read(frames, dtype="float32", always_2d=True))
        self._position += len(block)
        return block

    def _quiet(self) -> contextlib.AbstractContextManager[None]:
        return quiet_decoder() if self._layout.quiet else contextlib.nullcontext()

    def _call(self, action: Callable[[], _T]) -> _T:
        """Call libsndfile; its errors, and those of the file below it, are raised as the package's."""
        try:
            with self._quiet():
                result = action()
        except (soundfile.SoundFileError, RuntimeError) as error:
            if self._bytes.error is not None:
                raise self._bytes.error from error
            reason = str(getattr(error, "error_string", error)).rstrip(".")
            raise ValueError(f"{self.name} is broken: {reason}; {_REPAIR_HINT}") from error
        if self._bytes.error is not None:
            raise self._bytes.error
        return result


class _ForwardFile(soundfile.SoundFile):
    """A file that is read forward: after each block, soundfile would seek to where it is, which not all can."""

    def seekable(self) -> bool:
        return False


def open_reader(source: object, source_rate: int | None) -> Reader:
    """Open a source that [`~fast_jukebox.audio.io.load_audio`] takes; errors as there."""
    if isinstance(source, dict):
        if source.get("array") is not None:
            return ArrayReader(source["array"], source.get("sampling_rate", source_rate))
        name = str(source["path"]) if source.get("path") else None
        if source.get("bytes") is not None:
            return _bytes_reader(source["bytes"], name or "the given bytes")
        source = name
    if hasattr(source, "get_all_samples"):  # a decoder of torchcodec
        samples = source.get_all_samples()
        return ArrayReader(samples.data, int(samples.sample_rate), "the decoder")
    if isinstance(source, bytes | bytearray | memoryview):
        return _bytes_reader(source, "the given bytes")
    if isinstance(source, str | os.PathLike):
        file = open_regular(source)
        found = os.fstat(file.fileno())
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        return FileReader(file, printable(source), key)
    if isinstance(source, Tensor | np.ndarray | list | tuple):
        return ArrayReader(source, source_rate)
    if hasattr(source, "read") and hasattr(source, "seek"):
        name = str(getattr(source, "name", "the given file"))
        return FileReader(cast(BinaryIO, source), name, owned=False)
    raise ValueError(
        f"`source` must be a path, bytes, a binary file, an array, or a dictionary of one, got {type(source)}"
    )


def _bytes_reader(data: bytes | bytearray | memoryview, name: str) -> FileReader:
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return FileReader(io.BytesIO(data), printable(name), (len(data), digest))
