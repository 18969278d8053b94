"""Pictures of sound: mel spectrograms side by side, and which words are sung when."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.utils.files import writing

if TYPE_CHECKING:
    from fast_jukebox.evaluation.alignment import LyricsAlignment


def mel_spectrogram(audio: Tensor, sampling_rate: int, n_mels: int = 96) -> Tensor:
    """Mel spectrogram in decibels below the loudest cell; arguments and errors are those of [`mel_power`].

    Returns:
        float32 (`n_mels`, frames), from -80 to 0; -80 everywhere for silence.
    """
    power = mel_power(audio, sampling_rate, n_mels)
    return decibels(power, float(power.max()))


def decibels(power: Tensor, loudest: float) -> Tensor:
    """Power in dB below `loudest`, float32, from -80 to 0 or above; -80 everywhere where `loudest` is 0."""
    if not loudest > 0:
        return torch.full_like(power, -80.0)
    return (10 * (power / loudest).clamp_min(1e-8).log10()).float()


def mel_power(audio: Tensor, sampling_rate: int, n_mels: int = 96) -> Tensor:
    """Power in mel bands, of Hann windows of about 46 ms, four to a window's length.

    Args:
        audio: float (T,), filled up with silence to one window if shorter.
        sampling_rate: samples a second.
        n_mels: bands, equally wide on the mel scale, 2595 log10(1 + f / 700), from 0 to half the sampling rate.

    Returns:
        float32 (`n_mels`, frames).

    Raises:
        ValueError: audio of another shape, or not finite.
    """
    if audio.dim() != 1:
        raise ValueError(f"`audio` must have the shape (samples,), got {tuple(audio.shape)}")
    if not bool(audio.isfinite().all()):
        raise ValueError("`audio` must be finite, got NaN or infinite samples")
    n_fft = max(2 ** round(math.log2(0.046 * sampling_rate)), 16)
    audio = F.pad(audio.float(), (0, max(n_fft - len(audio), 0)))
    window = torch.hann_window(n_fft, device=audio.device)
    spectrum = torch.stft(audio, n_fft, n_fft // 4, window=window, center=False, return_complex=True).abs().square()
    return mel_filters(n_mels, n_fft, sampling_rate).to(audio.device) @ spectrum


def mel_filters(n_mels: int, n_fft: int, sampling_rate: int) -> Tensor:
    """Triangles (n_mels, n_fft // 2 + 1) over the bins of a Fourier transform, each of height 1."""
    highest = 2595 * math.log10(1 + sampling_rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, highest, n_mels + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sampling_rate / n_fft
    # At the lowest bands a triangle may lie between two bins: it is made wide enough to touch one.
    width = sampling_rate / n_fft
    low = torch.minimum(edges[:-2], edges[1:-1] - width)[:, None]
    high = torch.maximum(edges[2:], edges[1:-1] + width)[:, None]
    centre = edges[1:-1][:, None]
    return torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp_min(0).float()


def plot_spectrograms(path: str | os.PathLike[str], clips: Mapping[str, Tensor], sampling_rate: int) -> Path:
    """Draw the mel spectrograms of clips below each other, each under its name, into a PNG file.

    Args:
        path: of the picture.
        clips: audio (T,) by title.
        sampling_rate: samples a second.

    Raises:
        ImportError: matplotlib is not there.
        ValueError: no clips.
    """
    if not clips:
        raise ValueError("`clips` must hold at least one clip, got none")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.9 * len(clips)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(clips), 1, squeeze=False, sharex=True)[:, 0]
    top = 2595 * math.log10(1 + sampling_rate / 2 / 700)
    ticks = [hertz for hertz in (250, 1000, 4000, 16000) if hertz < sampling_rate / 2]
    for axes, (title, audio) in zip(rows, clips.items(), strict=True):
        decibels = mel_spectrogram(audio.detach().cpu(), sampling_rate).numpy()
        extent = (0, len(audio) / sampling_rate, 0, top)
        image = axes.imshow(decibels, origin="lower", aspect="auto", vmin=-80, vmax=0, extent=extent, cmap="magma")
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_yticks([2595 * math.log10(1 + hertz / 700) for hertz in ticks], [f"{hertz} Hz" for hertz in ticks])
        axes.tick_params(labelsize=7)
    rows[-1].set_xlim(0, max(len(audio) for audio in clips.values()) / sampling_rate)
    rows[-1].set_xlabel("seconds", fontsize=8)
    figure.colorbar(image, ax=list(rows), shrink=0.8, label="dB below the loudest")
    path = Path(path)
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=75, metadata={"Software": None})
    return path


def plot_alignment(path: str | os.PathLike[str], alignment: LyricsAlignment) -> Path:
    """Draw which character each moment attends to, time to the right and the lyrics downwards, with the line of what is
    sung, into a PNG file.

    Args:
        path: of the picture.
        alignment: as [`lyrics_alignment`] gives it.

    Raises:
        ImportError: matplotlib is not there.
        ValueError: there are no lyrics.
    """
    if not alignment.text:
        raise ValueError("`alignment` must be of some lyrics, got none")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    characters, moments = len(alignment.text), len(alignment.path)
    seconds = moments * alignment.moment
    figure = Figure(figsize=(9, min(max(3.0, characters / 24), 12.0)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    weights = alignment.attention.T.numpy()
    extent = (0, seconds, characters - 0.5, -0.5)
    axes.imshow(weights, aspect="auto", cmap="magma", extent=extent, interpolation="nearest")
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
    path = Path(path)
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=75, metadata={"Software": None})
    return path
