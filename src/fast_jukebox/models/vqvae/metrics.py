"""Metrics of a VQ-VAE: how much of the sound its codes keep, and how much of its codebooks they use."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fast_jukebox.models.vqvae.losses import magnitude_spectrogram


class ReconstructionReport:
    """Sums from which the metrics of a reconstruction follow, kept on the device.

    Ratios are of sums over all windows, so that a silent window counts for the little that it is.

    Args:
        levels: the levels in the order in which they are added.
        codebook_size: K.
        device: of the sums.
    """

    def __init__(self, levels: Sequence[int], codebook_size: int, device: torch.device | str) -> None:
        self.levels = list(levels)
        # Per level: energy of sound, of its error, of the spectrogram, of its error; then how often each code occurred.
        self.totals = torch.zeros(len(self.levels), 4 + codebook_size, device=device)

    def add(self, audio: Tensor, reconstructions: Sequence[Tensor], codes: Sequence[Tensor]) -> None:
        """Add a batch: audio (N, T), and for each level its reconstruction (N, T) and codes (N, L)."""
        sizes = (2048, 240, 1200)
        target = magnitude_spectrogram(audio, *sizes)
        for row, output, level_codes in zip(self.totals, reconstructions, codes, strict=True):
            spectrum = magnitude_spectrogram(output, *sizes)
            pairs = (audio, audio - output, target, target - spectrum)
            row[:4] += torch.stack([part.float().square().sum() for part in pairs])
            row[4:] += torch.bincount(level_codes.flatten(), minlength=row.shape[0] - 4)

    def metrics(self, totals: Tensor | None = None) -> dict[str, float]:
        """The metrics, keyed `name_level`."""
        metrics = {}
        for level, row in zip(self.levels, self.totals if totals is None else totals, strict=True):
            sound, noise, spectrum, spectral_error = row[:4].clamp_min(1e-10).tolist()
            used = row[4:] / row[4:].sum().clamp_min(1)
            entropy = -(used * used.clamp_min(1e-12).log()).sum()
            metrics[f"snr_{level}"] = 10.0 * math.log10(sound / noise)
            metrics[f"spectral_convergence_{level}"] = math.sqrt(spectral_error / spectrum)
            metrics[f"codebook_used_{level}"] = float((row[4:] > 0).float().mean())
            metrics[f"codebook_perplexity_{level}"] = math.exp(float(entropy))
        return metrics
