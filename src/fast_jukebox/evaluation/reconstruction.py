"""Quality of sound that a VQ-VAE's codes are decoded to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from fast_jukebox.models.vqvae.metrics import ReconstructionReport
from fast_jukebox.models.vqvae.modeling_vqvae import FastJukeboxVQVAE
from fast_jukebox.sampling.engine import sampling_mode

_CHUNK_SAMPLES = 2**20


def reconstruction_metrics(vqvae: FastJukeboxVQVAE, recordings: Iterable[Tensor]) -> dict[str, float]:
    """Encode and decode recordings at each level, and compare with them.

    Ratios are of sums over all recordings. Memory grows with the longest recording only.

    Args:
        vqvae: on any device; used in evaluation mode.
        recordings: float (T,) at the VQ-VAE's sampling rate. What does not fill a code of the top level at the end is
            left out, and recordings shorter than that are.

    Returns:
        For each level l: `snr_l` (signal-to-noise ratio in dB), `spectral_convergence_l` (norm of the error of the
        magnitude spectrograms over their norm: 0 is perfect, 1 is what silence gets), `codebook_used_l` (fraction of
        the codes that occur) and `codebook_perplexity_l` (of the codes' distribution, at most K).

    Raises:
        ValueError: no recording as long as a code of the top level.
    """
    config = vqvae.config
    levels = list(range(config.num_levels))
    report = ReconstructionReport(levels, config.codebook_size, vqvae.device)
    found = False
    with sampling_mode(vqvae):
        for recording in recordings:
            audio = complete_codes(recording, config.hop_lengths[-1])
            if len(audio) == 0:
                continue
            found = True
            batch = audio[None].to(vqvae.device, vqvae.dtype)
            codes = vqvae.encode(batch)
            reconstructions = [vqvae.decode([own], level) for level, own in zip(levels, codes, strict=True)]
            _add(report, batch.float(), [output.float() for output in reconstructions], codes)
    if not found:
        raise ValueError(f"`recordings` must hold one of at least {config.hop_lengths[-1]} samples, got none")
    return report.metrics()


def _add(
    report: ReconstructionReport, audio: Tensor, reconstructions: Sequence[Tensor], codes: Sequence[Tensor]
) -> None:
    """Add one recording chunk by chunk: its spectrograms are many times its size."""
    chunks = max(audio.shape[1] // _CHUNK_SAMPLES, 1)
    parts = (signals.tensor_split(chunks, dim=1) for signals in (audio, *reconstructions, *codes))
    for chunk, *others in zip(*parts, strict=True):
        report.add(chunk, others[: len(codes)], others[len(codes) :])


def complete_codes(recording: Tensor, hop_length: int) -> Tensor:
    """A recording (T,) cut to a multiple of a hop length."""
    return recording[: len(recording) // hop_length * hop_length]
