"""The divergence of what a tagger hears in two sets of songs as a module for the library `evaluate`."""

import evaluate

from fast_jukebox.metrics.loading import SET_ARGUMENTS, SetDistance, described

_DESCRIPTION = """Kullback-Leibler divergence of a tagger's mean tag probabilities between two sets of songs,
in bits a tag."""

_CITATION = """@inproceedings{pons2019musicnn,
  title  = {musicnn: Pre-trained Convolutional Neural Networks for Music Audio Tagging},
  author = {Pons, Jordi and Serra, Xavier},
  booktitle = {ISMIR, late-breaking demo}, year = {2019}
}"""

_ARGUMENTS = SET_ARGUMENTS.format(metric="tag_divergence", number="tag_divergence")


@described(_DESCRIPTION, _CITATION, _ARGUMENTS)
class TagDivergence(SetDistance, evaluate.Metric):
    """The divergence of what a tagger hears in two sets of songs."""

    measure = "tag_divergence"
