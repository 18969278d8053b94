"""Mel spectrograms."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_FRAMES_AT_ONCE = 1024


def mel_spectrogram(audio: Tensor, sampling_rate: int, n_mels: int = 96) -> Tensor:
    """[`mel_power`] in decibels below the loudest cell, from -80 to 0; -80 everywhere for silence."""
    power = mel_power(audio, sampling_rate, n_mels)
    return decibels(power, float(power.max()))


def decibels(power: Tensor, loudest: float) -> Tensor:
    """Power in dB below `loudest`, float32, from -80 to 0 or above; -80 everywhere where `loudest` is 0."""
    if not loudest > 0:
        return torch.full_like(power, -80.0)
    return (10 * (power / loudest).clamp_min(1e-8).log10()).float()


def mel(hertz: float) -> float:
    """A frequency on the mel scale, 2595 log10(1 + f / 700)."""
    return 2595 * math.log10(1 + hertz / 700)


def mel_power(audio: Tensor, sampling_rate: int, n_mels: int = 96) -> Tensor:
    """Power float32 (n_mels, frames) in mel bands, of Hann windows of about 46 ms, four to a window's length.

    The bands are equally wide on the mel scale (see [`mel`]), from 0 to half the sampling rate. Sound (T,) that is
    shorter than a window is filled up with silence.

    Raises:
        ValueError: audio of another shape, or not finite.
    """
    if audio.dim() != 1:
        raise ValueError(f"`audio` must have the shape (samples,), got {tuple(audio.shape)}")
    if not bool(audio.isfinite().all()):
        raise ValueError("`audio` must be finite, got NaN or infinite samples")
    n_fft = window_length(sampling_rate)
    return mel_frames(F.pad(audio.float(), (0, max(n_fft - len(audio), 0))), sampling_rate, n_mels, n_fft // 4)


def window_length(sampling_rate: int) -> int:
    """Samples of a spectral window: the power of two that is nearest to 46 ms."""
    return max(2 ** round(math.log2(0.046 * sampling_rate)), 16)


def mel_frames(audio: Tensor, sampling_rate: int, n_mels: int, hop: int) -> Tensor:
    """Power (n_mels, frames) in mel bands of Hann windows of [`window_length`], `hop` samples apart, that sound (T,)
    fills.
    """
    n_fft = window_length(sampling_rate)
    window = torch.hann_window(n_fft, device=audio.device)
    filters = mel_filters(n_mels, n_fft, sampling_rate).to(audio.device)
    parts = audio.unfold(0, n_fft, hop).split(_FRAMES_AT_ONCE)  # spectra are many times as large as their sound
    return torch.cat([filters @ torch.fft.rfft(part * window).abs().square().T for part in parts], dim=1)


def mel_filters(n_mels: int, n_fft: int, sampling_rate: int) -> Tensor:
    """Triangles (n_mels, n_fft // 2 + 1) over the bins of a Fourier transform, each of height 1."""
    edges = 700 * (10 ** (torch.linspace(0, mel(sampling_rate / 2), n_mels + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sampling_rate / n_fft
    # At the lowest bands a triangle may lie between two bins: it is made wide enough to touch one.
    width = sampling_rate / n_fft
    low = torch.minimum(edges[:-2], edges[1:-1] - width)[:, None]
    high = torch.maximum(edges[2:], edges[1:-1] + width)[:, None]
    centre = edges[1:-1][:, None]
    return torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp_min(0).float()
