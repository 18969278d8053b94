"""How codes are sampled: what is sampled when, how a code is drawn, and the loop that does it."""

from fast_jukebox.generation.configuration import (
    DEFAULT_DURATION,
    MAX_DURATION_SECONDS,
    FastJukeboxGenerationConfig,
)
from fast_jukebox.generation.mixin import (
    FastJukeboxGenerationMixin,
    FastJukeboxGenerationOutput,
    PriorGenerationMixin,
)
from fast_jukebox.generation.progress import GenerationProgress, ProgressBars, ProgressCallback
from fast_jukebox.generation.sampling import SamplingSettings, draw_codes, uniform_noise
from fast_jukebox.generation.windows import Window, sequential_windows

__all__ = [
    "DEFAULT_DURATION",
    "MAX_DURATION_SECONDS",
    "FastJukeboxGenerationConfig",
    "FastJukeboxGenerationMixin",
    "FastJukeboxGenerationOutput",
    "GenerationProgress",
    "PriorGenerationMixin",
    "ProgressBars",
    "ProgressCallback",
    "SamplingSettings",
    "Window",
    "draw_codes",
    "sequential_windows",
    "uniform_noise",
]
