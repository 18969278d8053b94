"""Fast Jukebox: raw-audio music from distilled sparse transformers over a hierarchical VQ-VAE."""

__version__ = "0.1.0"

__all__ = ["__version__"]
