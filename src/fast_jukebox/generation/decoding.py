"""Codes to audio, in chunks that a listener who does not wait for the end gets too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fast_jukebox.sampling.machine import device_of, share_out, single_threads

if TYPE_CHECKING:  # it would import the models, which import this module
    from transformers import PreTrainedModel

FIRST_SAMPLES = 8192
"""Audio samples of the first chunk, 0.2 s at 44.1 kHz, so that it is heard soon; each chunk is twice as long as the one
before, up to `LAST_SAMPLES`."""
LAST_SAMPLES = 131072
STACK_COPIES, OUTPUT_COPIES, MORE_CHUNKS = 18.0, 4.3, 0.6
"""Memory that decoding a chunk takes on a CPU, in tensors as large as those of its last residual stack and of that
stack's output, with the copies of the convolutions and what the C library keeps of freed ones; and how much of this
each further chunk takes that is decoded at the same time. As measured with the published and the embedded VQ-VAE."""
FADE_SECONDS = 0.03
"""How long a recording's own samples fade into the model's."""


@dataclass(frozen=True)
class KeptRecording:
    """Samples of a recording with which a song begins, in place of those that its codes decode to.

    Args:
        samples: float32 (1 or N, kept), in [-1, 1] at the model's rate.
        fade: number of samples at their end over which the model's take over, linearly.
    """

    samples: Tensor
    fade: int

    @classmethod
    def of(cls, samples: Tensor, sampling_rate: int) -> KeptRecording:
        """A recording that fades into the model's samples within `FADE_SECONDS`."""
        return cls(samples, round(FADE_SECONDS * sampling_rate))

    def join(self, audio: Tensor, start: int = 0) -> Tensor:
        """Decoded audio, float32 (N, T), with the recording's samples where the song begins with them.

        Args:
            audio: the song's samples from `start` on.
            start: the song's position of the first of them.
        """
        kept = self.samples.shape[1]
        first, last = min(start, kept), min(start + audio.shape[1], kept)
        if first == last:
            return audio
        positions = torch.arange(first, last, dtype=torch.float32, device=audio.device)
        weight = ((kept - positions) / max(1, min(self.fade, kept))).clamp(max=1.0)  # (span,)
        span = slice(first - start, last - start)
        joined = audio.clone()
        joined[:, span] = torch.lerp(joined[:, span], self.samples[:, first:last].to(audio), weight)  # exact at 1
        return joined


def chunk_spans(hop_length: int, length: int | None) -> Iterator[tuple[int, int]]:
    """Where the chunks of a song begin and end, in codes of a level: the same whatever the song's length.

    A chunk is decoded with all codes to either side that reach into it. As convolutions may round differently over
    another length, audio is equal bit for bit only if it is decoded in the same chunks.

    Args:
        hop_length: audio samples a code stands for.
        length: codes of the song; `None` for one without end.
    """
    start, samples = 0, FIRST_SAMPLES
    while length is None or start < length:
        stop = start + max(samples // hop_length, 1)
        stop = stop if length is None else min(stop, length)
        yield start, stop
        start, samples = stop, min(2 * samples, LAST_SAMPLES)


def decoder_reach(vqvae: PreTrainedModel, level: int) -> int:
    """Codes to either side that an audio sample may depend on."""
    return int(vqvae.levels[level].decoder_reach)


def decode_chunk(vqvae: PreTrainedModel, codes: Tensor, level: int, first: int, start: int, stop: int) -> Tensor:
    """Audio of the codes from `start` to `stop` of a level, song by song, on a CPU on one thread each: the same numbers
    in any batch and on any number of threads.

    Args:
        vqvae: has `hop_lengths` and `decode`.
        codes: int64 (N, L), the chunk with all codes around it that reach into it.
        level: their level.
        first: the song's position of the first of `codes`.
        start: the song's position, in codes, at which the chunk begins.
        stop: the one at which it ends.

    Returns:
        float32 (N, samples).
    """
    hop = vqvae.hop_lengths[level]
    codes = codes.to(device_of(vqvae))
    whole = codes.shape[1] * hop
    with _threads_of(codes.device):
        songs = [vqvae.decode([song], level, chunk_samples=whole) for song in codes.split(1)]
    return torch.cat([song[:, (start - first) * hop : (stop - first) * hop].float() for song in songs])


def decode_song(vqvae: PreTrainedModel, codes: Tensor, level: int) -> Tensor:
    """Audio float32 (N, L * hop length) of the codes (N, L) of a level, chunk by chunk; a CPU's threads share them."""
    length, reach = codes.shape[1], decoder_reach(vqvae, level)
    spans = list(chunk_spans(vqvae.hop_lengths[level], length))

    def chunk(index: int) -> Tensor:
        first, last = _with_reach(*spans[index], reach, length)
        return decode_chunk(vqvae, codes[:, first:last], level, first, *spans[index])

    with _threads_of(device_of(vqvae)):
        return torch.cat(share_out(chunk, len(spans)), dim=1)


def _with_reach(start: int, stop: int, reach: int, length: int) -> tuple[int, int]:
    """First and last code, exclusive, of a chunk with all that reaches into it."""
    return max(start - reach, 0), min(stop + reach, length)


def decoding_bytes(vqvae: PreTrainedModel, level: int, length: int, threads: int = 1) -> int:
    """Bytes that `decode_song` takes at most on a CPU beside the weights and its result; on a GPU it takes less.

    Args:
        vqvae: may be on the meta device.
        level: that is decoded.
        length: codes of the song at this level.
        threads: that decode chunks at the same time.
    """
    config, reach, hop = vqvae.config, decoder_reach(vqvae, level), vqvae.hop_lengths[level]
    spans = (_with_reach(start, stop, reach, length) for start, stop in chunk_spans(hop, length))
    largest, *others = sorted(((last - first) * hop for first, last in spans), reverse=True)[: max(threads, 1)]
    samples = largest + MORE_CHUNKS * sum(others)
    stack, output = config.width * config.multipliers[level] / config.strides[0], config.embed_dim  # floats a sample
    return int(4 * samples * (STACK_COPIES * stack + OUTPUT_COPIES * output))


def _threads_of(device: torch.device) -> AbstractContextManager[None]:
    return single_threads() if device.type == "cpu" else nullcontext()
