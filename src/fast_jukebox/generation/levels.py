"""The codes of one level while its windows are sampled."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from fast_jukebox.generation.windows import Layout, Window, seam_in


class LevelCodes:
    """The codes of one level, of which windows are done one after the other.

    Args:
        songs: how many, N.
        given: int64 (1 or N, codes) known from the start, or `None`.
        layout: the windows to do; `None` for a level that is given whole.
        device: where to keep the codes.

    Attributes:
        done: for each song, how many windows of the layout are done.
        final: position up to which no code of any song will change.
        offset: position of the first code that is still kept.
        parallel: whether windows do not wait for each other.
        seams: for each song, the positions, of those still kept, at which one window takes over from another.
    """

    def __init__(self, songs: int, given: Tensor | None, layout: Layout | None, device: torch.device) -> None:
        known = 0 if given is None else given.shape[1]
        room = known if layout is None or layout.length is None else layout.length
        self.codes = torch.zeros((songs, room), dtype=torch.int64, device=device)
        if given is not None:
            self.codes[:, :known] = given.to(device)
        self.offset = 0
        self.final = known
        self.done = [0] * songs
        self.seams: list[list[int]] = [[] for _ in range(songs)]
        self.parallel = layout is not None and layout.parallel
        self._coming: Iterator[Window] = iter(()) if layout is None else layout.windows()
        self._waiting: deque[Window] = deque()

    def ahead(self, count: int | None) -> list[Window]:
        """The next `count` windows that are not done, or those that are left; `None` for all of a song that ends."""
        return list(islice(self._windows(), count))

    def until(self, position: int, known: int | None = None) -> list[Window]:
        """The next windows, up to the one that makes the codes final up to a position; of a parallel level also those
        after it that end by `known`.
        """
        windows, final = [], self.final
        for window in self._windows():
            if final >= position and not (self.parallel and known is not None and window.end <= known):
                break
            windows.append(window)
            final = max(final, window.final)
        return windows

    def _windows(self) -> Iterator[Window]:
        """Windows that are not done, in order."""
        yield from self._waiting
        for window in self._coming:
            self._waiting.append(window)
            yield window

    def read(self, start: int, stop: int) -> Tensor:
        """Codes (N, stop - start), a view."""
        return self.codes[:, start - self.offset : stop - self.offset]

    def place(self, window: Window, codes: Tensor, songs: slice) -> None:
        """Take in what was sampled for a window, after the windows before it.

        Args:
            window: the next one of these songs.
            codes: int64 (songs, window.length), the prompt included.
            songs: which songs.
        """
        self._make_room(window.end)
        rows = range(*songs.indices(len(self.done)))
        seams = [window.new_start] * len(rows)
        if window.seam_end:
            first = max(window.seam_end - window.seam_length, window.start)
            before = self.read(first, window.seam_end)[songs]
            after = codes[:, first - window.start : window.seam_end - window.start]
            seams = [first + seam for seam in seam_positions(before, after, 0, before.shape[1])]
        for index, (song, seam) in enumerate(zip(rows, seams, strict=True)):
            self.codes[song, seam - self.offset : window.end - self.offset] = codes[index, seam - window.start :]
            if self.done[song]:
                self.seams[song].append(seam)
            self.done[song] += 1
        if min(self.done) == max(self.done):  # every song has it
            self.ahead(1)
            self._waiting.popleft()
            self.final = max(self.final, window.final)

    def place_part(self, window: Window, codes: Tensor) -> None:
        """Take in the first codes of the next window of all songs, one that no window before it runs into.

        Args:
            window: the next one.
            codes: int64 (N, known), the prompt included.
        """
        end = window.start + codes.shape[1]
        self._make_room(end)
        self.codes[:, window.start - self.offset : end - self.offset] = codes
        self.final = max(self.final, min(end, window.final))

    def forget(self, before: int) -> None:
        """Release the codes before a position, where that frees at least half of them."""
        drop = min(before, self.final) - self.offset
        if drop > 0 and 2 * drop >= self.codes.shape[1]:
            self.codes = self.codes[:, drop:].clone()
            self.offset += drop
            self.seams = [[seam for seam in own if seam >= self.offset] for own in self.seams]

    def _make_room(self, end: int) -> None:
        missing = end - self.offset - self.codes.shape[1]
        if missing > 0:
            self.codes = torch.cat([self.codes, self.codes.new_zeros((len(self.done), missing))], dim=1)


def seam_positions(before: Tensor, after: Tensor, first: int, last: int) -> list[int]:
    """Where to change from the codes of one window to those of the next: in the middle of the longest segment of codes
    on which both agree, so that to either side of the seam stands what both would have said.

    Whole numbers on the host, song by song: the same in any batch and on any device.

    Args:
        before: int64 (N, M), what the earlier window has for the span that both have sampled.
        after: int64 (N, M), what the later one has.
        first: the earliest seam allowed, from 0.
        last: the latest, from `first` to M. Agreement counts from `first` to `last` only.

    Returns:
        For each song the seam s: codes before s are of the earlier window, the others of the later one. Of segments of
        the same length the first is taken; the middle of the allowed span where no code agrees.
    """
    agreed = (before[:, first:last] == after[:, first:last]).to("cpu", torch.int64).tolist()
    return [first + seam_in(row) for row in agreed]
