"""Published Jukebox checkpoints to ours.

The weights' licence is non-commercial; what is converted from them keeps it.
"""

from fast_jukebox.conversion.openai_prior import convert_prior
from fast_jukebox.conversion.openai_vqvae import convert_vqvae

__all__ = ["convert_prior", "convert_vqvae"]
