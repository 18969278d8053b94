"""Songs that are heard while they are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from fast_jukebox.generation import decoding
from fast_jukebox.generation.decoding import chunk_spans, decode_chunk, decoder_reach
from fast_jukebox.generation.levels import Batch
from fast_jukebox.generation.plan import SongPlan
from fast_jukebox.generation.request import SongModel
from fast_jukebox.generation.sampler import SongSampler
from fast_jukebox.generation.windows import Window
from fast_jukebox.sampling.engine import WindowSampling
from fast_jukebox.sampling.machine import is_offloaded
from fast_jukebox.sampling.progress import ProgressCallback

if TYPE_CHECKING:  # it would import the models, which import this module
    from transformers import PreTrainedModel


class StreamSampler(SongSampler):
    """Samples as little as it takes for the next codes of a level; see [`SongSampler`].

    A window that no window before it runs into, as all sequential ones and the first parallel one, pauses when it has
    gone as far as is asked: sound can be heard long before the window is done.
    """

    def __init__(
        self, model: SongModel, plan: SongPlan, engine: str = "auto", progress: ProgressCallback | None = None
    ) -> None:
        super().__init__(model, plan, engine, progress)
        self._begun: dict[int, WindowSampling] = {}
        self._whole: set[int] = set()  # levels that have no memory for a window of all songs

    def advance(self, level: int, position: int) -> None:
        """Sample until the codes of a level are final up to a position: of a window that can pause as little as it
        takes, and of parallel ones whatever can be sampled over the codes above, as those cost little beside each
        other.

        Raises:
            GenerationCancelled: the progress callback said so.
        """
        while self[level].final < position:  # again where memory had no room for a window that pauses
            self.sample(*self._wanted(level, position))

    def close(self) -> None:
        """Release the windows that pause; their decoders serve the next song."""
        while self._begun:
            self._begun.popitem()[1].leave()

    def _wanted(self, level: int, position: int) -> tuple[dict[int, list[Window]], dict[int, int]]:
        """The windows of each level that a position of a level needs, and where the last ones of some may pause."""
        ends: dict[int, int] = {}
        until: dict[int, int] = {}
        while level < len(self.levels) and (windows := self[level].until(position)):
            if is_offloaded(self.priors[level]):
                # What it was begun with, before its prior was offloaded, may have left the device.
                self._begun.pop(level, None)
            ends[level] = position
            if self._can_pause(level, windows[-1], position):
                until[level] = position
            if level in self._begun and len(windows) == 1:
                break  # it has what it needs
            position = -(-windows[-1].end // self.plan.ratios[level])
            level += 1
        wanted: dict[int, list[Window]] = {}
        for own in sorted(ends, reverse=True):
            known = None
            if own + 1 < len(self.levels) and own not in until:
                above = wanted.get(own + 1)
                final = until.get(own + 1, above[-1].final) if above else self[own + 1].final
                known = final * self.plan.ratios[own]
            wanted[own] = self[own].until(ends[own], known)
        return wanted, until

    def _can_pause(self, level: int, window: Window, position: int) -> bool:
        songs = self.plan.num_samples
        return position < window.final and (
            self._kind(window)
            or (
                level not in self._whole
                and not is_offloaded(self.priors[level])
                and not window.seam_end
                and self._rows_at_once(level, window.length, songs) == songs
            )
        )

    def _kind(self, window: Window) -> bool:
        """Whether a window is begun."""
        return window.level in self._begun and window == self[window.level].ahead(1)[0]

    def _is_whole(self, batch: Batch) -> bool:
        if batch.level in self._whole:
            batch.until = None
        return super()._is_whole(batch) or (bool(batch.kind) and batch.level in self._begun)

    def _work(self, batch: Batch) -> Callable[[], Tensor]:
        if not self._is_whole(batch):
            return super()._work(batch)
        (window,), begun = batch.windows, self._begun.pop(batch.level, None)  # gone if anything fails
        begin = self._begin(batch) if begun is None else lambda: begun
        known = None if batch.until is None else batch.until - window.start

        def work() -> Tensor:
            sampling = begin()
            codes = sampling.sample(known)
            if codes.shape[1] < window.length:
                self._begun[batch.level] = sampling
            return codes.unsqueeze(1)

        return work

    def _place(self, batch: Batch) -> None:
        (*_, window) = batch.windows
        if batch.codes is not None and batch.codes.shape[2] < window.length:
            self[batch.level].place_part(window, batch.codes[:, 0])
        else:
            super()._place(batch)

    def _release(self, batch: Batch) -> bool:
        """Release the windows that pause; they are sampled from their start when more is asked of their levels."""
        paused = {*self._begun, *([batch.level] if batch.until is not None or batch.kind else [])} - self._whole
        self._whole |= paused
        self._begun.clear()
        return bool(paused)


class SongStream:
    """Audio of a plan, chunk by chunk, in memory that does not grow.

    Each round makes as much again as has been heard, up to `round_seconds`: so the first sound comes as soon as the
    windows allow, and later rounds sample many windows at once. How much a round makes changes no sample.

    Args:
        sampler: nothing of its plan is sampled yet.
        vqvae: has `config`, `decode` and `levels`.
        round_seconds: audio that a round makes at most.
    """

    def __init__(self, sampler: StreamSampler, vqvae: PreTrainedModel, round_seconds: float) -> None:
        self.sampler, self.vqvae, self.plan = sampler, vqvae, sampler.plan
        self.level = self.plan.stop_level
        self.hop = vqvae.hop_lengths[self.level]
        self.reach = decoder_reach(vqvae, self.level)
        self.length = self.plan.lengths[self.level]
        self._most = max(round(round_seconds * vqvae.config.sampling_rate), decoding.FIRST_SAMPLES)
        self._spans = chunk_spans(self.hop, self.length)
        self._span = next(self._spans, None)

    def next_chunk(self) -> Tensor | None:
        """Audio float32 (N, samples) of the next chunk, made now if it is not there yet; `None` after the last. None
        of its samples is beyond the song's end, which may leave none.
        """
        if self._span is None:
            return None
        own, (start, stop), clock = self.sampler[self.level], self._span, self.sampler.clock
        if clock is not None:
            clock.resume()
        if own.final < self._within(stop + self.reach):
            round_samples = min(max(start * self.hop, decoding.FIRST_SAMPLES), self._most)
            ahead = max(stop, start + round_samples // self.hop) + self.reach
            self.sampler.advance(self.level, self._within(ahead))
        first, last = max(start - self.reach, 0), self._within(stop + self.reach)
        audio = decode_chunk(self.vqvae, own.read(first, last), self.level, first, start, stop)
        self._span = next(self._spans, None)
        self._forget()
        if clock is not None:
            clock.pause()  # the listener's time is none of the work's
        if self.plan.recording is not None:
            audio = self.plan.recording.join(audio, start * self.hop)
        return audio if self.plan.samples is None else audio[:, : max(self.plan.samples - start * self.hop, 0)]

    def close(self) -> None:
        """Nothing more will be asked for."""
        self.sampler.close()

    def _within(self, position: int) -> int:
        return position if self.length is None else min(position, self.length)

    def _forget(self) -> None:
        """Release codes that neither a window to come nor the decoder will ask for."""
        below = self._span[0] - self.reach if self._span is not None else None
        for level in range(self.level, len(self.sampler.levels)):
            own = self.sampler[level]
            ahead = own.ahead(1)
            starts = ([below] if below is not None else []) + [window.start for window in ahead]
            if starts:
                own.forget(min(starts))
            below = ahead[0].start // self.plan.ratios[level] if ahead else None
