"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has its own threads; together no more than there are cores
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of golden cases: $FAST_JUKEBOX_GOLDEN, or shared/golden beside the repository."""
    named = os.environ.get("FAST_JUKEBOX_GOLDEN")
    folder = Path(named) if named else ROOT.parent / "shared" / "golden"
    if not folder.is_dir():
        where = "$FAST_JUKEBOX_GOLDEN" if named else "../shared/golden and $FAST_JUKEBOX_GOLDEN is not set"
        pytest.skip(f"no golden cases: there is no folder at {where}")
    return folder


@pytest.fixture
def tiny_config():
    """A whole model of three levels (hops 4, 8, 16) that runs in milliseconds; a new object for each test."""
    from fast_jukebox import FastJukeboxConfig, FastJukeboxPriorConfig, FastJukeboxVQVAEConfig

    vqvae = FastJukeboxVQVAEConfig(
        downs=[2, 1, 1],
        strides=[2, 2, 2],
        multipliers=[1, 1, 1],
        width=4,
        depth=1,
        embed_dim=4,
        codebook_size=16,
        multispectral_n_fft=[64],
        multispectral_hop_length=[16],
        multispectral_win_length=[48],
        linf_k=8,
        sampling_rate=1600,
    )
    shared = {"codebook_size": 16, "num_hidden_layers": 3, "hidden_size": 16, "blocks": 4, "sampling_rate": 1600}
    upper = {
        "upper_downs": 1,
        "upper_stride": 2,
        "upper_codebook_size": 16,
        "conditioner_width": 8,
        "conditioner_depth": 2,
        "conditioner_dilation_cycle": 2,
        "num_attention_heads": 1,
    }
    return FastJukeboxConfig(
        vqvae_config=vqvae,
        prior_configs=[
            FastJukeboxPriorConfig(level=0, hop_length=4, n_ctx=32, **shared, **upper),
            FastJukeboxPriorConfig(level=1, hop_length=8, n_ctx=32, conditioner_residual_scale=True, **shared, **upper),
            FastJukeboxPriorConfig(level=2, hop_length=16, n_ctx=24, num_attention_heads=2, **shared),
        ],
    )


@pytest.fixture
def tiny_model(tiny_config):
    """A whole model of random weights, in eval mode."""
    from fast_jukebox import FastJukeboxModel

    return FastJukeboxModel(tiny_config).eval()
