"""Fast Jukebox: raw-audio music from distilled sparse transformers over a hierarchical VQ-VAE.

Importing this package makes its models known to `AutoConfig` and `AutoModel` and its task to transformers' `pipeline`.
"""

from transformers import AutoConfig, AutoModel

from fast_jukebox.generation.configuration import FastJukeboxGenerationConfig
from fast_jukebox.generation.mixin import FastJukeboxGenerationOutput
from fast_jukebox.models.fast_jukebox import FastJukeboxConfig, FastJukeboxModel, FastJukeboxOutput
from fast_jukebox.models.prior import FastJukeboxPrior, FastJukeboxPriorConfig, FastJukeboxPriorOutput
from fast_jukebox.models.vqvae import FastJukeboxVQVAE, FastJukeboxVQVAEConfig, FastJukeboxVQVAEOutput
from fast_jukebox.pipelines import FastJukeboxPipeline, register_pipeline

__version__ = "0.1.0"

for _model in (FastJukeboxVQVAE, FastJukeboxPrior, FastJukeboxModel):
    AutoConfig.register(_model.config_class.model_type, _model.config_class, exist_ok=True)
    AutoModel.register(_model.config_class, _model, exist_ok=True)
register_pipeline()

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
    "FastJukeboxVQVAE",
    "FastJukeboxVQVAEConfig",
    "FastJukeboxVQVAEOutput",
    "__version__",
]
