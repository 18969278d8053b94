"""The kernel distance between two sets of songs as a module for the library `evaluate`."""

import evaluate

from fast_jukebox.metrics.loading import SET_ARGUMENTS, SetDistance, described

_DESCRIPTION = """Unbiased squared maximum mean discrepancy between embeddings of two sets of songs, with a Gaussian
kernel whose bandwidth is the median distance within the references. Often published times 100."""

_CITATION = """@article{gretton2012kernel,
  title  = {A Kernel Two-Sample Test},
  author = {Gretton, Arthur and Borgwardt, Karsten and Rasch, Malte and Schoelkopf, Bernhard and Smola, Alexander},
  journal = {Journal of Machine Learning Research}, volume = {13}, pages = {723--773}, year = {2012}
}"""

_ARGUMENTS = SET_ARGUMENTS.format(metric="kernel_audio_distance", number="kernel_distance")


@described(_DESCRIPTION, _CITATION, _ARGUMENTS)
class KernelAudioDistance(SetDistance, evaluate.Metric):
    """The kernel distance between two sets of songs."""

    measure = "kernel_distance"
