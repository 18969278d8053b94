"""The Frechet distance between two sets of songs as a module for the library `evaluate`."""

import evaluate
from typing_extensions import Unpack

from fast_jukebox.metrics.loading import SET_ARGUMENTS, DistanceOptions, ReferencesByKeyword, metric_info, set_distance

_DESCRIPTION = """Frechet distance between Gaussians fitted to embeddings of two sets of songs. The number is named
after its embedding, since those of two embeddings cannot be compared."""

_CITATION = """@inproceedings{kilgour2019frechet,
  title  = {Fr\\'echet Audio Distance: A Reference-Free Metric for Evaluating Music Enhancement Algorithms},
  author = {Kilgour, Kevin and Zuluaga, Mauricio and Roblek, Dominik and Sharifi, Matthew},
  booktitle = {Interspeech}, year = {2019}
}"""

_KWARGS_DESCRIPTION = SET_ARGUMENTS.format(metric="frechet_audio_distance", number="frechet_distance")


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class FrechetAudioDistance(ReferencesByKeyword, evaluate.Metric):
    """The Frechet distance between two sets of songs."""

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(_DESCRIPTION, _CITATION, _KWARGS_DESCRIPTION)

    def _compute(
        self, predictions: list[str], held_against: list[str] | str | None = None, **options: Unpack[DistanceOptions]
    ) -> dict[str, float]:
        return set_distance("frechet_distance", predictions, held_against, **options)
