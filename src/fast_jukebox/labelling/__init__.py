"""Labels of songs: cut into clips, measured, and written beside what their files say."""

from fast_jukebox.labelling.dataset import LabelReport, label_songs
from fast_jukebox.labelling.labellers import KeyLabeller, Labeller, TagLabeller, TempoLabeller

__all__ = ["KeyLabeller", "LabelReport", "Labeller", "TagLabeller", "TempoLabeller", "label_songs"]
