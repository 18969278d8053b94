"""Sampling of one window of codes; knows no model."""

from fast_jukebox.sampling.filtering import SamplingSettings, draw_codes
from fast_jukebox.sampling.noise import uniform_noise
from fast_jukebox.sampling.progress import GenerationCancelled, GenerationProgress, ProgressBars, ProgressCallback

__all__ = [
    "GenerationCancelled",
    "GenerationProgress",
    "ProgressBars",
    "ProgressCallback",
    "SamplingSettings",
    "draw_codes",
    "uniform_noise",
]
