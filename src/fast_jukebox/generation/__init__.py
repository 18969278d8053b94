"""How codes are sampled: what is sampled when, how a code is drawn, and the loop that does it."""

from fast_jukebox.generation.configuration import (
    DEFAULT_DURATION,
    MAX_DURATION_SECONDS,
    FastJukeboxGenerationConfig,
)
from fast_jukebox.generation.estimate import GenerationEstimate, LevelEstimate
from fast_jukebox.generation.mixin import (
    FastJukeboxGenerationMixin,
    FastJukeboxGenerationOutput,
)
from fast_jukebox.generation.prior_mixin import PriorGenerationMixin
from fast_jukebox.generation.progress import GenerationCancelled, GenerationProgress, ProgressBars, ProgressCallback
from fast_jukebox.generation.sampling import SamplingSettings, draw_codes, uniform_noise
from fast_jukebox.generation.session import Session
from fast_jukebox.generation.session_store import SessionError
from fast_jukebox.generation.windows import Window, parallel_windows, sequential_windows

__all__ = [
    "DEFAULT_DURATION",
    "MAX_DURATION_SECONDS",
    "FastJukeboxGenerationConfig",
    "FastJukeboxGenerationMixin",
    "FastJukeboxGenerationOutput",
    "GenerationCancelled",
    "GenerationEstimate",
    "GenerationProgress",
    "LevelEstimate",
    "PriorGenerationMixin",
    "ProgressBars",
    "ProgressCallback",
    "SamplingSettings",
    "Session",
    "SessionError",
    "Window",
    "draw_codes",
    "parallel_windows",
    "sequential_windows",
    "uniform_noise",
]
