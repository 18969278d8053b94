"""Draw of codes: counter-based noise, top-k and top-p filtering.

Noise is a pure function of (seed, song, level, position in the song). Up to the rounding of logits a result therefore
depends neither on the batch that a song is sampled in, nor on the order of windows, nor on an interruption, nor on the
device. One uniform number a code is enough: the code is found by inverting the cumulative distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fast_jukebox.sampling.checks import SamplingSettings, check_seed


def draw_codes(logits: Tensor, uniform: Tensor, settings: SamplingSettings) -> Tensor:
    """One code from each row of logits, without a word to the host.

    Args:
        logits: (N, K) of any floating type; worked on in float32.
        uniform: float32 (N,) in [0, 1); not read where nothing is drawn.
        settings: see [`SamplingSettings`].

    Returns:
        int64 (N,) in [0, K). A code of probability zero is never drawn.
    """
    logits = logits.float()
    if not settings.do_sample:
        return logits.argmax(dim=-1)
    logits = filter_top_k_top_p(logits / settings.temperature, settings.top_k, settings.top_p)
    probabilities = logits.softmax(dim=-1)
    cumulative = probabilities.cumsum(dim=-1).masked_fill(probabilities <= 0, 0.0)  # (N, K)
    # Of the codes that can be drawn the largest sum is the total, whatever the cumulative sum's rounding: u < 1 keeps
    # the threshold below it, so a code is always found, and a parallel sum that dips by a rounding error does no harm.
    threshold = uniform.unsqueeze(-1) * cumulative.amax(dim=-1, keepdim=True)
    return (cumulative > threshold).to(torch.int32).argmax(dim=-1)  # the first of them


def filter_top_k_top_p(logits: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """`logits` (N, K) with minus infinity for the codes that [`SamplingSettings`] leaves out; `top_k` goes first."""
    if 0 < top_k < logits.shape[-1]:
        last = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < last, -math.inf)
    if top_p < 1.0:
        ordered, order = logits.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        left_out = (
            ordered.cumsum(dim=-1) - ordered >= top_p
        )  # by the probability of all more probable codes; never the first
        logits = logits.masked_fill(torch.empty_like(left_out).scatter(-1, order, left_out), -math.inf)
    return logits


_MASK = 0xFFFFFFFF
# Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
_ROUNDS = 10
_LOW, _HIGH = (0x1F53, 0x8D57), (0xD251, 0xCD9E)  # halves of the multipliers 0xD2511F53 and 0xCD9E8D57
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


def uniform_noise(
    seeds: int | Sequence[int],
    songs: Sequence[int],
    level: int,
    start: int,
    length: int,
    device: torch.device | str | None = None,
) -> Tensor:
    """One uniform number for each code of some songs' segment of a level.

    Philox4x32-10 keyed by the seed and counting (position, song, level), in 64-bit integers that never leave 48 bits,
    so every device gives the same numbers. No generator is read or advanced.

    Args:
        seeds: of all songs or of each, integers in [0, 2**63).
        songs: which song of its seed each row is, integers in [0, 2**32).
        level: 0 is the bottom.
        start: the song's position, in codes of the level, of the first number.
        length: how many numbers a song.
        device: where to compute.

    Returns:
        float32 (number of songs, `length`) in [0, 1), multiples of 2**-24.
    """
    seeds = [seeds] * len(songs) if isinstance(seeds, int) else list(seeds)
    if len(seeds) != len(songs):
        raise ValueError(f"`seeds` must be one or one for each of the {len(songs)} songs, got {len(seeds)}")

    def column(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device).reshape(-1, 1)

    positions = torch.arange(start, start + length, dtype=torch.int64, device=device).expand(len(songs), length)
    counter = (positions & _MASK, column([song & _MASK for song in songs]), level, positions >> 32)
    key = (column([check_seed(seed) & _MASK for seed in seeds]), column([seed >> 32 for seed in seeds]))
    return (philox(counter, key)[0] >> 8).to(torch.float32) * 2.0**-24


def philox(
    counter: tuple[Tensor | int, Tensor | int, Tensor | int, Tensor | int], key: tuple[Tensor | int, Tensor | int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four hashed words of a counter of four and a key of two, all 32-bit values held in int64.

    Args:
        counter: integers or int64 tensors that broadcast together, in [0, 2**32).
        key: the same.

    Returns:
        Four int64 tensors (integers, if all arguments are) in [0, 2**32).
    """
    (first, second, third, fourth), (low_key, high_key) = counter, key
    for _ in range(_ROUNDS):
        # 32 x 32 bit products by halves of the multipliers, so that nothing exceeds 2**49.
        first_low, first_high = first * _LOW[0], first * _HIGH[0]
        first_high = first_high + (first_low >> 16)
        third_low, third_high = third * _LOW[1], third * _HIGH[1]
        third_high = third_high + (third_low >> 16)
        first, second, third, fourth = (
            (third_high >> 16) ^ second ^ low_key,
            ((third_high & 0xFFFF) << 16) | (third_low & 0xFFFF),
            (first_high >> 16) ^ fourth ^ high_key,
            ((first_high & 0xFFFF) << 16) | (first_low & 0xFFFF),
        )
        low_key, high_key = (low_key + _KEY_STEPS[0]) & _MASK, (high_key + _KEY_STEPS[1]) & _MASK
    return first, second, third, fourth  # type: ignore[return-value]
