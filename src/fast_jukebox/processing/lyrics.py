"""Which part of a song's lyrics a window is told."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def window_lyrics(labels: Tensor, label_length: int, lyric_length: int) -> tuple[Tensor, Tensor]:
    """Label vectors with a song's whole lyrics to label vectors with a window's part of them, as published.

    A window is told `lyric_length` characters around the one that stands where its middle stands in the song, as if
    the lyrics were sung evenly from beginning to end; at the lyrics' beginning and end the first and last ones. Of
    shorter lyrics it is told all, after as many ids 0 as are missing.

    Args:
        labels: int64 (N, label_length + any number), rows of total length, offset and window length in audio samples,
            artist, genres, and the song's characters, which -1 fills up at the end.
        label_length: columns before the characters.
        lyric_length: characters of a window.

    Returns:
        int64 (N, label_length + lyric_length), and int64 (N,): which of the song's characters stands first in its
        window; negative where 0 comes before.
    """
    facts, text = labels.split([label_length, labels.shape[1] - label_length], dim=1)
    counts = (text >= 0).sum(dim=1)
    total, offset, length = facts[:, :3].unbind(dim=1)
    # In whole numbers, which is what rounding down the exact place gives.
    middle = counts * (2 * offset + length) // (2 * total).clamp(min=1)
    starts = torch.minimum((middle - lyric_length // 2).clamp(min=0), counts - lyric_length)
    places = starts[:, None] + torch.arange(lyric_length, device=labels.device)
    part = F.pad(text, (0, 1)).gather(1, places.clamp(min=0)).masked_fill(places < 0, 0)
    return torch.cat([facts, part], dim=1), starts


def join_texts(texts: list[list[int]]) -> Tensor:
    """Characters of several songs as one tensor int64 (N, longest), -1 after the shorter ones."""
    longest = max(map(len, texts), default=0)
    rows = [text + [-1] * (longest - len(text)) for text in texts]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(texts), longest)
