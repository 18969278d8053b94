"""Change of the sampling rate of a signal or of a stream of blocks, between any two rates, by soxr."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import soxr
import torch
from torch import Tensor

from fast_jukebox.utils.text import shown

MAX_RATE = 768_000
"""Highest sampling rate that is read, written or made."""


def resample_audio(audio: Tensor, source_rate: int, sampling_rate: int) -> Tensor:
    """Change the sampling rate of `audio`, float (samples,), between any two rates from 1 to 768000 Hz.

    Frequencies up to 0.91 of the lower Nyquist frequency are kept, those beyond it are 130 dB down.

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
    """The blocks (samples,) of a stream at another rate. Concatenated, they do not depend on where it was cut.

    Memory is bounded by the largest block. Arguments as for `resample_audio`.
    """
    if source_rate == sampling_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(source_rate, sampling_rate, 1, dtype="float32", quality="VHQ")
    received = sent = 0
    for block in blocks:
        received += len(block)
        made = torch.from_numpy(stream.resample_chunk(block.detach().float().cpu().numpy()))
        sent += len(made)
        if len(made):
            yield made
    # soxr rounds the length to the nearest number; silence behind the end gives what is left of it, rounded up.
    silence = np.zeros(math.ceil(source_rate / sampling_rate) + 1, dtype=np.float32)
    rest = torch.from_numpy(stream.resample_chunk(silence, last=True))
    total = -(-received * sampling_rate // source_rate)
    if total > sent:
        yield rest[: total - sent]


def check_rate(name: str, value: object) -> int:
    """`value`, or a `ValueError` unless it is an integer from 1 to `MAX_RATE`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_RATE:
        raise ValueError(f"`{name}` must be an integer from 1 to {MAX_RATE} samples a second, got {shown(value)}")
    return value
