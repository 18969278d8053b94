"""The studio in the browser. Needs Gradio, which is imported inside functions."""

from fast_jukebox.demo.app import launch
from fast_jukebox.demo.limits import Limits
from fast_jukebox.demo.models import StudioModel
from fast_jukebox.demo.studio import Studio

__all__ = ["Limits", "Studio", "StudioModel", "launch"]
