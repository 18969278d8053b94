from fast_jukebox.processing.levels import FastJukeboxLabels, LevelLabels
from fast_jukebox.processing.processor import FastJukeboxProcessor
from fast_jukebox.processing.vocabulary import LabelVocabulary

__all__ = ["FastJukeboxLabels", "FastJukeboxProcessor", "LabelVocabulary", "LevelLabels"]
