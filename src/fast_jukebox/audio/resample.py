"""Changing the sampling rate, of a whole signal or of a stream of blocks, between any two rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

MAX_RATE = 768_000
"""Highest sampling rate that is read, written or made."""

# Weights of one input frame to one output frame are kept as a dense matrix up to this many entries.
_MATRIX_ENTRIES = 2**22


def resample_audio(audio: Tensor, source_rate: int, sampling_rate: int) -> Tensor:
    """Change the sampling rate of `audio` (samples,) by windowed-sinc interpolation; any two rates are allowed.

    The cut-off lies at 0.95 of the lower Nyquist frequency; beyond that frequency tones are 90 dB down or more.

    Args:
        audio: float (samples,).
        source_rate: samples a second of `audio`, from 1 to 768000.
        sampling_rate: samples a second of the result, from 1 to 768000.

    Returns:
        float32 (ceil(samples * sampling_rate / source_rate),) on the CPU, or `audio` itself where the rates are equal.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    check_rate("source_rate", source_rate)
    check_rate("sampling_rate", sampling_rate)
    if audio.ndim != 1 or not audio.is_floating_point():
        raise ValueError(f"`audio` must be a float tensor (samples,), got {audio.dtype} {tuple(audio.shape)}")
    if source_rate == sampling_rate:
        return audio
    blocks = audio.detach().float().cpu().split(2**18)
    return torch.cat([torch.zeros(0), *resample_blocks(blocks, source_rate, sampling_rate)])


def resample_blocks(blocks: Iterable[Tensor], source_rate: int, sampling_rate: int) -> Iterator[Tensor]:
    """The blocks (samples,) of a stream at another rate. Concatenated, they do not depend on where it was cut (1e-6).

    Memory is bounded by the largest block. Arguments as for `resample_audio`.
    """
    if source_rate == sampling_rate:
        yield from blocks
        return
    divisor = math.gcd(source_rate, sampling_rate)
    sinc = _sinc(source_rate // divisor, sampling_rate // divisor)
    # `buffer` starts at input sample number `start`; `sent` output samples have left, a multiple of `sinc.up`.
    buffer, start, received, sent = torch.zeros(sinc.half), -sinc.half, 0, 0
    for block in blocks:
        buffer = torch.cat([buffer, block])
        received += len(block)
        until = (received - sinc.half) // sinc.down * sinc.up
        if until > sent:
            yield sinc(buffer, start, sent, until)
            sent = until
            keep = sent // sinc.up * sinc.down - sinc.half
            buffer, start = buffer[keep - start :].clone(), keep
    total = -(-received * sinc.up // sinc.down)
    if total > sent:
        yield sinc(torch.cat([buffer, torch.zeros(sinc.down + sinc.half)]), start, sent, total)


class _Sinc:
    """A change of rate by `up / down` (in lowest terms): Kaiser-windowed sincs, 24 zero crossings on either side.

    An output frame of `up` samples is a weighted sum of the `down` input samples it covers and `half` on either side.
    """

    crossings, rolloff, beta = 24, 0.95, 10.0

    def __init__(self, down: int, up: int):
        self.down, self.up = down, up
        self.scale = self.rolloff * min(1.0, up / down)
        self.half = math.ceil(self.crossings / self.scale)
        # (up, 2 * half): the weights of each output sample of a frame, for the input samples around it.
        self.table = torch.cat([self._weights(phases) for phases in torch.arange(up).split(4096)])
        self.first_input = torch.arange(up) * down // up
        self.matrix = None
        if (down + 2 * self.half) * up <= _MATRIX_ENTRIES:
            self.matrix = torch.zeros(up, down + 2 * self.half)
            columns = self.first_input[:, None] + 1 + torch.arange(2 * self.half)
            self.matrix.scatter_(1, columns, self.table)

    def _weights(self, phases: Tensor) -> Tensor:
        fractions = (phases * self.down % self.up).double() / self.up
        distances = torch.arange(1 - self.half, self.half + 1, dtype=torch.float64) - fractions[:, None]
        inside = (1 - (distances * self.scale / self.crossings) ** 2).clamp(min=0)
        window = torch.special.i0(self.beta * inside.sqrt()) / torch.special.i0(torch.tensor(self.beta).double())
        return (self.scale * torch.sinc(distances * self.scale) * window * (inside > 0)).float()

    def __call__(self, buffer: Tensor, start: int, first: int, last: int) -> Tensor:
        """Output samples `first` (a multiple of `up`) to `last` (excluded), from input samples `start` on."""
        if self.matrix is None:
            return self._by_table(buffer, start, first, last)
        frames = -(-(last - first) // self.up)
        begin = first // self.up * self.down - self.half - start
        wide = self.down + 2 * self.half
        needed = begin + (frames - 1) * self.down + wide
        buffer = torch.nn.functional.pad(buffer, (0, max(0, needed - len(buffer))))
        rows = buffer[begin:needed].unfold(0, wide, self.down)
        return (rows @ self.matrix.T).reshape(-1)[: last - first]

    def _by_table(self, buffer: Tensor, start: int, first: int, last: int) -> Tensor:
        windows, pieces = buffer.unfold(0, 2 * self.half, 1), []
        step = max(1, 2**22 // (2 * self.half))
        for begin in range(first, last, step):
            index = torch.arange(begin, min(begin + step, last))
            rows = windows[index * self.down // self.up + 1 - self.half - start]
            pieces.append((rows * self.table[index % self.up]).sum(dim=1))
        return torch.cat(pieces)


@lru_cache(maxsize=4)
def _sinc(down: int, up: int) -> _Sinc:
    return _Sinc(down, up)


def check_rate(name: str, value: Any) -> None:
    """Raise a `ValueError` unless `value` is an integer from 1 to `MAX_RATE`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_RATE:
        raise ValueError(f"`{name}` must be an integer from 1 to {MAX_RATE} samples a second, got {value!r}")
