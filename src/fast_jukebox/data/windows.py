"""Windows of songs for training: number i is a pure function of (seed, epoch, i)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from fast_jukebox.audio.io import load_audio

if TYPE_CHECKING:
    from datasets import Dataset


class WindowSampler:
    """Windows of a fixed length over songs of various lengths, at random or at fixed offsets.

    An epoch has as many windows as fit side by side into the songs. At random offsets, window i lies anywhere in the
    song in which the i-th of those lies, by (seed, epoch, i) alone, so that training can be resumed.

    Args:
        lengths: length of each song, in any unit.
        window: length of a window in that unit, at least 1. Songs shorter than it are left out.
        multiple: every offset is a multiple of this.
        seed: of the random offsets, or None for fixed offsets, side by side from each song's start.
        starts: first offset of each song, multiples of `multiple`; its length counts from there. 0 by default.

    Raises:
        ValueError: if no song is as long as a window.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        window: int,
        multiple: int = 1,
        seed: int | None = None,
        starts: Sequence[int] | None = None,
    ) -> None:
        if window < 1 or multiple < 1:
            raise ValueError(f"`window` and `multiple` must be at least 1, got {window} and {multiple}")
        counts = np.array([length // window for length in lengths], dtype=np.int64)
        if not counts.sum():
            longest = max(lengths, default=0)
            raise ValueError(
                f"no song is as long as a window of {window}; the longest of {len(lengths)} has {longest}. "
                "Use longer songs or a shorter window"
            )
        self.lengths, self.window, self.multiple, self.seed = list(lengths), window, multiple, seed
        self.starts = [0] * len(lengths) if starts is None else list(starts)
        # In shared memory, as data loading processes outlive an epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._ends = np.cumsum(counts)

    @property
    def epoch(self) -> int:
        """The epoch of the windows, the same in all processes that the sampler was sent to."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> tuple[int, int]:
        """(song, offset) of window `index`."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        song = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[song - 1]) if song else 0
        if self.seed is None:
            offset = (index - first) * self.window
            return song, self.starts[song] + offset - offset % self.multiple
        places = (self.lengths[song] - self.window) // self.multiple + 1
        draw = np.random.default_rng((self.seed, self.epoch, index)).integers(places)
        return song, self.starts[song] + int(draw) * self.multiple


def time_cut(length: int, window: int, multiple: int, test_fraction: float) -> int:
    """The beginning of the held-out end of a song, which is a fraction of it and at least one window.

    Args:
        window: length of a window, in the same unit.
        multiple: the end begins at a multiple of this.

    Returns:
        The song's length, so that nothing is held out, where less than a window would be left before the end.

    >>> [time_cut(length, 24, 2, 0.1) for length in (1000, 101, 47)]
    [900, 76, 47]
    """
    cut = length - max(round(test_fraction * length), window)
    cut -= cut % multiple
    return cut if cut >= window else length


class SongWindows(TorchDataset[dict[str, Tensor]]):
    """Base of the datasets of windows.

    Args:
        max_windows: at most so many windows, spread evenly over the songs.
    """

    def __init__(self, sampler: WindowSampler, max_windows: int | None = None) -> None:
        self.sampler = sampler
        self._length = len(sampler) if max_windows is None else min(len(sampler), max_windows)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer's data loader: other random offsets in every epoch."""
        self.sampler.epoch = epoch

    def __len__(self) -> int:
        return self._length

    def window_number(self, index: int) -> int:
        """The sampler's number of window `index`."""
        return index * len(self.sampler) // self._length


class SoundWindows(SongWindows):
    """Windows of sound of a dataset, read from its files on access.

    Items are `{"audio": float32 (window,)}`.

    Args:
        songs: rows with `audio` (`path` or `bytes`, undecoded) and `duration` in seconds, as
            [`~fast_jukebox.data.songs.load_songs`] makes them.
        sampling_rate: of the windows; songs of another rate are resampled.
    """

    def __init__(
        self, songs: Dataset, window: int, sampling_rate: int, seed: int | None = None, max_windows: int | None = None
    ) -> None:
        self.songs, self.window, self.sampling_rate = songs, window, sampling_rate
        # One sample less than the file states, for what resampling may round away.
        lengths = [max(int(duration * sampling_rate) - 1, 0) for duration in songs["duration"]]
        super().__init__(WindowSampler(lengths, window, seed=seed), max_windows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        song, start = self.sampler[self.window_number(index)]
        rate = self.sampling_rate
        audio = load_audio(self.songs[song]["audio"], rate, offset=start / rate, duration=self.window / rate)
        # Resampling and the rounding of seconds may be a sample off.
        audio = torch.nn.functional.pad(audio[: self.window], (0, max(self.window - len(audio), 0)))
        return {"audio": audio}


def stack_items(items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack windows into a batch: the collator of every trainer.

    >>> {name: tuple(batch.shape) for name, batch in stack_items([{"codes": torch.zeros(8)}] * 3).items()}
    {'codes': (3, 8)}
    """
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}
