"""Emotional valence of songs as a module for the library `evaluate`."""

import evaluate

from fast_jukebox.evaluation.comparison import estimate_numbers
from fast_jukebox.evaluation.valence import ValenceJudge, score_songs, valence_estimates
from fast_jukebox.metrics.loading import FAST_JUKEBOX, SoundFiles, described

_DESCRIPTION = """Means over songs of the four probabilities of a classifier of emotional valence: activated or
deactivated, pleasant or unpleasant (Table 2 of Fast Jukebox). A classifier whose configuration does not state its
metrics on held-out songs is refused."""

_ARGUMENTS = """
Args:
    predictions: paths of sound files; silent ones are left out.
    model: folder or Hub name of a classifier that `examples/run_valence.py` trained; none comes with the package.
    device: where the model computes.
    resamples, seed: of the bootstrap over the songs.

Returns:
    `AP`, `DP`, `AU` and `DU`, with `_low` and `_high` (the interval of 95 %) after each.

Examples:

    >>> import fast_jukebox.metrics
    >>> metric = fast_jukebox.metrics.load("emotional_valence")
    >>> metric.compute(predictions=["sample.wav"], model="runs/valence")  # doctest: +SKIP
"""


@described(_DESCRIPTION, FAST_JUKEBOX, _ARGUMENTS)
class EmotionalValence(SoundFiles, evaluate.Metric):
    """Emotional valence."""

    def _compute(
        self,
        predictions: list[str],
        model: str | None = None,
        device: str = "cpu",
        resamples: int = 200,
        seed: int = 0,
    ) -> dict[str, float]:
        if model is None:
            raise ValueError("`model` must be the folder or Hub name of a classifier of emotional valence, got None")
        probabilities = score_songs(ValenceJudge.from_pretrained(model, device), predictions)
        numbers: dict[str, float] = {}
        for name, found in valence_estimates(probabilities, resamples, seed).items():
            numbers |= estimate_numbers(name, found)
        return numbers
