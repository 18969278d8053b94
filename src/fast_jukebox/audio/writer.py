"""Sound written while it is generated: a file that grows and can be played at any moment, or a pipe to a player."""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor

from fast_jukebox.utils.text import shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

FORMATS = {".wav": "wav", ".flac": "flac", ".mp3": "mp3"}
"""Formats of files by their suffix; a pipe takes one of [`STREAM_KINDS`]."""

STREAM_KINDS = ("wav", "raw", "mp3")
"""Formats of a pipe: WAV of unknown length, 16-bit little-endian samples, or MP3 frames."""

_ENCODERS = {"flac": ("FLAC", "PCM_16"), "mp3": ("MP3", "MPEG_LAYER_III")}

_HEADER = 44
_UNKNOWN = 0xFFFFFFFF
"""A length in a WAV header that is not known, which is also the largest."""


class AudioWriter:
    """Writer of mono 16-bit sound in chunks, used in a `with` statement.

    A WAV file's header states its length after every chunk, so it is complete even after a power cut; a FLAC file's is
    written at the end. A WAV file of more than 4 GiB (13 hours at 44.1 kHz) says that its length is unknown. MP3 frames
    follow the samples by some hundredths of a second; a player may begin with any of them.

    Args:
        target: a path that ends in `.wav`, `.flac` or `.mp3`, whose folder exists; or a binary stream, which is not
            closed and need not seek.
        sampling_rate: samples a second; for MP3 one that MP3 has.
        kind: for streams, of [`STREAM_KINDS`].

    Attributes:
        samples: how many have been written.

    Raises:
        ValueError: another suffix or kind, or a sampling rate that the format lacks.
        OSError: the file cannot be written.
    """

    def __init__(self, target: str | os.PathLike[str] | BinaryIO, sampling_rate: int, kind: str = "wav") -> None:
        self.sampling_rate, self.samples = sampling_rate, 0
        self._encoder: soundfile.SoundFile | None = None
        self._owned = isinstance(target, str | os.PathLike)
        if isinstance(target, str | os.PathLike):
            suffix = Path(target).suffix.lower()
            if suffix not in FORMATS:
                raise ValueError(f"`target` must end in {', '.join(FORMATS)}, got {os.fspath(target)!r}")
            kind = FORMATS[suffix]
        elif kind not in STREAM_KINDS:
            raise ValueError(f"`kind` must be one of {STREAM_KINDS} for a stream, got {shown(kind)}")
        self.kind = kind
        if kind in _ENCODERS:  # tried before the file is opened, which empties it
            _encoder(io.BytesIO(), sampling_rate, kind).close()
        # Closed by `close`.
        self._file: BinaryIO = open(target, "wb") if isinstance(target, str | os.PathLike) else target  # noqa: SIM115
        if kind in _ENCODERS:
            self._sink = _Sink(self._file) if self._owned else _StreamSink(self._file)
            self._encoder = _encoder(self._sink, sampling_rate, kind)
        elif kind == "wav":
            self._file.write(_wav_header(sampling_rate, 0 if self._owned else None))

    def write(self, audio: Tensor | ArrayLike) -> None:
        """Append float samples (T,), an array or a tensor on any device, clipped to [-1, 1], and flush them.

        Raises:
            BrokenPipeError: nobody reads the pipe any more.
            OSError: the disk is full, or the file cannot be written.
        """
        if isinstance(audio, Tensor):
            audio = audio.detach().to(device="cpu", dtype=torch.float32).numpy()
        with self._named_errors():
            self._write(np.clip(np.asarray(audio, dtype=np.float32), -1.0, 1.0))

    def _write(self, samples: np.ndarray) -> None:
        if self._encoder is not None:
            self._encoder.write(samples)
            self._sink.check()
        else:
            encoded = io.BytesIO()  # rounded by the library that writes complete files, so to the same bytes
            soundfile.write(encoded, samples, self.sampling_rate, "PCM_16", "LITTLE", "RAW")
            self._file.write(encoded.getbuffer())
        self.samples += len(samples)
        if self._owned and self.kind == "wav":
            end = self._file.tell()
            self._file.seek(0)
            self._file.write(_wav_header(self.sampling_rate, 2 * self.samples))
            self._file.seek(end)
        self._file.flush()

    def close(self) -> None:
        """Finish the file; a stream stays open.

        Raises:
            OSError: what is left cannot be written.
        """
        with self._named_errors(), contextlib.ExitStack() as stack:
            if self._owned:
                stack.callback(self._file.close)
            if self._encoder is not None:
                self._encoder.close()
                self._sink.check()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Give errors of the disk the file's name, which the system does not state."""
        try:
            yield
        except OSError as error:
            if self._owned and error.errno and error.filename is None:
                error.filename = self._file.name
            raise

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _encoder(sink: _Sink | io.BytesIO, sampling_rate: int, kind: str) -> soundfile.SoundFile:
    container, subtype = _ENCODERS[kind]
    try:
        return soundfile.SoundFile(sink, "w", sampling_rate, 1, subtype, format=container)
    except soundfile.LibsndfileError as error:
        message = f"`sampling_rate` must be one that {container} has, got {sampling_rate}: {error}"
        raise ValueError(message) from error


class _Sink:
    """The file that libsndfile writes into. It would print errors: the first is kept here, and raised by `check`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write all of it, or nothing after an error; the count of bytes either way."""
        self._attempt(lambda: self._file.write(data))
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._attempt(lambda: self._file.seek(offset, whence))
        return self._file.tell()

    def tell(self) -> int:
        return self._file.tell()

    def read(self, count: int) -> bytes:
        """Read nothing; libsndfile takes no file that cannot be read."""
        return b""

    def flush(self) -> None:
        self._attempt(self._file.flush)

    def check(self) -> None:
        """Raise the first error."""
        if self._error is not None:
            raise self._error

    def _attempt(self, act: Callable[[], object]) -> None:
        if self._error is None:
            try:
                act()
            except OSError as error:
                self._error = error


class _StreamSink(_Sink):
    """A stream that cannot seek: what libsndfile writes to earlier positions (the length of an MP3 file) is dropped."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._position = self._end = 0

    def write(self, data: bytes) -> int:
        if self._position == self._end:
            self._end += len(data)
            super().write(data)
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        return self._position

    def tell(self) -> int:
        return self._position


def _wav_header(sampling_rate: int, data_bytes: int | None) -> bytes:
    """The header of mono 16-bit PCM; `None` for a length that is not known."""
    riff = size = _UNKNOWN
    if data_bytes is not None and data_bytes + _HEADER <= _UNKNOWN:
        riff, size = data_bytes + _HEADER - 8, data_bytes
    layout = (1, 1, sampling_rate, 2 * sampling_rate, 2, 16)
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", riff, b"WAVE", b"fmt ", 16, *layout, b"data", size)
