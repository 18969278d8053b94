"""The hierarchical VQ-VAE."""

from fast_jukebox.models.vqvae.configuration_vqvae import FastJukeboxVQVAEConfig
from fast_jukebox.models.vqvae.modeling_vqvae import FastJukeboxVQVAE, FastJukeboxVQVAEOutput

__all__ = ["FastJukeboxVQVAE", "FastJukeboxVQVAEConfig", "FastJukeboxVQVAEOutput"]
