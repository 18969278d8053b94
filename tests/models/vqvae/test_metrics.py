import math

import pytest
import torch

from fast_jukebox.models.vqvae.losses import spectral_convergence
from fast_jukebox.models.vqvae.metrics import ReconstructionReport

SAMPLES = 4800


def test_the_metrics_are_of_all_batches_together():
    report = ReconstructionReport([0, 2], codebook_size=8, device="cpu")
    batches = []
    for scale in (1.0, 0.1):
        audio = scale * torch.randn(2, SAMPLES)
        outputs = [audio + 0.1 * torch.randn_like(audio), 0.5 * audio]
        codes = [torch.randint(4, (2, 60)), torch.zeros(2, 15, dtype=torch.int64)]
        report.add(audio, outputs, codes)
        batches.append((audio, outputs, codes))
    metrics = report.metrics()
    audio = torch.cat([batch[0] for batch in batches])
    for entry, level in enumerate((0, 2)):
        output = torch.cat([batch[1][entry] for batch in batches])
        snr = 10 * math.log10(float(audio.square().sum() / (audio - output).square().sum()))
        assert metrics[f"snr_{level}"] == pytest.approx(snr, abs=1e-3)
        assert metrics[f"spectral_convergence_{level}"] == pytest.approx(
            float(spectral_convergence(audio, output)), rel=1e-3
        )
    assert metrics["spectral_convergence_2"] == pytest.approx(0.5, rel=1e-3)
    codes = torch.cat([batch[2][0] for batch in batches]).flatten()
    shares = torch.bincount(codes, minlength=8) / len(codes)
    entropy = -float((shares[shares > 0] * shares[shares > 0].log()).sum())
    assert metrics["codebook_perplexity_0"] == pytest.approx(math.exp(entropy), rel=1e-4)
    assert metrics["codebook_used_0"] == 0.5
    assert metrics["codebook_used_2"] == 0.125
    assert metrics["codebook_perplexity_2"] == pytest.approx(1.0)


def test_totals_of_several_processes_are_added():
    whole, first, second = (ReconstructionReport([0], 4, "cpu") for _ in range(3))
    audio, output = torch.randn(2, 2, SAMPLES).unbind()
    codes = torch.randint(4, (2, 50))
    whole.add(audio, [output], [codes])
    first.add(audio[:1], [output[:1]], [codes[:1]])
    second.add(audio[1:], [output[1:]], [codes[1:]])
    assert first.metrics(first.totals + second.totals) == pytest.approx(whole.metrics(), rel=1e-5)
