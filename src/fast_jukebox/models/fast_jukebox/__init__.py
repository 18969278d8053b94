"""The complete model: one VQ-VAE and one prior a level."""

from fast_jukebox.models.fast_jukebox.configuration_fast_jukebox import FastJukeboxConfig
from fast_jukebox.models.fast_jukebox.generation_fast_jukebox import FastJukeboxGenerationOutput
from fast_jukebox.models.fast_jukebox.modeling_fast_jukebox import FastJukeboxModel, FastJukeboxOutput

__all__ = ["FastJukeboxConfig", "FastJukeboxGenerationOutput", "FastJukeboxModel", "FastJukeboxOutput"]
