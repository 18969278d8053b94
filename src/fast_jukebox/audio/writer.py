"""Sound written while it is made: a file that grows and can be played at any moment, or a pipe to a player."""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor

FORMATS = {".wav": "wav", ".flac": "flac", ".mp3": "mp3"}
"""Formats of files by their suffix; a pipe takes one of [`STREAM_KINDS`]."""

STREAM_KINDS = ("wav", "raw", "mp3")
"""Formats of a pipe: WAV of unknown length, 16-bit little-endian samples, or MP3 frames."""

_ENCODERS = {"flac": ("FLAC", "PCM_16"), "mp3": ("MP3", "MPEG_LAYER_III")}

_HEADER = 44
_UNKNOWN = 0xFFFFFFFF
"""What a WAV header says of a length that is not known yet, and the most that it can say."""


class AudioWriter:
    """Writes mono 16-bit sound piece by piece. Use it in a `with` statement.

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
        self._encoder: Any = None
        self._owned = isinstance(target, str | os.PathLike)
        if isinstance(target, str | os.PathLike):
            suffix = Path(target).suffix.lower()
            if suffix not in FORMATS:
                raise ValueError(f"`target` must end in {', '.join(FORMATS)}, got {os.fspath(target)!r}")
            kind = FORMATS[suffix]
            self._file: BinaryIO = open(target, "wb")  # noqa: SIM115 (closed by `close`)
        elif kind not in STREAM_KINDS:
            raise ValueError(f"`kind` must be one of {STREAM_KINDS} for a stream, got {kind!r}")
        else:
            self._file = target
        self.kind = kind
        if kind in _ENCODERS:
            container, subtype = _ENCODERS[kind]
            self._heard = _HeardFile(self._file) if self._owned else _HeardStream(self._file)
            try:
                self._encoder = soundfile.SoundFile(self._heard, "w", sampling_rate, 1, subtype, format=container)
            except soundfile.LibsndfileError as error:
                self.close()
                raise ValueError(
                    f"`sampling_rate` must be one that {container} has, got {sampling_rate}: {error}"
                ) from error
        elif kind == "wav":
            self._file.write(_wav_header(sampling_rate, 0 if self._owned else None))

    def write(self, audio: Any) -> None:
        """Append float samples (T,), an array or a tensor on any device, in [-1, 1] or clipped to it, and hand them on
        to whoever reads.

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
            self._heard.check()
        else:
            encoded = io.BytesIO()  # rounded by the same library as whole files, so to the same bytes
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
                self._heard.check()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Give errors of the disk the file's name, which the system does not tell."""
        try:
            yield
        except OSError as error:
            if self._owned and error.errno and error.filename is None:
                error.filename = self._file.name
            raise

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _HeardFile:
    """The file that libsndfile writes into, which cannot receive an error and would print it: the first is kept, and
    raised by `check`.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """All of it, or nothing once something went wrong; the count of bytes either way."""
        self._attempt(lambda: self._file.write(data))
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new position."""
        self._attempt(lambda: self._file.seek(offset, whence))
        return self._file.tell()

    def tell(self) -> int:
        """The position."""
        return self._file.tell()

    def read(self, count: int) -> bytes:
        """Nothing, as the file is written only; libsndfile takes no file that cannot be read."""
        return b""

    def flush(self) -> None:
        """Hand on what was written."""
        self._attempt(self._file.flush)

    def check(self) -> None:
        """Raise the first error."""
        if self._error is not None:
            raise self._error

    def _attempt(self, act: Callable[[], Any]) -> None:
        if self._error is None:
            try:
                act()
            except OSError as error:
                self._error = error


class _HeardStream(_HeardFile):
    """A stream that cannot seek: what would be written again at an earlier place, as the length of an MP3 file at its
    end, is left out.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._position = self._end = 0

    def write(self, data: bytes) -> int:
        """All of it where it is new."""
        if self._position == self._end:
            self._end += len(data)
            super().write(data)
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new position."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position


def _wav_header(sampling_rate: int, data_bytes: int | None) -> bytes:
    """Of mono 16-bit PCM; `None` for a length that is not known."""
    known = data_bytes is not None and data_bytes + _HEADER <= _UNKNOWN
    size = data_bytes if known and data_bytes is not None else _UNKNOWN
    riff = size + _HEADER - 8 if known else _UNKNOWN
    layout = struct.pack("<HHIIHH", 1, 1, sampling_rate, 2 * sampling_rate, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", riff)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + layout
        + b"data"
        + struct.pack("<I", size)
    )
