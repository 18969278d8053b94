"""Logits to codes: top-k and top-p filtering, and the draw.

One uniform number a code is enough: the code is found by inverting the cumulative distribution.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fast_jukebox.sampling.checks import SamplingSettings


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
