"""Batches of windows that are sampled at once. Integers alone; loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from fast_jukebox.generation.windows import Window, even_parts

if TYPE_CHECKING:
    from torch import Tensor

ROWS_AT_ONCE = 8
"""Rows that one of several threads samples at once at most. From 6 on a row costs no less in a larger batch, as
measured with the embedded model, and the fewer they are, the sooner a level can follow the one above."""


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
