"""The sampling of songs: batches of windows, uppermost level first, until what is wanted is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from fast_jukebox.generation.levels import Batch, LevelCodes, level_batches
from fast_jukebox.generation.metadata import window_metadata, with_window_lyrics
from fast_jukebox.generation.plan import SongPlan
from fast_jukebox.generation.request import SongModel
from fast_jukebox.generation.windows import Window, covered_codes, sampled_codes
from fast_jukebox.sampling.drawing import uniform_noise
from fast_jukebox.sampling.engine import WindowSampling
from fast_jukebox.sampling.machine import (
    Workers,
    device_of,
    granted_threads,
    is_offloaded,
    is_out_of_memory,
    row_bytes,
    rows,
    rows_that_fit,
    single_threads,
)
from fast_jukebox.sampling.progress import GenerationCancelled, LevelWork, ProgressCallback, ProgressClock
from fast_jukebox.sampling.weights import release_decoders


class SongSampler:
    """Samples what a plan says: what is uppermost and ready first.

    Windows are sampled in batches, and a batch is ready when the codes above it are final. Where steps leave the
    interpreter to other threads (see [`PriorSamplingMixin.overlaps`]), each thread samples a batch of its own, so that
    a level is sampled while the one above it goes on. Elsewhere all windows of a level are one batch, so that level
    follows level. Which windows make a batch depends on the plan, the number of threads and memory, and never on how
    quickly anything runs.

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
        self.hop_lengths: Sequence[int] = model.vqvae.hop_lengths
        self._code_seconds = self.hop_lengths[plan.stop_level] / model.vqvae.config.sampling_rate
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
        self._alone = False  # whether memory has room for one batch at a time
        self._workers = Workers[Batch, Tensor](0)
        self.clock = None if progress is None else ProgressClock(progress, self._level_work(), self._music())

    def __getitem__(self, level: int) -> LevelCodes:
        own = self.levels[level]
        if own is None:
            raise ValueError(f"`level` must be from {self.plan.stop_level} up, got {level}")
        return own

    def sample(self, wanted: Mapping[int, Sequence[Window]], until: Mapping[int, int] | None = None) -> None:
        """Sample windows of some levels, in as few batches as threads, memory and `max_batch_size` allow.

        Where memory ends, nothing is sampled beside it any more; where that does not help, the batch is halved. What is
        done stays done.

        Args:
            wanted: of each level the next windows; those of the levels above that they need must be among them.
            until: of some levels the song's position at which their last window may pause.

        Raises:
            GenerationCancelled: the progress callback said so; carries the codes that are final.
        """
        lines, threads = self._lines(wanted, until or {})
        try:
            with single_threads() if threads else nullcontext(), Workers[Batch, Tensor](threads) as self._workers:
                if self.clock is not None:
                    self.clock.aside = threads > 0
                self._work_off(lines, self._workers)
        except GenerationCancelled as cancelled:
            cancelled.codes, cancelled.seed = self.final_codes(), self.plan.seed
            raise

    def final_codes(self) -> list[Tensor | None]:
        """Codes of each level up to where they are final; `None` for levels that are not made."""
        return [None if own is None else own.read(own.offset, own.final).clone() for own in self.levels]

    def sample_all(self) -> None:
        """Sample every window of a song that ends.

        Raises:
            GenerationCancelled: as `sample` does.
        """
        levels = range(self.plan.stop_level, self.plan.start_level + 1)
        self.sample({level: self[level].ahead(None) for level in levels})

    def _lines(
        self, wanted: Mapping[int, Sequence[Window]], until: Mapping[int, int]
    ) -> tuple[dict[int, list[Batch]], int]:
        """The batches of each level in the order of their windows, uppermost level first, and how many threads sample
        them; 0 for the caller's.
        """
        threads = granted_threads()
        if threads == 1 or not all(self._overlaps(self.priors[level]) for level in wanted):
            threads = 0
        lines = {}
        for level in sorted(wanted, reverse=True):
            if wanted[level]:
                own, above = self[level], bool(wanted.get(level + 1))
                lines[level] = level_batches(
                    wanted[level],
                    self.plan.num_samples,
                    own.parallel,
                    threads,
                    above,
                    number=min(own.done),
                    until=until.get(level),
                    kind=self._kind,
                    is_whole=self._is_whole,
                )
        return lines, threads if sum(map(len, lines.values())) > 1 else 0

    def _overlaps(self, prior: Any) -> bool:
        """Whether windows of a prior can be sampled beside those of others."""
        overlaps = getattr(prior, "overlaps", None)
        return overlaps is not None and overlaps(self.engine) and not is_offloaded(prior)

    def _is_whole(self, batch: Batch) -> bool:
        """Whether a batch cannot be divided."""
        return batch.until is not None

    def _counts(self, batch: Batch) -> bool:
        """True for a batch that the progress callback is called for."""
        return True

    def _kind(self, window: Window) -> Any:
        """What windows have in common that are sampled in one batch, beside their shape."""
        return None

    def _work_off(self, lines: dict[int, list[Batch]], workers: Workers[Batch, Tensor]) -> None:
        while True:
            while workers.free and (batch := self._next_batch(lines, workers)) is not None:
                workers.start(batch, self._work(batch))
            if not workers.running:
                return
            done, codes = self._take(workers)
            if codes is None:
                continue  # it is sampled again
            self._made(done, codes)
            done.codes = codes
            line = lines[done.level]
            while line and line[0].codes is not None:
                self._place(line.pop(0))
            if self.clock is not None and codes.shape[2] == done.length and self._counts(done):
                self.clock.finish(done.level, done.number + len(done.windows), done.key)

    def _next_batch(self, lines: dict[int, list[Batch]], workers: Workers[Batch, Tensor]) -> Batch | None:
        """The uppermost batch that can begin now, if there is one."""
        for level, line in lines.items():
            own, upper = self[level], self.levels[level + 1] if level + 1 < len(self.levels) else None
            known = None if upper is None else upper.final * self.plan.ratios[level]
            for index, batch in enumerate(line):
                if batch.codes is not None or batch in workers.running:
                    continue
                if not own.parallel and batch.windows[0] is not line[0].windows[0]:
                    break  # it begins with codes of the one before
                if known is not None and batch.windows[-1].end > known:
                    break
                return self._that_fits(line, index, list(workers.running))
        return None

    def _that_fits(self, line: list[Batch], index: int, beside: list[Batch]) -> Batch | None:
        """A batch that is next in its line, or a part of it, such that it fits into memory and `max_batch_size` beside
        others; `None` where it has to wait for them.
        """
        batch, length = line[index], line[index].length
        if beside:
            most = self.plan.max_batch_size
            if self._alone or (most is not None and sum(each.rows for each in [batch, *beside]) > most):
                return None
            held = sum(each.rows * row_bytes(self.priors[each.level], each.length) for each in beside)
            return batch if rows_that_fit(self.priors[batch.level], length, batch.rows, held) == batch.rows else None
        most = self._rows_at_once(batch.level, length, batch.rows)
        if most < batch.rows and not self._is_whole(batch):
            line[index : index + 1] = batch.parts(most)
        return line[index]

    def _take(self, workers: Workers[Batch, Tensor]) -> tuple[Batch, Tensor | None]:
        """A batch that is sampled, and its codes; `None` where memory ended."""
        batch, result = workers.next(None if self.clock is None else self.clock.report)
        try:
            return batch, result()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            crowded, self._alone = not self._alone and workers.threads > 0, True
            if not crowded and not self._release(batch):
                if batch.rows == 1:
                    raise
                self._most[batch.level] = batch.rows // 2
        # Outside the handler, whose error keeps alive what filled the memory.
        if self.clock is not None:
            self.clock.drop(batch.level, batch.key)
        release_decoders()  # recorded steps hold memory too
        return batch, None

    def _release(self, batch: Batch) -> bool:
        """Release what is held beside a batch that memory did not suffice for, so that it can be sampled again; returns
        whether there was anything.
        """
        return False

    def _work(self, batch: Batch) -> Callable[[], Tensor]:
        """The sampling of a batch: int64 (songs, windows, known), prompts included."""
        begin, shape = self._begin(batch), (batch.songs.stop - batch.songs.start, len(batch.windows))
        return lambda: begin().sample().unflatten(0, shape)

    def _made(self, batch: Batch, codes: Tensor) -> None:
        """Called with a batch and its codes as soon as they are there, which may be before those of earlier windows."""

    def _place(self, batch: Batch) -> None:
        """Take in the codes of the next batch of a level."""
        if batch.codes is not None:
            for index, window in enumerate(batch.windows):
                self[batch.level].place(window, batch.codes[:, index], batch.songs)

    def _rows_at_once(self, level: int, length: int, most: int) -> int:
        most = min(most, self._most.get(level, most))
        return rows_that_fit(self.priors[level], length, most)

    def _left(self, level: int) -> list[Window]:
        """The windows of a level of a song that ends which are to be sampled."""
        return self.plan.windows[level]

    def _level_work(self) -> list[LevelWork]:
        """The work at each level, for the clock: a code costs what a step of a row does, of as many layers."""
        songs, work = self.plan.num_samples, []
        # Beside its rows a step costs as much as so many: on a CPU, as measured with the embedded model, about one; on
        # a GPU, reading the weights, the ratio of its arithmetic to its bandwidth.
        beside = 1 if device_of(self.priors[-1]).type == "cpu" else 160
        for level, (layout, prior) in enumerate(zip(self.plan.layouts, self.priors, strict=True)):
            if layout is None or layout.length is None:
                work.append(LevelWork(0, 0) if layout is None else LevelWork(None, None))
                continue
            windows = len(self.plan.windows[level])
            at_once = songs * (max(windows, 1) if layout.parallel else 1)
            at_once = min(at_once, self.plan.max_batch_size or at_once)
            conditioning = 0 if prior.config.upsampling_strides is None else 0.4  # of a step, as measured
            cost = getattr(prior.config, "num_hidden_layers", 1) * (1 + beside / at_once + conditioning)
            work.append(LevelWork(songs * sampled_codes(self._left(level)), windows, cost))
        return work

    def _music(self) -> float | None:
        """Seconds of music to make, of all songs; `None` for songs without end."""
        plan = self.plan
        if plan.samples is None:
            return None
        return plan.num_samples * covered_codes(self._left(plan.stop_level)) * self._code_seconds

    def _labels(self, batch: Batch) -> Tensor | None:
        """Label vectors (N, width) of all songs that hold for a batch."""
        return self.labels[batch.level]

    def _begin(self, batch: Batch) -> Callable[[], WindowSampling]:
        """What begins the sampling of a batch, its songs' windows next to each other, and may do so on any thread."""
        plan, level, windows, songs = self.plan, batch.level, batch.windows, batch.songs
        prior, own = self.priors[level], self[level]
        device, first = own.codes.device, windows[0]

        def gathered(parts: list[Tensor]) -> Tensor:
            return torch.stack(parts, dim=1).flatten(0, 1).to(device)  # a song's windows next to each other

        prompt = gathered([own.read(window.start, window.new_start)[songs] for window in windows])
        upper = None
        if level + 1 < len(self.levels):
            above, ratio = self[level + 1], plan.ratios[level]
            upper = gathered([above.read(window.start // ratio, window.end // ratio)[songs] for window in windows])
        labels = self._labels(batch)
        if labels is not None:
            n_ctx, hop = prior.config.n_ctx, self.hop_lengths[level]
            labelled = [window_metadata(labels[songs], window, n_ctx, hop, plan.samples) for window in windows]
            labelled = [with_window_lyrics(each, prior.config) for each in labelled]
            labels = gathered([each for each in labelled if each is not None])
        begin, end = windows[0].new_start, windows[-1].end
        noise = uniform_noise(plan.seeds[songs], plan.songs[songs], level, begin, end - begin, device)
        noise = gathered([noise[:, window.new_start - begin : window.end - begin] for window in windows])

        def after_code(codes: int) -> None:
            if self._workers.stopping:
                raise CancelledError
            if self.clock is not None:
                self.clock.note(level, batch.number + len(windows), codes * batch.rows, batch.key)

        def sampling() -> WindowSampling:
            settings = plan.settings[level]
            begun = WindowSampling(prior, first.length, prompt, upper, labels, settings, noise, self.engine, after_code)
            self.engines[level].add(begun.engine)
            return begun

        return sampling
