import math

import pytest
import torch

from fast_jukebox.models.vqvae.losses import (
    linf_loss,
    magnitude_spectrogram,
    multispectral_loss,
    spectral_convergence,
)


def naive_spectrogram(audio: torch.Tensor, n_fft: int, hop: int, win: int) -> torch.Tensor:
    """By the definition: reflect, frame, window, discrete Fourier transform as a matrix."""
    padded = torch.cat([audio[:, 1 : n_fft // 2 + 1].flip(1), audio, audio[:, -n_fft // 2 - 1 : -1].flip(1)], dim=1)
    window = torch.zeros(n_fft)
    steps = torch.arange(win)
    window[(n_fft - win) // 2 : (n_fft - win) // 2 + win] = 0.5 - 0.5 * torch.cos(2 * math.pi * steps / win)
    frames = padded.unfold(1, n_fft, hop) * window
    angles = 2 * math.pi * torch.outer(torch.arange(n_fft // 2 + 1), torch.arange(n_fft)) / n_fft
    real, imaginary = frames @ angles.cos().T, frames @ angles.sin().T
    return (real**2 + imaginary**2).sqrt().transpose(1, 2)


def test_the_spectrogram_is_the_transform_of_the_definition():
    audio = torch.randn(2, 300)
    torch.testing.assert_close(
        magnitude_spectrogram(audio, 64, 16, 48), naive_spectrogram(audio, 64, 16, 48), atol=1e-3, rtol=1e-3
    )


def test_the_multispectral_loss_averages_norms_over_resolutions_and_songs():
    audio, output = torch.randn(2, 2, 300)
    sizes = [(64, 16, 48), (32, 8, 32)]
    norms = [
        (naive_spectrogram(audio, *size) - naive_spectrogram(output, *size)).square().sum((1, 2)).sqrt()
        for size in sizes
    ]
    loss = multispectral_loss(audio, output, [64, 32], [16, 8], [48, 32])
    torch.testing.assert_close(loss, torch.stack(norms).mean(), atol=1e-3, rtol=1e-3)


def test_equal_sound_has_no_loss_and_finite_gradients():
    audio = torch.zeros(1, 300)
    output = torch.zeros(1, 300, requires_grad=True)
    loss = multispectral_loss(audio, output, [64], [16], [48])
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert output.grad.isfinite().all()


def test_linf_is_the_mean_of_the_largest_squared_errors_of_each_song():
    audio = torch.tensor([[0.0, 1.0, -3.0, 2.0], [0.0, 0.0, 0.0, 0.5]])
    assert linf_loss(audio, torch.zeros_like(audio), k=2).item() == pytest.approx(((9 + 4) + 0.25) / 4)
    assert linf_loss(audio, torch.zeros_like(audio), k=99).item() == pytest.approx(audio.square().mean().item())


def test_spectral_convergence_is_one_for_silence_and_zero_for_the_sound_itself():
    audio = torch.randn(2, 5000)
    assert spectral_convergence(audio, audio).item() == pytest.approx(0.0, abs=1e-6)
    assert spectral_convergence(audio, torch.zeros_like(audio)).item() == pytest.approx(1.0, abs=1e-4)
