"""The codes of one level while its windows are sampled, and the batches that they are sampled in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import torch
from torch import Tensor

from fast_jukebox.generation.windows import Layout, Window, even_parts, seam_in

ROWS_AT_ONCE = 8
"""Rows that one of several threads samples at once at most. From 6 on a row costs no less in a larger batch, as
measured with the embedded model, and the fewer they are, the sooner a level can follow the one above."""


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
            seams = [first + seam for seam in seam_positions(before, after)]
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


def seam_positions(before: Tensor, after: Tensor) -> list[int]:
    """Where to change from the codes of one window to those of the next: in the middle of the longest segment of codes
    on which both agree, so that to either side of the seam stands what both would have said.

    Whole numbers on the host, song by song: the same in any batch and on any device.

    Args:
        before: int64 (N, M), what the earlier window has for the span that both have sampled.
        after: int64 (N, M), what the later one has.

    Returns:
        For each song the seam s, from 0 to M: codes before s are of the earlier window, the others of the later one. Of
        segments of the same length the first is taken; the middle of the span where no code agrees.
    """
    return [seam_in(row) for row in (before == after).tolist()]


@dataclass(eq=False)
class Batch:
    """Windows that are sampled at once.

    Attributes:
        windows: of one level and shape, one after another.
        songs: the songs of which they are sampled.
        number: of the first of them among the level's windows, from 0.
        kind: what they have in common beside their shape.
        until: the song's position at which their one window may pause; `None` to sample it to its end.
        codes: int64 (songs, windows, known) once they are sampled.
    """

    windows: list[Window]
    songs: slice
    number: int
    kind: Any
    until: int | None = None
    codes: Tensor | None = None

    @property
    def level(self) -> int:
        """Level of the windows."""
        return self.windows[0].level

    @property
    def length(self) -> int:
        """Codes of each window."""
        return self.windows[0].length

    @property
    def steps(self) -> int:
        """Codes that are sampled of each window."""
        return self.windows[0].new_length

    @property
    def key(self) -> tuple[int, int]:
        """Stays the same where a window pauses and resumes."""
        return self.number, self.songs.start

    @property
    def rows(self) -> int:
        """How many windows of a song."""
        return len(self.windows) * (self.songs.stop - self.songs.start)

    def parts(self, most: int) -> list[Batch]:
        """Batches of at most `most` rows, such that a song's windows follow one another."""
        songs = list(range(self.songs.start, self.songs.stop))
        own = enumerate(self.windows, self.number)
        if len(songs) <= most:
            parts = even_parts(list(own), most // len(songs))
            split = [([window for _, window in part], self.songs, part[0][0]) for part in parts]
        else:
            shares = [slice(part[0], part[-1] + 1) for part in even_parts(songs, most)]
            split = [([window], share, number) for number, window in own for share in shares]
        return [Batch(*each, self.kind) for each in split]


def level_batches(
    windows: Sequence[Window],
    songs: int,
    parallel: bool,
    threads: int = 0,
    follows: bool = False,
    *,
    number: int = 0,
    until: int | None = None,
    kind: Callable[[Window], Any] = lambda window: None,
    is_whole: Callable[[Batch], bool] = lambda batch: False,
) -> list[Batch]:
    """The batches of a level's windows, memory apart: fixed by these numbers, and not by how quickly anything runs.

    Args:
        windows: of one level, one after another.
        songs: N.
        parallel: whether they do not wait for each other.
        threads: that sample batches at the same time; 0 for one that samples as much at once as there is.
        follows: whether the level above is sampled at the same time.
        number: of the first window among the level's, from 0.
        until: the song's position at which the last window may pause.
        kind: what windows of one batch have in common beside their shape.
        is_whole: whether a batch cannot be divided.
    """
    batches = []
    for (own, *_), same in groupby(windows, key=lambda window: (kind(window), window.prompt_length, window.length)):
        group = list(same)
        for part in _rounds(group, songs, threads, follows) if parallel else [[window] for window in group]:
            batch = Batch(part, slice(0, songs), number, own, until if part[-1] is windows[-1] else None)
            number += len(part)
            # Songs of a sequential level are shared out among threads, though not one by one.
            most = ROWS_AT_ONCE if parallel else max(min(-(-songs // max(threads, 1)), ROWS_AT_ONCE), 4)
            batches += [batch] if not threads or is_whole(batch) else batch.parts(most)
    return batches


def _rounds(windows: list[Window], songs: int, threads: int, follows: bool) -> list[list[Window]]:
    """Parallel windows in the batches in which they are sampled: all at once by one thread; by several a few, and where
    the level above goes on, the first ones as soon as they can be.
    """
    if not threads:
        return [windows]
    most = max(ROWS_AT_ONCE // songs, 1)
    if not follows:
        number = -(-len(windows) // most)
        return even_parts(windows, -(-len(windows) // (-(-number // threads) * threads)))
    rounds, done = [], 0
    while done < len(windows):
        size = min(most, max(done, 1))
        rounds.append(windows[done : done + size])
        done += size
    return rounds
