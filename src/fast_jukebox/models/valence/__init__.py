"""The classifier of emotional valence: activated or deactivated, pleasant or unpleasant."""

from fast_jukebox.models.valence.configuration_valence import QUADRANTS, ValenceConfig
from fast_jukebox.models.valence.feature_extraction_valence import ValenceFeatureExtractor
from fast_jukebox.models.valence.modeling_valence import ValenceModel, ValenceOutput

__all__ = ["QUADRANTS", "ValenceConfig", "ValenceFeatureExtractor", "ValenceModel", "ValenceOutput"]
