"""Label vectors: which prior gets which, and what each window is told."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from fast_jukebox.generation.metadata import check_song_lyrics, lyric_length_of, with_window_lyrics
from fast_jukebox.generation.windows import Layout, Window
from fast_jukebox.sampling.checks import check_metadata, device_of, level_name


def level_metadata(metadata: Any, priors: Sequence[Any]) -> list[Tensor | None]:
    """Label vectors of each level, bottom first: the same for all, or a list with an entry a level.

    A prior takes as many columns as it knows; a prior without labels takes none, and one with lyrics takes all, which
    are those of the whole song.

    Raises:
        ValueError: no metadata for a prior that needs it, metadata where none is taken, or of another type, width or
            number of levels.
    """
    entries = metadata if isinstance(metadata, list | tuple) else [metadata] * len(priors)
    if len(entries) != len(priors):
        raise ValueError(f"`metadata` must have one entry for each of {len(priors)} levels, got {len(entries)}")
    shared = not isinstance(metadata, list | tuple)
    widths = [prior.config.metadata_length for prior in priors]
    fewest = [width - lyric_length_of(prior.config) for prior, width in zip(priors, widths, strict=True)]
    labels: list[Tensor | None] = []
    for level, (entry, width, own) in enumerate(zip(entries, widths, fewest, strict=True)):
        name = "metadata" if shared else f"metadata[{level}]"
        if entry is not None:
            if shared:
                check_metadata(name, entry, max(widths), max(fewest) if fewest != widths else None)
            else:
                check_metadata(name, entry, width, own if own < width else None)
            check_song_lyrics(name, entry, priors[level].config)
        if width and entry is None:
            raise ValueError(
                f"`{name}` must be given: the {level_name(level, len(priors))} prior is conditioned on artist, genre "
                "or timing, of which `{}` tells nothing; got None"
            )
        taken = None if not width or entry is None else entry if own < width else entry[:, :width]
        labels.append(taken)
    return labels


def check_labels(
    priors: Sequence[Any],
    labels: Sequence[Tensor | None],
    layouts: Sequence[Layout | None],
    hops: Sequence[int],
    samples: int | None,
) -> None:
    """Let each labelled prior see its label vectors at its first and last window, of which one upper code is enough,
    before any level is sampled.

    Raises:
        ValueError: the prior refuses an artist, a genre or a length; or the song has no end, the prior is told of time,
            and the labels name no total length; or what is made goes on for a window beyond the one that they name.
    """
    for level, (prior, own, layout, hop) in enumerate(zip(priors, labels, layouts, hops, strict=True)):
        if own is None or layout is None:
            continue
        told = prior.config.use_timing or lyric_length_of(prior.config)
        if samples is None and told and bool((own[:, 0] == 0).any()):
            raise ValueError(
                "`metadata` must name a total length (`total_duration` in words) where `duration` is None, as the "
                f"{level_name(level, len(priors))} prior is told of time; got 0"
            )
        device, ratio = device_of(prior), prior.config.upper_ratio
        upper = (
            torch.zeros((own.shape[0], 1), dtype=torch.int64, device=device)
            if prior.config.upsampling_strides
            else None
        )
        windows = list(islice(layout.windows(), 1 if samples is None else None))
        if prior.config.use_timing and samples is not None and windows:
            _check_end(own, windows[-1].start * hop, samples, prior.config)
        for window in [*windows[:1], *windows[1:][-1:]]:
            seen = window_metadata(own.to(device), window, prior.config.n_ctx, hop, samples)
            seen = with_window_lyrics(seen, prior.config)
            prior.condition(own.shape[0], ratio, upper_codes=upper, metadata=seen)


def _check_end(labels: Tensor, last: int, samples: int, config: Any) -> None:
    """Raise a `ValueError` where the last window, so many samples into what is made, begins after the song's end."""
    for total, offset in labels[:, :2].tolist():
        if total and offset + last >= total > offset:
            whole, made, before = (f"{each / config.sampling_rate:g}" for each in (total, samples, offset))
            raise ValueError(
                "`metadata` must name a total length (`total_duration` in words) that holds what is made, got "
                f"{whole} seconds for {made} seconds from {before} on"
            )


def window_metadata(
    labels: Tensor | None, window: Window, n_ctx: int, hop_length: int, samples: int | None
) -> Tensor | None:
    """`labels` (N, width) with the window's offset added to theirs, a context's length, and where the total length is 0
    that of the song, in samples.

    The length is that of a whole context for shorter windows too: the prior spreads it over its `n_ctx` positions. In a
    song without end (`samples` is `None`) windows beyond the labels' total length are told that they end with it.
    """
    if labels is None:
        return None
    labels = labels.clone()
    offset, length = window.start * hop_length, n_ctx * hop_length
    if samples is None:
        labels[:, 1] = torch.minimum((labels[:, 0] - length).clamp(min=0), labels[:, 1] + offset)
    else:
        labels[:, 0] = torch.where(labels[:, 0] == 0, labels[:, 1] + samples, labels[:, 0])
        labels[:, 1] += offset
    labels[:, 2] = length
    return labels
