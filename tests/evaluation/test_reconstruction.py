import pytest
import torch

from fast_jukebox import FastJukeboxVQVAE
from fast_jukebox.evaluation import reconstruction
from fast_jukebox.evaluation.reconstruction import complete_codes, reconstruction_metrics
from fast_jukebox.models.vqvae.metrics import ReconstructionReport


@pytest.fixture
def vqvae(tiny_config):
    return FastJukeboxVQVAE(tiny_config.vqvae_config)


def test_the_figures_are_those_of_the_models_own_reconstruction(vqvae):
    recordings = [0.3 * torch.randn(3207), 0.3 * torch.randn(4000), torch.randn(5)]
    found = reconstruction_metrics(vqvae, iter(recordings))
    assert vqvae.training
    report = ReconstructionReport(range(3), 16, "cpu")
    vqvae.eval()
    for recording in recordings[:2]:
        audio = recording[: len(recording) // 16 * 16][None]
        with torch.no_grad():
            output = vqvae(audio)
        report.add(audio, output.reconstructions, output.codes)
    assert found == pytest.approx(report.metrics(), rel=1e-3, abs=1e-4)


def test_long_recordings_are_compared_chunk_by_chunk(vqvae, monkeypatch):
    recordings = [0.3 * torch.randn(16000)]
    whole = reconstruction_metrics(vqvae, recordings)
    monkeypatch.setattr(reconstruction, "_CHUNK_SAMPLES", 4000)
    chunks = reconstruction_metrics(vqvae, recordings)
    for level in range(3):
        for key in ("snr", "codebook_used", "codebook_perplexity"):
            assert chunks[f"{key}_{level}"] == pytest.approx(whole[f"{key}_{level}"], rel=1e-4)
        # Windows at the chunks' edges are other ones.
        assert chunks[f"spectral_convergence_{level}"] == pytest.approx(
            whole[f"spectral_convergence_{level}"], rel=0.05
        )


def test_nothing_to_compare_is_refused(vqvae):
    with pytest.raises(ValueError, match="recordings"):
        reconstruction_metrics(vqvae, [torch.randn(15)])


@pytest.mark.parametrize(("samples", "kept"), [(0, 0), (15, 0), (16, 16), (47, 32)])
def test_what_fills_no_code_is_cut(samples, kept):
    assert len(complete_codes(torch.zeros(samples), 16)) == kept
