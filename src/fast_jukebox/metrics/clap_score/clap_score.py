"""The CLAP score as a module for the library `evaluate`."""

import evaluate

from fast_jukebox.evaluation.clap import Clap, clap_score
from fast_jukebox.evaluation.comparison import estimate_numbers
from fast_jukebox.metrics.loading import SoundFiles, described

_DESCRIPTION = """Mean cosine of the CLAP embeddings of songs and of the texts that they were made from,
from -1 to 1."""

_CITATION = """@inproceedings{wu2023clap,
  title  = {Large-Scale Contrastive Language-Audio Pretraining with Feature Fusion and Keyword-to-Caption Augmentation},
  author = {Wu, Yusong and Chen, Ke and Zhang, Tianyu and Hui, Yuchen and Berg-Kirkpatrick, Taylor and Dubnov, Shlomo},
  booktitle = {ICASSP}, year = {2023}
}"""

_ARGUMENTS = """
Args:
    predictions: paths of sound files.
    references: a text for each file, or one text for all.
    model: folder or Hub name of a `ClapModel`, such as `laion/larger_clap_music`; none comes with the package.
    duration: seconds from the start of each file; all of it by default.
    device: where the model computes.
    resamples, seed: of the bootstrap over the songs.

Returns:
    `clap_MODEL_score`, with `_low` and `_high` (the interval of 95 %) after it.

Examples:

    >>> import fast_jukebox.metrics
    >>> metric = fast_jukebox.metrics.load("clap_score")
    >>> metric.compute(
    ...     predictions=["sample.wav"], references=["a slow piano piece"], model="laion/larger_clap_music"
    ... )  # doctest: +SKIP
"""


@described(_DESCRIPTION, _CITATION, _ARGUMENTS)
class ClapScore(SoundFiles, evaluate.Metric):
    """The CLAP score."""

    def _compute(
        self,
        predictions: list[str],
        held_against: list[str] | str | None = None,
        model: str | None = None,
        duration: float | None = None,
        device: str = "cpu",
        resamples: int = 200,
        seed: int = 0,
    ) -> dict[str, float]:
        if model is None:
            raise ValueError("`model` must be the folder or Hub name of a ClapModel, such as laion/larger_clap_music")
        if held_against is None:
            raise ValueError("`references` must be a text for each of the predictions, or one for all, got None")
        clap = Clap.from_pretrained(model, device)
        found = clap_score(clap, predictions, held_against, duration=duration, resamples=resamples, seed=seed)
        return estimate_numbers(f"{clap.name}_score", found)
