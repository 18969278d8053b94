from fast_jukebox.processing.processor import FastJukeboxLabels, FastJukeboxProcessor, LevelLabels
from fast_jukebox.processing.vocabulary import LabelVocabulary

__all__ = ["FastJukeboxLabels", "FastJukeboxProcessor", "LabelVocabulary", "LevelLabels"]
