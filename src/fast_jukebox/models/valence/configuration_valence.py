"""Configuration of the classifier of emotional valence."""

from __future__ import annotations

import math

from fast_jukebox.models.configuration_utils import FastJukeboxBaseConfig, check_float, check_int
from fast_jukebox.utils.text import shown

QUADRANTS = ("AP", "DP", "AU", "DU")
"""Classes in the order of the paper's Table 2: activated or deactivated, pleasant or unpleasant."""

HELD_OUT_METRICS = ("roc_auc", "pr_auc", "accuracy", "pleasantness_auc", "activation_auc")
"""Metrics that `held_out` of a configuration must state before a table of a classifier is printed."""


class ValenceConfig(FastJukeboxBaseConfig):
    r"""Configuration of a [`ValenceModel`]. The defaults are the size of Sukhavasi and Adapa (2019).

    Args:
        num_mel_bins (`int`, defaults to 96): mel bands of the input.
        num_slices (`int`, defaults to 16): slices of the input that the attention layers see, in time.
        slice_frames (`int`, defaults to 256): frames of a slice.
        depth_multiplier (`float`, defaults to 1.0): of MobileNetV2's widths.
        hidden_size (`int`, defaults to 256): width of the attention layers.
        num_hidden_layers (`int`, defaults to 2): attention layers.
        num_attention_heads (`int`, defaults to 4): heads of each.
        intermediate_size (`int`, defaults to 1024): width of their feed-forward parts.
        hidden_dropout (`float`, defaults to 0.2): dropout everywhere but in the attention maps.
        attention_dropout (`float`, defaults to 0.1): dropout of the attention maps.
        held_out (`dict`, *optional*): metrics on real songs that were in no training, by name, at least
            `HELD_OUT_METRICS`; `held_out_by` says by what they are apart from the training songs (`"artist"`,
            `"instruments"`, `"split"`), `songs` how many they are. Reports refuse a classifier without them.
        labels_from (`str`, defaults to `""`): where the labels are from, for the card and reports.
    """

    model_type = "fast_jukebox_valence"

    num_mel_bins: int = 96
    num_slices: int = 16
    slice_frames: int = 256
    depth_multiplier: float = 1.0
    hidden_size: int = 256
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    hidden_dropout: float = 0.2
    attention_dropout: float = 0.1
    held_out: dict | None = None
    labels_from: str = ""

    @classmethod
    def mini(cls) -> ValenceConfig:
        """A size that a CPU trains in minutes: 16 s of sound in 3 slices, a third of MobileNetV2's widths."""
        return cls(num_slices=3, depth_multiplier=0.35, hidden_size=64, intermediate_size=256)

    @property
    def num_frames(self) -> int:
        """Frames of the input."""
        return self.num_slices * self.slice_frames

    def validate(self) -> None:
        """See [`FastJukeboxBaseConfig.validate`]."""
        limits = {"num_mel_bins": (32, 512), "slice_frames": (32, 4096), "num_slices": (1, 256)}
        for name in ("num_mel_bins", "slice_frames", "num_slices"):
            check_int(name, getattr(self, name), *limits[name])
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
            check_int(name, getattr(self, name), maximum=16384)
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of the {self.num_attention_heads} heads, got {self.hidden_size}"
            )
        check_float("depth_multiplier", self.depth_multiplier, 0.0, 4.0, open_minimum=True)
        for name in ("hidden_dropout", "attention_dropout"):
            check_float(name, getattr(self, name), 0.0, 1.0)
        if self.held_out is not None and not isinstance(self.held_out, dict):
            raise ValueError(f"`held_out` must hold metrics by name or be None, got {shown(self.held_out)}")

    def require_held_out(self) -> None:
        """Refuse a classifier that nobody can trust: one whose metrics on held-out real songs are not stated.

        Raises:
            ValueError: naming the metrics that are missing.
        """
        stated = self.held_out or {}
        missing = [
            name
            for name in HELD_OUT_METRICS
            if not isinstance(stated.get(name), int | float) or not math.isfinite(stated[name])
        ]
        missing += [name for name in ("held_out_by", "songs") if name not in stated]
        if missing:
            raise ValueError(
                f"`held_out` of the classifier's configuration must state {', '.join(missing)} before its numbers are "
                "shown: without them the four probabilities may say nothing; examples/run_valence.py measures them"
            )
