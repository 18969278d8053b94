"""The divergence of what a tagger hears in two sets of songs as a module for the library `evaluate`."""

import evaluate
from typing_extensions import Unpack

from fast_jukebox.metrics.loading import SET_ARGUMENTS, DistanceOptions, ReferencesByKeyword, metric_info, set_distance

_DESCRIPTION = """Kullback-Leibler divergence of a tagger's mean tag probabilities between two sets of songs,
in bits a tag."""

_CITATION = """@inproceedings{pons2019musicnn,
  title  = {musicnn: Pre-trained Convolutional Neural Networks for Music Audio Tagging},
  author = {Pons, Jordi and Serra, Xavier},
  booktitle = {ISMIR, late-breaking demo}, year = {2019}
}"""

_KWARGS_DESCRIPTION = SET_ARGUMENTS.format(metric="tag_divergence", number="tag_divergence")


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class TagDivergence(ReferencesByKeyword, evaluate.Metric):
    """The divergence of what a tagger hears in two sets of songs."""

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(_DESCRIPTION, _CITATION, _KWARGS_DESCRIPTION)

    def _compute(
        self, predictions: list[str], held_against: list[str] | str | None = None, **options: Unpack[DistanceOptions]
    ) -> dict[str, float]:
        return set_distance("tag_divergence", predictions, held_against, **options)
