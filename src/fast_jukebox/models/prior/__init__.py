"""The prior of one level."""

from fast_jukebox.models.prior.block import PriorCache
from fast_jukebox.models.prior.conditioning import PriorConditioning
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig
from fast_jukebox.models.prior.modeling_prior import FastJukeboxPrior, FastJukeboxPriorOutput

__all__ = [
    "FastJukeboxPrior",
    "FastJukeboxPriorConfig",
    "FastJukeboxPriorOutput",
    "PriorCache",
    "PriorConditioning",
]
