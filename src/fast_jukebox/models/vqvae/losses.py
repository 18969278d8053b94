"""Losses of the VQ-VAE: reconstruction in time and in several time-frequency resolutions. All pure functions.

Audio is (N, T). Every loss is a scalar, a mean over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def magnitude_spectrogram(audio: Tensor, n_fft: int, hop_length: int, win_length: int) -> Tensor:
    """Magnitude of the short-time Fourier transform with a Hann window.

    Args:
        audio: (N, T); one shorter than half a transform is padded with silence.

    Returns:
        (N, n_fft // 2 + 1, frames), float32.
    """
    # Half precision has no FFT on most devices, and its range is too small for power spectra.
    audio = audio.float()
    # The reflection at the ends needs more samples than half a transform.
    audio = F.pad(audio, (0, max(n_fft // 2 + 1 - audio.shape[1], 0)))
    window = torch.hann_window(win_length, device=audio.device)
    spectrum = torch.stft(audio, n_fft, hop_length, win_length, window=window, return_complex=True)
    # abs() of a complex zero has no finite gradient, hence the real form with a floor.
    return torch.view_as_real(spectrum).square().sum(-1).clamp_min(1e-16).sqrt()


def multispectral_loss(
    audio: Tensor,
    reconstruction: Tensor,
    n_ffts: Sequence[int],
    hop_lengths: Sequence[int],
    win_lengths: Sequence[int],
) -> Tensor:
    """Norm of the difference of magnitude spectrograms, averaged over resolutions and batch."""
    norms = [
        (magnitude_spectrogram(audio, *sizes) - magnitude_spectrogram(reconstruction, *sizes)).flatten(1).norm(dim=1)
        for sizes in zip(n_ffts, hop_lengths, win_lengths, strict=True)
    ]
    return torch.stack(norms).mean()


def linf_loss(audio: Tensor, reconstruction: Tensor, k: int) -> Tensor:
    """Mean of the `k` largest squared errors of each song (of all of them, where a song has fewer samples)."""
    squared = (audio - reconstruction).float().square()
    return squared.topk(min(k, squared.shape[1]), dim=1).values.mean()


def spectral_convergence(
    audio: Tensor, reconstruction: Tensor, n_fft: int = 2048, hop_length: int = 240, win_length: int = 1200
) -> Tensor:
    """Norm of the spectrograms' error over the norm of the spectrograms, the batch as one. 0 is perfect, 1 silence."""
    target = magnitude_spectrogram(audio, n_fft, hop_length, win_length)
    error = target - magnitude_spectrogram(reconstruction, n_fft, hop_length, win_length)
    return error.norm() / target.norm().clamp_min(1e-8)
