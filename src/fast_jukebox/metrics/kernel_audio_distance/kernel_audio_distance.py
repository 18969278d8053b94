"""The kernel distance between two sets of songs as a module for the library `evaluate`."""

import evaluate
from typing_extensions import Unpack

from fast_jukebox.metrics.loading import SET_ARGUMENTS, DistanceOptions, ReferencesByKeyword, metric_info, set_distance

_DESCRIPTION = """Unbiased squared maximum mean discrepancy between embeddings of two sets of songs, with a Gaussian
kernel whose bandwidth is the median distance within the references. Often published times 100."""

_CITATION = """@article{gretton2012kernel,
  title  = {A Kernel Two-Sample Test},
  author = {Gretton, Arthur and Borgwardt, Karsten and Rasch, Malte and Schoelkopf, Bernhard and Smola, Alexander},
  journal = {Journal of Machine Learning Research}, volume = {13}, pages = {723--773}, year = {2012}
}"""

_KWARGS_DESCRIPTION = SET_ARGUMENTS.format(metric="kernel_audio_distance", number="kernel_distance")


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class KernelAudioDistance(ReferencesByKeyword, evaluate.Metric):
    """The kernel distance between two sets of songs."""

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(_DESCRIPTION, _CITATION, _KWARGS_DESCRIPTION)

    def _compute(
        self, predictions: list[str], held_against: list[str] | str | None = None, **options: Unpack[DistanceOptions]
    ) -> dict[str, float]:
        return set_distance("kernel_distance", predictions, held_against, **options)
