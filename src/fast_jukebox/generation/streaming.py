"""Songs that are heard while they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from fast_jukebox.generation import decoding
from fast_jukebox.generation.decoding import chunk_spans, decode_chunk, decoder_reach
from fast_jukebox.generation.offload import is_offloaded
from fast_jukebox.generation.plan import SongPlan
from fast_jukebox.generation.request import SongModel
from fast_jukebox.generation.sampler import SongSampler
from fast_jukebox.generation.windows import Window
from fast_jukebox.sampling.engine import WindowSampling
from fast_jukebox.sampling.machine import is_out_of_memory
from fast_jukebox.sampling.progress import ProgressCallback
from fast_jukebox.sampling.weights import release_decoders

if TYPE_CHECKING:  # it would import the models, which import this module
    from transformers import PreTrainedModel


class StreamSampler(SongSampler):
    """Samples as little as it takes for the next codes of a level; see [`SongSampler`].

    A window that no window before it runs into, as all sequential ones and the first parallel one, is begun and rests
    when it has gone as far as is asked: sound can be heard long before the window is done.
    """

    def __init__(
        self, model: SongModel, plan: SongPlan, engine: str = "auto", progress: ProgressCallback | None = None
    ) -> None:
        super().__init__(model, plan, engine, progress)
        self._begun: dict[int, WindowSampling] = {}
        self._whole: set[int] = set()  # levels that have no memory for a window of all songs

    def advance(self, level: int, position: int) -> None:
        """Sample until the codes of a level are final up to a position: of a window that can rest as little as it
        takes, else whatever of its parallel windows is ready then, as those cost little beside each other.

        Raises:
            GenerationCancelled: the progress callback said so.
        """
        own = self[level]
        while own.final < position:
            if is_offloaded(self.priors[level]):
                self._begun.pop(
                    level, None
                )  # of before they are offloaded: what it was begun with may have left the device
            wanted = 1
            while (ahead := own.ahead(wanted))[-1].final < position and len(ahead) == wanted:
                wanted += 1
            first = ahead[0]
            if level in self._begun:
                self._go_on(level, first, min(position, first.final))
            elif position <= first.final and self._can_rest(level, first):
                self._advance_above(level, first)
                self._go_on(level, first, position)
            else:
                self._advance_above(level, ahead[-1] if own.parallel else first)
                self.sample(level, self.ready(level))

    def close(self) -> None:
        """Release the windows that pause; their decoders serve the next song."""
        while self._begun:
            self._begun.popitem()[1].leave()

    def _advance_above(self, level: int, window: Window) -> None:
        """Let the level above be final as far as a window is conditioned on it."""
        if level + 1 < len(self.levels):
            self.advance(level + 1, -(-window.end // self.plan.ratios[level]))

    def _can_rest(self, level: int, window: Window) -> bool:
        songs = self.plan.num_samples
        return (
            level not in self._whole
            and not is_offloaded(self.priors[level])
            and not window.seam_end
            and self._rows_at_once(level, window.length, songs) == songs
        )

    def _go_on(self, level: int, window: Window, position: int) -> None:
        """Sample the next window of a level up to a position; where it ends there, it is done."""
        own, songs = self[level], slice(0, self.plan.num_samples)
        sampling = self._begun.pop(level, None)  # gone if anything fails
        try:
            if sampling is None:
                sampling = self._begin_batch(level, [window], songs)
            codes = sampling.sample(None if position == window.final else position - window.start)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            codes = None
        if codes is None:  # outside the handler, whose error keeps alive what filled the memory
            sampling = None
            self._whole.add(level)
            self._release()
            release_decoders()
        elif sampling is not None and codes.shape[1] < window.length:
            self._begun[level] = sampling
            own.place_part(window, codes)
        else:
            own.place(window, codes, songs)
            if self.clock is not None:
                self.clock.finish(level, own.done[0])

    def _release(self) -> bool:
        """Release the windows that pause; they are sampled from their start when more is asked of their levels."""
        given_up = bool(self._begun)
        self._whole.update(self._begun)
        self._begun.clear()
        return given_up


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
        self.hop = vqvae.config.hop_lengths[self.level]
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
