"""Alignment of lyrics with a song by a prior's attention to them."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fast_jukebox.models.prior.features_prior import window_starts
from fast_jukebox.models.prior.modeling_prior import FastJukeboxPrior
from fast_jukebox.processing import FastJukeboxProcessor
from fast_jukebox.processing.vocabulary import window_lyrics
from fast_jukebox.utils.files import write_file
from fast_jukebox.utils.text import markdown_table, shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel

UNITS = {"character": "(?s:.)", "word": r"\S+", "line": r"[^\n]+"}
"""Units of lyrics, with the regular expression of each."""
_SHOWN = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})
_LITTLE = 1e-6
"""Attention below which one character is as unlikely as another."""


class AlignedText(NamedTuple):
    """A character, word or line of lyrics with its time."""

    text: str
    start: float
    """seconds from the beginning; NaN where it is not sung"""
    end: float
    attention: float
    """the largest that any moment has to any of its characters, in [0, 1]"""


@dataclass(frozen=True)
class LyricsAlignment:
    """Times at which the characters of lyrics are sung.

    Args:
        text: the lyrics, as the prior's vocabulary spells them.
        starts: seconds from the beginning of the codes at which each character begins, never falling; NaN for those
            that are not reached.
        ends: at which it ends, where the next one begins.
        attention: float32 (moments, characters), mean attention of the codes of a moment to each character; 0 to those
            that their window did not receive.
        path: int64 (moments,), the character that each moment sings, never falling.
        moment: seconds that a moment lasts.
    """

    text: str
    starts: list[float]
    ends: list[float]
    attention: Tensor
    path: Tensor
    moment: float

    def rows(self, unit: str = "character") -> list[AlignedText]:
        """Characters, words (between blanks) or lines, each with its time.

        Raises:
            ValueError: another unit.
        """
        if unit not in UNITS:
            raise ValueError(f"`unit` must be one of {', '.join(UNITS)}, got {shown(unit)}")
        peaks = self.attention.amax(dim=0).tolist() if self.text else []
        rows = []
        for first, last in (found.span() for found in re.finditer(UNITS[unit], self.text)):
            sung = [index for index in range(first, last) if not math.isnan(self.starts[index])]
            start, end = (self.starts[sung[0]], self.ends[sung[-1]]) if sung else (math.nan, math.nan)
            rows.append(AlignedText(self.text[first:last], start, end, max(peaks[first:last])))
        return rows

    def to_csv(self, path: str | os.PathLike[str], unit: str = "character") -> Path:
        """Write a table with the columns `text`, `start`, `end` (seconds, empty where not sung) and `attention`."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(AlignedText._fields)
        writer.writerows([row.text, *map(_number, row[1:])] for row in self.rows(unit))
        write_file(path, text.getvalue())
        return Path(path)

    def to_markdown(self, unit: str = "word") -> str:
        """A table in Markdown, in which blanks and line breaks of characters can be seen."""
        shown = _SHOWN if unit == "character" else {}
        rows = [[row.text.translate(shown), *map(_number, row[1:])] for row in self.rows(unit)]
        return markdown_table(AlignedText._fields, rows) + "\n"


@torch.no_grad()
def lyrics_alignment(
    prior: PreTrainedModel,
    codes: Tensor,
    metadata: Mapping[str, object],
    processor: FastJukeboxProcessor | None = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    codes_per_moment: int = 8,
) -> LyricsAlignment:
    """Align a song's lyrics with its codes.

    The prior reads the song in windows that overlap by half; each code looks at the lyrics out of the window in which
    it has heard the most of what came before. Of all ways to sing the characters in their order, the one that the
    attention is on most (the sum of its logarithms over moments) is taken.

    Args:
        prior: one with lyrics and no level above it; or a model, whose top prior is such a one.
        codes: int64 (L,) or (1, L), of the level: a generated song's, or `model.vqvae.encode(audio)[-1]`.
        metadata: `lyrics`, and what else the codes were made with; `total_duration` by default is that of the codes.
        processor: of the prior; by default the model's own.
        layer: whose attention; by default the configuration's `alignment_layer`.
        head: which of its heads; by default `alignment_head`.
        codes_per_moment: codes whose attention is averaged: 8 of the published top level are 23 ms.

    Returns:
        A [`LyricsAlignment`] of the complete lyrics.

    Raises:
        ValueError: the prior has no lyrics or an upper level, there is no processor, the layer does not attend to
            lyrics, or an argument is out of its range.
    """
    if hasattr(prior, "priors"):
        processor = prior.processor if processor is None else processor
        prior = prior.priors[-1]
    config = prior.config
    layer, head = _checked_place(prior, layer, head)
    if processor is None:
        raise ValueError("`processor` must be given where the model has none, got None")
    codes = codes[None] if codes.dim() == 1 else codes
    if codes.shape[0] != 1 or codes.shape[1] == 0:
        raise ValueError(f"`codes` must be those of one song, (L,) or (1, L), got {tuple(codes.shape)}")
    if isinstance(codes_per_moment, bool) or not isinstance(codes_per_moment, int) or codes_per_moment < 1:
        raise ValueError(f"`codes_per_moment` must be an integer of at least 1, got {shown(codes_per_moment)}")
    own = processor if len(processor.levels) == 1 else processor.only(config.level)
    _, vocabulary = own.for_prior(config)
    labels = own(metadata).metadata[0]
    if labels is None or labels.shape[0] != 1:
        raise ValueError(f"`metadata` must be of one song, got {shown(metadata)}")
    text = vocabulary.lyric_text(labels[0, config.label_length :].tolist())
    attention = _attention(prior, codes.to(prior.device), labels, len(text), layer, head, codes_per_moment)
    path = monotone_path(attention)
    moment = codes_per_moment * config.hop_length / config.sampling_rate
    starts, ends = _times(path, len(text), moment, codes.shape[1] * config.hop_length / config.sampling_rate)
    return LyricsAlignment(text, starts, ends, attention, path, moment)


def monotone_path(attention: Tensor) -> Tensor:
    """The character of each moment, never falling, on which the sum of log attention is largest.

    Args:
        attention: (moments, characters), at least one of each.

    Returns:
        int64 (moments,).
    """
    rows = attention.cpu().numpy()
    moments, characters = rows.shape
    if characters == 0:
        return torch.zeros(0, dtype=torch.int64)
    numbers = np.arange(characters)
    came_from = np.zeros((moments, characters), dtype=np.int32)
    best = _scores(rows[0])
    for moment in range(1, moments):
        highest = np.maximum.accumulate(best)
        came_from[moment] = np.maximum.accumulate(np.where(best == highest, numbers, 0))
        best = highest + _scores(rows[moment])
    path = [int(best.argmax())]
    for moment in range(moments - 1, 0, -1):
        path.append(int(came_from[moment, path[-1]]))
    return torch.tensor(path[::-1], dtype=torch.int64)


def _scores(attention: np.ndarray) -> np.ndarray:
    return np.log(attention.astype(np.float64) + _LITTLE)


def _checked_place(prior: FastJukeboxPrior, layer: int | None, head: int | None) -> tuple[int, int]:
    config = prior.config
    if not config.has_lyrics or config.has_upper_level:
        raise ValueError(
            f"`prior` must be one with lyrics and no level above, got one of level {config.level} "
            f"{'above which there is one' if config.has_upper_level else 'without lyrics'}"
        )
    chosen = []
    wanted = (("layer", layer, config.alignment_layer, config.num_hidden_layers),)
    for name, given, known, count in (*wanted, ("head", head, config.alignment_head, config.num_attention_heads)):
        value = known if given is None else given
        if value is None:
            raise ValueError(f"`{name}` must be given where the configuration has no `alignment_{name}`, got None")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
            raise ValueError(f"`{name}` must be from 0 to {count - 1}, got {shown(value)}")
        chosen.append(value)
    pattern = config.layer_types[chosen[0]]
    if not pattern.startswith("lyric_"):
        there = [index for index, word in enumerate(config.layer_types) if word.startswith("lyric_")]
        raise ValueError(f"`layer` must be one that attends to lyrics, of {there}, got {chosen[0]}, which is {pattern}")
    return chosen[0], chosen[1]


def _attention(
    prior: FastJukeboxPrior, codes: Tensor, labels: Tensor, characters: int, layer: int, head: int, pooled: int
) -> Tensor:
    """Mean attention float32 (moments, characters) of a song's codes (1, L)."""
    config, length = prior.config, codes.shape[1]
    summed = torch.zeros(-(-length // pooled), characters)
    total = int(labels[0, 0]) or int(labels[0, 1]) + length * config.hop_length
    done = 0
    for start in window_starts(length, config.n_ctx, max(config.n_ctx // 2, 1)):
        own = labels.clone()
        own[:, 0] = total
        own[:, 1] += start * config.hop_length
        own[:, 2] = config.n_ctx * config.hop_length
        own, first = window_lyrics(own, config.label_length, config.lyric_length)
        weights = _weights(prior, codes[:, start : start + config.n_ctx], own.to(codes.device), layer, head)
        begin = int(first)
        skip = max(-begin, 0)  # ids before short lyrics
        rows = weights[done - start :, skip:]
        moments = torch.arange(done, done + len(rows)) // pooled
        columns = slice(begin + skip, begin + config.lyric_length)
        summed[:, columns] += torch.zeros(len(summed), rows.shape[1]).index_add_(0, moments, rows)
        done += len(rows)
    counts = torch.bincount(torch.arange(length) // pooled)
    return summed / counts[:, None]


def _weights(prior: FastJukeboxPrior, codes: Tensor, metadata: Tensor, layer: int, head: int) -> Tensor:
    """Attention float32 (codes, lyric_length) of a window's codes to its characters."""
    hidden, conditioning = prior.embed(codes, None, metadata)
    for index in range(layer):
        hidden = prior.blocks[index](hidden, False, None, conditioning.lyric_states)[0]
    weights = prior.blocks[layer](hidden, True, None, conditioning.lyric_states).attentions
    config = prior.config
    return weights[0, head, config.lyric_prefix_length :, : config.lyric_length].float().cpu()


def _times(path: Tensor, characters: int, moment: float, duration: float) -> tuple[list[float], list[float]]:
    """Seconds at which each character begins and ends."""
    starts = [math.nan] * characters
    reached = -1
    for index, character in enumerate(path.tolist()):
        first = character if reached < 0 else reached + 1  # what comes before the first moment's is not sung
        for each in range(first, character + 1):
            starts[each] = index * moment
        reached = max(reached, character)
    ends = [*starts, math.nan][1:]
    if reached >= 0:
        ends[reached] = duration
    return starts, [math.nan if math.isnan(start) else end for start, end in zip(starts, ends, strict=True)]


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
