"""What `fast-jukebox estimate` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fast_jukebox.generation.estimate import GenerationEstimate
from fast_jukebox.generation.request import FastJukeboxGenerationConfig
from fast_jukebox.models.fast_jukebox import FastJukeboxConfig, FastJukeboxModel
from fast_jukebox.models.fast_jukebox.configuration_fast_jukebox import PRESETS
from fast_jukebox_cli.model import chosen_device, model_config, model_name

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def estimate(model: str | None, device: str, **arguments: object) -> GenerationEstimate:
    """What a model would take here; only its configuration is read.

    Args:
        model: a folder or repository; `None` for the embedded one; or the name of a preset, such as `fastjukebox-18`.
        device: see [`chosen_device`].
        arguments: those of [`FastJukeboxGenerationMixin.estimate`].

    Raises:
        ValueError: it is no whole model, or an argument cannot be.
    """
    where = chosen_device(device)
    settings = None
    if model is not None and model in PRESETS:
        config: PreTrainedConfig = FastJukeboxConfig.preset(model)
    else:
        name = model_name(model)
        config = model_config(name)
        if not isinstance(config, FastJukeboxConfig):
            raise ValueError(f"`model` must be a whole model, {name} is a {config.model_type}")
        settings = _settings_of(name)
    return FastJukeboxModel.estimate_from_config(config, device=where, generation_config=settings, **arguments)


def _settings_of(name: str) -> FastJukeboxGenerationConfig | None:
    """A model's own settings, or `None` where it has none."""
    try:
        return FastJukeboxGenerationConfig.from_pretrained(name)
    except OSError:
        return None
