"""Modules for the library `evaluate`, in this folder."""

from fast_jukebox.metrics.loading import METRICS, load

__all__ = ["METRICS", "load"]
