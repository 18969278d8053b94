"""The sampling of songs: windows that are ready, in batches, until a plan is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any

import torch
from torch import Tensor

from fast_jukebox.generation.metadata import window_metadata, with_window_lyrics
from fast_jukebox.generation.plan import SongPlan
from fast_jukebox.generation.request import SongModel
from fast_jukebox.generation.windows import Layout, Window, sampled_codes, seam_in
from fast_jukebox.sampling.drawing import uniform_noise
from fast_jukebox.sampling.engine import WindowSampling
from fast_jukebox.sampling.machine import device_of, even_parts, is_out_of_memory, rows, rows_that_fit
from fast_jukebox.sampling.progress import GenerationCancelled, LevelWork, ProgressCallback, ProgressClock
from fast_jukebox.sampling.weights import release_decoders


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

    def ahead(self, count: int) -> list[Window]:
        """The next `count` windows that are not done, or those that are left."""
        return list(islice(self._windows(), count))

    def ready(self, upper: LevelCodes | None, ratio: int, limit: int | None) -> list[Window]:
        """Windows that can be sampled now, at most `limit`: those over codes of the level above that are final; of a
        sequential level one, as the next needs its codes.
        """
        if not self.parallel:
            limit = 1
        known = None if upper is None else upper.final * ratio
        ready: list[Window] = []
        for window in self._windows():
            if len(ready) == limit or (known is not None and window.end > known):
                break
            ready.append(window)
        return ready

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


Batch = tuple[list[Window], slice]
"""Windows of one level and shape, and the songs of which they are sampled at once."""


class SongSampler:
    """Samples what a plan says, window by window; which of the ready windows is sampled next is the caller's choice
    and does not change a code.

    Args:
        model: has `priors`, one a level, bottom first, and `vqvae`.
        plan: what to sample.
        engine: see [`open_decoder`].
        progress: see [`ProgressCallback`].

    Attributes:
        levels: what is known of each level, bottom first; `None` for levels below `plan.stop_level`.
        clock: counts what is sampled, or `None`.
        engines: names of the engines that have sampled windows of each level.
    """

    def __init__(
        self, model: SongModel, plan: SongPlan, engine: str = "auto", progress: ProgressCallback | None = None
    ) -> None:
        self.plan, self.engine = plan, engine
        self.priors: Sequence[Any] = model.priors
        self.hop_lengths: Sequence[int] = model.vqvae.config.hop_lengths
        priors = self.priors
        self.levels: list[LevelCodes | None] = [
            None
            if level < plan.stop_level
            else LevelCodes(plan.num_samples, plan.given[level], plan.layouts[level], device_of(prior))
            for level, prior in enumerate(priors)
        ]
        self.engines: list[set[str]] = [set() for _ in priors]
        self.labels = [
            rows(own, plan.num_samples, device_of(prior)) for own, prior in zip(plan.metadata, priors, strict=True)
        ]
        # Rows that a level can sample at once at most, as far as it is known.
        self._most = {} if plan.max_batch_size is None else dict.fromkeys(range(len(priors)), plan.max_batch_size)
        self.clock = None if progress is None else ProgressClock(progress, self._work())

    def ready(self, level: int, limit: int | None = None) -> list[Window]:
        """Windows of a level that can be sampled now, at most `limit`."""
        upper = self.levels[level + 1] if level + 1 < len(self.levels) else None
        return self[level].ready(upper, self.plan.ratios[level], limit)

    def __getitem__(self, level: int) -> LevelCodes:
        own = self.levels[level]
        if own is None:
            raise ValueError(f"`level` must be from {self.plan.stop_level} up, got {level}")
        return own

    def sample(self, level: int, windows: Sequence[Window]) -> None:
        """Sample windows that are ready, in as few batches as memory and `max_batch_size` allow.

        Where memory ends, the batch is halved and sampled again; what is done stays done.

        Raises:
            GenerationCancelled: the progress callback said so; carries the codes that are final.
        """
        try:
            for _, group in groupby(windows, key=lambda window: (window.prompt_length, window.length)):
                self._sample_same_shape(level, list(group))
        except GenerationCancelled as cancelled:
            cancelled.codes, cancelled.seed = self.final_codes(), self.plan.seed
            raise

    def final_codes(self) -> list[Tensor | None]:
        """Codes of each level up to where they are final; `None` for levels that are not made."""
        return [None if own is None else own.read(own.offset, own.final).clone() for own in self.levels]

    def sample_all(self) -> None:
        """Sample every window of a song that ends, level by level from the top down.

        Raises:
            GenerationCancelled: as `sample` does.
        """
        for level in reversed(range(self.plan.stop_level, self.plan.start_level + 1)):
            while windows := self.ready(level):
                self.sample(level, windows)

    def _sample_same_shape(self, level: int, windows: list[Window]) -> None:
        every, most = slice(0, self.plan.num_samples), self.plan.num_samples * len(windows)
        batches = deque(self._batches(windows, every, self._rows_at_once(level, windows[0].length, most)))
        while batches:
            own, songs = batches[0]
            tried = len(own) * (songs.stop - songs.start)
            try:
                codes = self._sample_batch(level, own, songs)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                freed = self._release()
                if tried == 1 and not freed:
                    raise
                codes = None
            if codes is None:  # outside the handler, whose error keeps alive what filled the memory
                release_decoders()  # recorded steps hold memory too
                if freed:
                    continue
                self._most[level] = tried // 2
                left = list(batches)
                batches = deque(part for one in left for part in self._batches(*one, tried // 2))
                continue
            batches.popleft()
            for index, window in enumerate(own):
                self[level].place(window, codes[:, index], songs)
            if self.clock is not None:
                self.clock.finish(level, self[level].done[songs.start])

    def _release(self) -> bool:
        """Release what is held beside the batch at hand, so that it can be sampled again; returns whether there was
        anything.
        """
        return False

    def _rows_at_once(self, level: int, length: int, most: int) -> int:
        most = min(most, self._most.get(level, most))
        return rows_that_fit(self.priors[level], length, most)

    def _work(self) -> list[LevelWork]:
        """The work at each level, for the clock: a code costs what a step of a row does, of as many layers."""
        songs, work = self.plan.num_samples, []
        # Beside its rows a step costs as much as so many: on a CPU, as measured with the embedded model, about one; on
        # a GPU, reading the weights, the ratio of its arithmetic to its bandwidth.
        beside = 1 if device_of(self.priors[-1]).type == "cpu" else 160
        for layout, prior in zip(self.plan.layouts, self.priors, strict=True):
            if layout is None or layout.length is None:
                work.append(LevelWork(0, 0) if layout is None else LevelWork(None, None))
                continue
            windows = list(layout.windows())
            at_once = songs * (max(len(windows), 1) if layout.parallel else 1)
            at_once = min(at_once, self.plan.max_batch_size or at_once)
            conditioning = 0 if prior.config.upsampling_strides is None else 0.4  # of a step, as measured
            cost = getattr(prior.config, "num_hidden_layers", 1) * (1 + beside / at_once + conditioning)
            work.append(LevelWork(songs * sampled_codes(windows), len(windows), cost))
        return work

    def _after_code(self, level: int, windows: list[Window], songs: slice) -> Callable[[int], None] | None:
        """Called with how many codes of each row of a batch are sampled."""
        if self.clock is None:
            return None
        clock, window, rows_at_once = self.clock, self[level].done[songs.start] + len(windows), len(windows)
        rows_at_once *= songs.stop - songs.start
        return lambda codes: clock.note(level, window, codes * rows_at_once)

    @staticmethod
    def _batches(windows: list[Window], songs: slice, most: int) -> list[Batch]:
        """Batches of at most `most` rows, such that a song's windows follow one another."""
        numbers = list(range(songs.start, songs.stop))
        if len(numbers) <= most:
            return [(part, songs) for part in even_parts(windows, most // len(numbers))]
        parts = even_parts(numbers, most)
        return [([window], slice(part[0], part[-1] + 1)) for window in windows for part in parts]

    def _sample_batch(self, level: int, windows: list[Window], songs: slice) -> Tensor:
        """Codes int64 (songs, windows, length) of windows of the same shape, prompts included."""
        codes = self._begin_batch(level, windows, songs).sample()
        return codes.unflatten(0, (songs.stop - songs.start, len(windows)))

    def _begin_batch(self, level: int, windows: list[Window], songs: slice) -> WindowSampling:
        """The sampling of windows of the same shape, a song's next to each other."""
        plan, prior, own = self.plan, self.priors[level], self[level]
        device, first = own.codes.device, windows[0]

        def gathered(parts: list[Tensor]) -> Tensor:
            return torch.stack(parts, dim=1).flatten(0, 1).to(device)  # a song's windows next to each other

        prompt = gathered([own.read(window.start, window.new_start)[songs] for window in windows])
        upper = None
        if level + 1 < len(self.levels):
            above, ratio = self[level + 1], plan.ratios[level]
            upper = gathered([above.read(window.start // ratio, window.end // ratio)[songs] for window in windows])
        labels = self.labels[level]
        if labels is not None:
            n_ctx, hop = prior.config.n_ctx, self.hop_lengths[level]
            labelled = [window_metadata(labels[songs], window, n_ctx, hop, plan.samples) for window in windows]
            labelled = [with_window_lyrics(each, prior.config) for each in labelled]
            labels = gathered([each for each in labelled if each is not None])
        begin, end = windows[0].new_start, windows[-1].end
        noise = uniform_noise(plan.seeds[songs], plan.songs[songs], level, begin, end - begin, device)
        noise = gathered([noise[:, window.new_start - begin : window.end - begin] for window in windows])
        after_code = self._after_code(level, windows, songs)
        sampling = WindowSampling(
            prior, first.length, prompt, upper, labels, plan.settings[level], noise, self.engine, after_code
        )
        self.engines[level].add(sampling.engine)
        return sampling
