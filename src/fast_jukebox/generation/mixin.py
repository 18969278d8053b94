"""The `generate` methods of the models."""

from __future__ import annotations


class PriorGenerationMixin:
    """Gives a prior its `generate`: one window of codes."""


class FastJukeboxGenerationMixin:
    """Gives a whole model its `generate`: songs."""


__all__ = ["FastJukeboxGenerationMixin", "PriorGenerationMixin"]
