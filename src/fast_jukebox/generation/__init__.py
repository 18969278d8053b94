"""Generation of one song: its request, its plan of windows, and the sampling of its levels."""

from fast_jukebox.generation.configuration import (
    DEFAULT_DURATION,
    MAX_DURATION_SECONDS,
    FastJukeboxGenerationConfig,
)
from fast_jukebox.generation.estimate import GenerationEstimate, LevelEstimate
from fast_jukebox.generation.request import SongRequest
from fast_jukebox.generation.windows import Window

__all__ = [
    "DEFAULT_DURATION",
    "MAX_DURATION_SECONDS",
    "FastJukeboxGenerationConfig",
    "GenerationEstimate",
    "LevelEstimate",
    "SongRequest",
    "Window",
]
