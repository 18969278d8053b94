"""How a model that can generate finds its `generation_config.json`."""

from __future__ import annotations

import os

from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME, cached_file

from fast_jukebox.hub import download_arguments


class GenerationConfigLoading:
    """What `from_pretrained` asks of a model that can generate: to find its `generation_config.json`."""

    generation_config_class: type[GenerationConfig] = GenerationConfig

    def adjust_generation_fn(
        self,
        generation_config: GenerationConfig | None,
        from_auto_class: bool,
        from_pipeline: str | None,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        **kwargs: object,
    ) -> None:
        """Take `generation_config`, or else the repository's own; where it has none, keep the defaults."""
        if generation_config is not None:
            self.generation_config = self.generation_config_class.from_dict(generation_config.to_dict())
        elif pretrained_model_name_or_path is not None:
            found = cached_file(
                pretrained_model_name_or_path,
                GENERATION_CONFIG_NAME,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                **download_arguments(kwargs),
            )
            if found is not None:
                folder, name = os.path.split(found)
                self.generation_config = self.generation_config_class.from_pretrained(folder, config_file_name=name)
