"""Fast Jukebox: raw-audio music from distilled sparse transformers over a hierarchical VQ-VAE.

Importing this package makes its models known to `AutoConfig` and `AutoModel` and its task to transformers' `pipeline`.
"""

from typing import TYPE_CHECKING, Any

from fast_jukebox.generation.configuration import FastJukeboxGenerationConfig
from fast_jukebox.models.fast_jukebox import FastJukeboxConfig, FastJukeboxModel, FastJukeboxOutput
from fast_jukebox.models.fast_jukebox.generation_fast_jukebox import FastJukeboxGenerationOutput
from fast_jukebox.models.prior import FastJukeboxPrior, FastJukeboxPriorConfig, FastJukeboxPriorOutput
from fast_jukebox.models.vqvae import FastJukeboxVQVAE, FastJukeboxVQVAEConfig, FastJukeboxVQVAEOutput
from fast_jukebox.processing import FastJukeboxProcessor
from fast_jukebox.registration import register_models, register_task

if TYPE_CHECKING:
    from fast_jukebox.pipelines import FastJukeboxPipeline

__version__ = "0.1.0"

register_models()
register_task()


def __getattr__(name: str) -> Any:
    # The pipeline's base class lives in transformers.pipelines, which imports torchaudio: only who asks for it pays.
    if name == "FastJukeboxPipeline":
        from fast_jukebox.pipelines import FastJukeboxPipeline

        return FastJukeboxPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
