"""The Frechet distance between two sets of songs as a module for the library `evaluate`."""

import evaluate

from fast_jukebox.metrics.loading import SET_ARGUMENTS, SetDistance, described

_DESCRIPTION = """Frechet distance between Gaussians fitted to embeddings of two sets of songs. The number is named
after its embedding, since those of two embeddings cannot be compared."""

_CITATION = """@inproceedings{kilgour2019frechet,
  title  = {Fr\\'echet Audio Distance: A Reference-Free Metric for Evaluating Music Enhancement Algorithms},
  author = {Kilgour, Kevin and Zuluaga, Mauricio and Roblek, Dominik and Sharifi, Matthew},
  booktitle = {Interspeech}, year = {2019}
}"""

_ARGUMENTS = SET_ARGUMENTS.format(metric="frechet_audio_distance", number="frechet_distance")


@described(_DESCRIPTION, _CITATION, _ARGUMENTS)
class FrechetAudioDistance(SetDistance, evaluate.Metric):
    """The Frechet distance between two sets of songs."""

    measure = "frechet_distance"
