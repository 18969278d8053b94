"""The sampling of takes: a song sampler that knows what is done, tells each window what holds where it lies, and saves
every batch of windows before it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from fast_jukebox.generation.plan import SongPlan
from fast_jukebox.generation.request import SongModel
from fast_jukebox.generation.sampler import SongSampler
from fast_jukebox.generation.windows import Window
from fast_jukebox.sampling.progress import LevelWork, ProgressCallback
from fast_jukebox.sessions.takes import window_key

Known = dict[tuple[int, int, int], Tensor]
"""Of each window that is done, by [`window_key`], the new codes of every song, (N, new)."""

Save = Callable[[int, list[Window], slice, Tensor], None]
"""Called with a level, windows, the songs of which they were sampled and their codes (songs, windows, length)."""


class SessionSampler(SongSampler):
    """Samples the windows of a plan that are not done yet; see [`SongSampler`].

    Args:
        model: has `priors`, one a level, bottom first, and `vqvae`.
        plan: what to sample.
        engine: see [`make_step`].
        progress: see [`ProgressCallback`].
        known: what is done, of each level.
        stretches: from which top code on which label vectors hold, those of all levels; the first from 0.
        save: see [`Save`]; what it raises ends the sampling.
    """

    def __init__(
        self,
        model: SongModel,
        plan: SongPlan,
        engine: str,
        progress: ProgressCallback | None,
        known: Sequence[Known],
        stretches: Sequence[tuple[int, list[Tensor | None]]],
        save: Save,
    ) -> None:
        self._known, self._stretches, self._save = known, stretches, save
        super().__init__(model, plan, engine, progress)

    def _sample_alike(self, level: int, windows: list[Window]) -> None:
        def kind(window: Window) -> tuple[bool, int]:
            return window_key(window) in self._known[level], self._stretch(level, window)

        for (done, stretch), alike in groupby(windows, key=kind):
            if done:
                for window in alike:
                    self._place_known(level, window)
            else:
                self.labels[level] = self._stretches[stretch][1][level]
                super()._sample_alike(level, list(alike))

    def _place_known(self, level: int, window: Window) -> None:
        own = self[level]
        new = self._known[level][window_key(window)].to(own.codes)
        own.place(window, torch.cat([own.read(window.start, window.new_start), new], dim=1), slice(0, len(own.done)))

    def _stretch(self, level: int, window: Window) -> int:
        """Which stretch a window is told of: that of its middle; at the top, whose past is never sampled, the last."""
        last = len(self._stretches) - 1
        if level == len(self.priors) - 1:
            return last
        middle = (window.start + window.end) // 2 * self.hop_lengths[level] // self.hop_lengths[-1]
        return max(index for index in range(last + 1) if self._stretches[index][0] <= middle or index == 0)

    def _sample_batch(self, level: int, windows: list[Window], songs: slice) -> Tensor:
        codes = super()._sample_batch(level, windows, songs)
        self._save(level, windows, songs, codes)
        return codes

    def _work(self) -> list[LevelWork]:
        """Without what is done, so that bars and times are of what is left."""
        work = []
        for level, whole in enumerate(super()._work()):
            done = [window for window in self.plan.windows[level] if window_key(window) in self._known[level]]
            new, known = (
                self.plan.num_samples * sum(getattr(window, name) for window in done)
                for name in ("new_length", "prompt_length")
            )
            work.append(
                replace(
                    whole,
                    codes=None if whole.codes is None else whole.codes - new,
                    known=whole.known - known,
                    conditioned=max(whole.conditioned - new - known, 0),
                )
            )
        return work
