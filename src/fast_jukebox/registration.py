"""Making the models and the task known to transformers, at no cost to who does not use them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from transformers import AutoConfig, AutoModel

from fast_jukebox.models.fast_jukebox import FastJukeboxModel
from fast_jukebox.models.prior import FastJukeboxPrior
from fast_jukebox.models.vqvae import FastJukeboxVQVAE

PIPELINES = "transformers.pipelines"


def register_models() -> None:
    """Make the `model_type`s of the package known to `AutoConfig` and `AutoModel`. Calling it again is harmless."""
    for model in (FastJukeboxVQVAE, FastJukeboxPrior, FastJukeboxModel):
        AutoConfig.register(model.config_class.model_type, model.config_class, exist_ok=True)
        AutoModel.register(model.config_class, model, exist_ok=True)


def register_task() -> None:
    """Make `pipeline("fast-jukebox")` known, now or as soon as transformers' pipelines are imported.

    They import torchaudio where it is installed, and fail where it is broken; who only uses the models needs neither.
    Calling it again is harmless.
    """
    if PIPELINES in sys.modules:
        _register_pipeline()
    elif not any(isinstance(finder, _PipelinesFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PipelinesFinder())


class _PipelinesFinder:
    """Finds `transformers.pipelines` as Python does, and registers the task once it is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == PIPELINES else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)  # where this fails, the next attempt comes here again
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            _register_pipeline()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register_pipeline() -> None:
    # The module registers its task at its end, also where it is what imported transformers' pipelines just now.
    importlib.import_module("fast_jukebox.pipelines")


__all__ = ["register_models", "register_task"]
