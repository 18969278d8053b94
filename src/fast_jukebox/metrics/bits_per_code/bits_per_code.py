"""Bits per code of a model's priors on recordings, as a module for the library `evaluate`."""

import evaluate
import torch

from fast_jukebox import FastJukeboxModel
from fast_jukebox.evaluation.comparison import estimate_numbers
from fast_jukebox.evaluation.likelihood import song_bits
from fast_jukebox.metrics.loading import FAST_JUKEBOX, SoundFiles, described

_DESCRIPTION = """Mean of -log2 of the probability that each prior of a model gives to the codes of recordings."""

_ARGUMENTS = """
Args:
    predictions: paths of recordings that are predicted, which the model was not trained on.
    model: folder or Hub name of a complete model.
    duration: seconds from the start of each recording; all of it by default.
    max_windows: windows of a context for each prior, spread evenly over the recordings; None for all.
    device: where the model computes.
    resamples, seed: of the bootstrap over the recordings.

Returns:
    `bits_per_code_LEVEL` for each level, 0 the bottom, with `_low` and `_high` (the interval of 95 %) after it.

Examples:

    >>> import fast_jukebox.metrics
    >>> metric = fast_jukebox.metrics.load("bits_per_code")
    >>> metric.compute(predictions=["held-out.flac"], model="runs/model")  # doctest: +SKIP
"""


@described(_DESCRIPTION, FAST_JUKEBOX, _ARGUMENTS)
class BitsPerCode(SoundFiles, evaluate.Metric):
    """Bits per code."""

    def _compute(
        self,
        predictions: list[str],
        model: str | None = None,
        duration: float | None = None,
        max_windows: int | None = 64,
        device: str = "cpu",
        resamples: int = 200,
        seed: int = 0,
    ) -> dict[str, float]:
        if model is None:
            raise ValueError("`model` must be the folder or Hub name of a complete model, got None")
        loaded = FastJukeboxModel.from_pretrained(model, dtype=torch.float32).eval().to(device)
        numbers: dict[str, float] = {}
        for level, found in enumerate(song_bits(loaded, predictions, duration=duration, max_windows=max_windows)):
            numbers |= estimate_numbers(f"bits_per_code_{level}", found.estimate(resamples, seed))
        return numbers
