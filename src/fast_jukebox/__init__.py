"""Fast Jukebox: raw-audio music from distilled sparse transformers over a hierarchical VQ-VAE.

Importing this package makes its models known to `AutoConfig`, `AutoModel` and `AutoProcessor` and its task to
transformers' `pipeline`. It is quick: torch and transformers are imported with the first name that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from fast_jukebox.registration import register

if TYPE_CHECKING:
    from fast_jukebox.generation.request import FastJukeboxGenerationConfig
    from fast_jukebox.models.fast_jukebox import (
        FastJukeboxConfig,
        FastJukeboxGenerationOutput,
        FastJukeboxModel,
        FastJukeboxOutput,
    )
    from fast_jukebox.models.prior import FastJukeboxPrior, FastJukeboxPriorConfig, FastJukeboxPriorOutput
    from fast_jukebox.models.vqvae import FastJukeboxVQVAE, FastJukeboxVQVAEConfig, FastJukeboxVQVAEOutput
    from fast_jukebox.pipelines import FastJukeboxPipeline
    from fast_jukebox.processing import FastJukeboxProcessor

__version__ = "0.1.0"

_MODULES = {
    "FastJukeboxConfig": "models.fast_jukebox",
    "FastJukeboxGenerationConfig": "generation.request",
    "FastJukeboxGenerationOutput": "models.fast_jukebox",
    "FastJukeboxModel": "models.fast_jukebox",
    "FastJukeboxOutput": "models.fast_jukebox",
    "FastJukeboxPipeline": "pipelines",
    "FastJukeboxPrior": "models.prior",
    "FastJukeboxPriorConfig": "models.prior",
    "FastJukeboxPriorOutput": "models.prior",
    "FastJukeboxProcessor": "processing",
    "FastJukeboxVQVAE": "models.vqvae",
    "FastJukeboxVQVAEConfig": "models.vqvae",
    "FastJukeboxVQVAEOutput": "models.vqvae",
}
"""The module of each public name."""

register()


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(f"fast_jukebox.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


__all__ = [
    "FastJukeboxConfig",
    "FastJukeboxGenerationConfig",
    "FastJukeboxGenerationOutput",
    "FastJukeboxModel",
    "FastJukeboxOutput",
    "FastJukeboxPipeline",
    "FastJukeboxPrior",
    "FastJukeboxPriorConfig",
    "FastJukeboxPriorOutput",
    "FastJukeboxProcessor",
    "FastJukeboxVQVAE",
    "FastJukeboxVQVAEConfig",
    "FastJukeboxVQVAEOutput",
    "__version__",
]
