"""Pictures of songs: waveforms and levels (the paper's Figs. 5 and 6), notes, spectrograms, alignment of lyrics.

Each function writes a file, `.png` or `.svg`, of clips, sound (T,) by title at a sampling rate in Hz. It raises an
`ImportError` without matplotlib, and a `ValueError` for another suffix, no clips, or one that is empty or not finite.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fast_jukebox.evaluation.mel import decibels, mel, mel_power, mel_spectrogram
from fast_jukebox.evaluation.notes import transcribe
from fast_jukebox.evaluation.song_metrics import quiet_segments
from fast_jukebox.utils.figures import new_figure, picture_path, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from fast_jukebox.evaluation.alignment import LyricsAlignment

_COLUMNS = 1200
"""Columns of an envelope: more than a printed line has."""

Clips = Mapping[str, Tensor]
"""Sound (T,) by title."""


def envelope(audio: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest sample in each of at most `columns` equal parts of sound (T,).

    A waveform drawn from them shows every peak, unlike one of every n-th sample.

    Returns:
        Two tensors (columns,), or (T,) for sound of fewer samples.
    """
    columns = min(columns, len(audio))
    edges = [index * len(audio) // columns for index in range(columns + 1)]
    parts = audio.split([end - start for start, end in pairwise(edges)])
    return torch.stack([part.min() for part in parts]), torch.stack([part.max() for part in parts])


def plot_waveforms(path: str | os.PathLike[str], clips: Clips, sampling_rate: int, seconds: float = 5.0) -> Path:
    """Draw waveforms below each other, each brought to [-1, 1] by its own peak, as the paper's Fig. 5.

    Only the first `seconds` of each are drawn; silence is a flat line.
    """
    path = picture_path(path)
    clips = _checked(clips)
    figure, rows = _rows(len(clips), 1.3 * len(clips) + 0.4)
    for axes, (title, audio) in zip(rows, clips.items(), strict=True):
        audio = audio[: max(round(seconds * sampling_rate), 1)]
        low, high = envelope(audio / audio.abs().max().clamp_min(1e-12), _COLUMNS)
        times = (torch.arange(len(low)) + 0.5) * len(audio) / len(low) / sampling_rate
        axes.fill_between(times.numpy(), low.numpy(), high.numpy(), linewidth=0.4, color="#1f4e79")
        _label(axes, title)
        axes.set_yticks([-1, 0, 1])
    rows[-1].set_xlim(0, seconds)
    rows[-1].set_ylim(-1.05, 1.05)
    return save_figure(figure, path)


def plot_levels(path: str | os.PathLike[str], systems: Mapping[str, Clips], sampling_rate: int) -> Path:
    """Draw mel spectrograms in a grid, a row a system, a column a kind of its sound, as the paper's Fig. 6.

    All panels have one colour scale: decibels below the loudest cell of them all, so that loudness can be compared.

    Args:
        path: of the picture.
        systems: by name, sound (T,) by column, such as `{"teacher": {"top level alone": a, "upsampled": b}}`. A cell
            that a system lacks stays empty, and a system's only sound has no other title than its name. Columns are in
            the order of the system that has most of them.
        sampling_rate: in Hz.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    path = picture_path(path)
    _checked({f"{name}, {column}": audio for name, clips in systems.items() for column, audio in clips.items()})
    fullest_first = sorted(systems.values(), key=len, reverse=True)  # whose order of columns all follow
    columns = list(dict.fromkeys(column for clips in fullest_first for column in clips))
    powers = {
        (name, column): mel_power(audio.detach().float().cpu(), sampling_rate)
        for name, clips in systems.items()
        for column, audio in clips.items()
    }
    loudest = max(float(power.max()) for power in powers.values())
    longest = max(len(audio) for clips in systems.values() for audio in clips.values()) / sampling_rate
    figure = new_figure(4.5 * len(columns) + 1, 1.8 * len(systems) + 0.4)
    grid = figure.subplots(len(systems), len(columns), squeeze=False, sharex=True, sharey=True)
    for row, (name, clips) in enumerate(systems.items()):
        for column, title in enumerate(columns):
            axes = grid[row, column]
            if title not in clips:
                axes.set_axis_off()
                continue
            _draw_mels(axes, decibels(powers[name, title], loudest), len(clips[title]), sampling_rate)
            _label(axes, f"{name}: {title}" if len(clips) > 1 else name)
            axes.set_xlim(0, longest)
            axes.tick_params(labelleft=not set(columns[:column]) & clips.keys())  # once a row
    grid[-1, 0].set_xlabel("seconds", fontsize=8)
    scale = ScalarMappable(Normalize(-80, 0), "magma")
    figure.colorbar(scale, ax=grid.ravel().tolist(), shrink=0.8, label="dB below the loudest of all")
    return save_figure(figure, path)


def plot_notes(path: str | os.PathLike[str], clips: Clips, sampling_rate: int, seconds: float = 20.0) -> Path:
    """Draw the notes heard in clips below each other like a score: pitch over time, and where nothing sounds.

    Notes are those of [`transcribe`] in the first `seconds`, darker where louder; what is below -40 dBFS is shaded.

    Raises:
        ValueError: also for a sampling rate below 8000, or a clip that is shorter than a window of 0.37 s.
    """
    path = picture_path(path)
    clips = {title: audio[: max(round(seconds * sampling_rate), 1)] for title, audio in _checked(clips).items()}
    heard = {title: transcribe(audio, sampling_rate) for title, audio in clips.items()}
    pitches = [event.pitch for events in heard.values() for event in events] or [60]
    low, high = min(pitches) - 2, max(pitches) + 2
    figure, rows = _rows(len(clips), 1.6 * len(clips) + 0.4)
    for axes, (title, events) in zip(rows, heard.items(), strict=True):
        for start, end in quiet_segments(clips[title], sampling_rate):
            axes.axvspan(start, end, color="#dddddd", linewidth=0)
        loudest = max((event.strength for event in events), default=1.0)
        for event in events:
            shade = 0.35 + 0.65 * event.strength / loudest
            axes.broken_barh(
                [(event.start, event.end - event.start)], (event.pitch - 0.4, 0.8), color="#1f4e79", alpha=shade
            )
        octaves = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
        axes.set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves])
        axes.grid(axis="y", linewidth=0.4, color="#bbbbbb")
        _label(axes, title)
    rows[-1].set_xlim(0, max(len(audio) for audio in clips.values()) / sampling_rate)
    rows[-1].set_ylim(low, high)
    return save_figure(figure, path)


def plot_spectrograms(path: str | os.PathLike[str], clips: Clips, sampling_rate: int) -> Path:
    """Draw the mel spectrograms of clips below each other, each in decibels below its loudest cell."""
    path = picture_path(path)
    clips = _checked(clips)
    figure, rows = _rows(len(clips), 1.9 * len(clips))
    for axes, (title, audio) in zip(rows, clips.items(), strict=True):
        image = _draw_mels(axes, mel_spectrogram(audio, sampling_rate), len(audio), sampling_rate)
        _label(axes, title)
    rows[-1].set_xlim(0, max(len(audio) for audio in clips.values()) / sampling_rate)
    figure.colorbar(image, ax=rows, shrink=0.8, label="dB below the loudest")
    return save_figure(figure, path, 75)


def plot_alignment(path: str | os.PathLike[str], alignment: LyricsAlignment) -> Path:
    """Draw the attention of each moment to each character, time to the right and the lyrics downwards, with the line of
    what is sung.

    Raises:
        ValueError: also where there are no lyrics.
    """
    if not alignment.text:
        raise ValueError("`alignment` must be of some lyrics, got none")
    path = picture_path(path)
    characters, moments = len(alignment.text), len(alignment.path)
    figure = new_figure(9, min(max(3.0, characters / 24), 12.0))
    axes = figure.subplots()
    extent = (0, moments * alignment.moment, characters - 0.5, -0.5)
    axes.imshow(alignment.attention.T.numpy(), aspect="auto", cmap="magma", extent=extent, interpolation="nearest")
    times = (torch.arange(moments) + 0.5) * alignment.moment
    axes.plot(times.numpy(), alignment.path.numpy(), color="white", linewidth=0.8)
    words = alignment.rows("word")
    every = max(1, len(words) // 40)
    places, place = [], 0
    for word in words:
        place = alignment.text.index(word.text, place)
        places.append(place)
        place += len(word.text)
    axes.set_yticks(places[::every], [word.text[:16] for word in words[::every]])
    axes.tick_params(labelsize=7)
    axes.set_xlabel("seconds", fontsize=8)
    return save_figure(figure, path, 75)


def _rows(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of panels below each other, over one axis of seconds."""
    figure = new_figure(9, height)
    rows = list(figure.subplots(count, 1, squeeze=False, sharex=True, sharey=True)[:, 0])
    rows[-1].set_xlabel("seconds", fontsize=8)
    return figure, rows


def _label(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9, loc="left", parse_math=False)  # a name may hold dollar signs
    axes.tick_params(labelsize=7)


def _draw_mels(axes: Axes, values: Tensor, samples: int, sampling_rate: int) -> AxesImage:
    """Draw a mel spectrogram (bands, frames) in decibels of so many samples; the image, for a colour bar."""
    extent = (0, samples / sampling_rate, 0, mel(sampling_rate / 2))
    ticks = [hertz for hertz in (250, 1000, 4000, 16000) if hertz < sampling_rate / 2]
    axes.set_yticks([mel(hertz) for hertz in ticks], [f"{hertz} Hz" for hertz in ticks])
    return axes.imshow(values.numpy(), origin="lower", aspect="auto", vmin=-80, vmax=0, extent=extent, cmap="magma")


def _checked(clips: Clips) -> dict[str, Tensor]:
    """Clips in float32 on the CPU, after a look at them."""
    if not clips:
        raise ValueError("`clips` must hold at least one clip, got none")
    for title, audio in clips.items():
        if audio.dim() != 1 or len(audio) == 0 or not bool(audio.isfinite().all()):
            raise ValueError(f"{title!r} must be finite sound (T,), got shape {tuple(audio.shape)}")
    return {title: audio.detach().float().cpu() for title, audio in clips.items()}
