"""Bytes of an open file: read anywhere through a small cache, or as one file made of several ranges."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import BinaryIO

_WINDOW = 2**20


class ByteReader:
    """Random access to an open binary file, which is read in windows of 1 MiB."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, io.SEEK_END)
        self._start, self._window = 0, b""

    def at(self, position: int, count: int) -> bytes:
        """`count` bytes from `position` on, fewer at the end of the file."""
        if position >= self.size:  # as headers of damaged files say, also further than a file can reach
            return b""
        offset = position - self._start
        if not 0 <= offset <= offset + count <= len(self._window):
            self._file.seek(position)
            self._start, self._window, offset = position, self._file.read(max(_WINDOW, count)), 0
        return self._window[offset : offset + count]

    def find(self, pattern: bytes, start: int, stop: int) -> int:
        """The first position of `pattern` that lies completely between `start` and `stop`; -1 where there is none."""
        while start + len(pattern) <= stop:
            found = self.at(start, min(_WINDOW, stop - start)).find(pattern)
            if found >= 0:
                return start + found
            start += _WINDOW - len(pattern) + 1
        return -1


class RangesFile(io.RawIOBase):
    """A file to read that consists of `prefix` and of ranges (start, stop) of another file, one after the other.

    An error of the other file is kept in `error` and reads as its end, since libsndfile, which calls from C, cannot
    pass an exception on.
    """

    def __init__(self, file: BinaryIO, ranges: Sequence[tuple[int, int]], prefix: bytes = b"") -> None:
        self._file, self._prefix, self._ranges = file, prefix, list(ranges)
        # Where each range ends in this file.
        self._ends = list(accumulate((stop - start for start, stop in ranges), initial=len(prefix)))
        self._position = 0
        self.error: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view):
            chunk = self._chunk(len(view) - done)
            if not chunk:
                break
            view[done : done + len(chunk)] = chunk
            done += len(chunk)
            self._position += len(chunk)
        return done

    def _chunk(self, count: int) -> bytes:
        """At most `count` bytes from the position on, of one range."""
        index = bisect_right(self._ends, self._position)
        if index == 0:
            return self._prefix[self._position : self._position + count]
        if index == len(self._ends):
            return b""
        start, stop = self._ranges[index - 1]
        start += self._position - self._ends[index - 1]
        try:
            self._file.seek(start)
            return self._file.read(min(count, stop - start))
        except OSError as error:
            self.error = error
            return b""
