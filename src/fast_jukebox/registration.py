"""Making the models and the task known to transformers, at no cost to who does not use them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from transformers import AutoConfig, AutoModel

from fast_jukebox.models.fast_jukebox import FastJukeboxModel
from fast_jukebox.models.loading import register_layout
from fast_jukebox.models.prior import FastJukeboxPrior
from fast_jukebox.models.vqvae import FastJukeboxVQVAE
from fast_jukebox.processing import FastJukeboxProcessor

PIPELINES = "transformers.pipelines"
PROCESSORS = "transformers.models.auto.processing_auto"


def register_models() -> None:
    """Make the package's `model_type`s known to `AutoConfig`, `AutoModel` and `AutoProcessor`, and transformers 4's
    layout of Jukebox to `from_pretrained` of ours. Calling it again is harmless.
    """
    for model in (FastJukeboxVQVAE, FastJukeboxPrior, FastJukeboxModel):
        AutoConfig.register(model.config_class.model_type, model.config_class, exist_ok=True)
        AutoModel.register(model.config_class, model, exist_ok=True)
    register_layout("jukebox", _read_jukebox)
    _once_imported(PROCESSORS, _register_processor)


def _read_jukebox(*args: Any, **kwargs: Any) -> Any:
    return importlib.import_module("fast_jukebox.conversion.transformers4").read_model(*args, **kwargs)


def register_task() -> None:
    """Make `pipeline("fast-jukebox")` known, now or as soon as transformers' pipelines are imported.

    They import torchaudio where it is installed, and fail where it is broken; who only uses the models needs neither.
    Calling it again is harmless.
    """
    _once_imported(PIPELINES, _register_pipeline)


def _once_imported(module: str, register: Callable[[], None]) -> None:
    """Call `register` now where a module is imported, or else as soon as it is."""
    if module in sys.modules:
        register()
    elif not any(isinstance(finder, _Finder) and finder.name == module for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(module, register))


class _Finder:
    """Finds a module as Python does, and registers something once it is imported."""

    def __init__(self, name: str, register: Callable[[], None]) -> None:
        self.name, self.register = name, register

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == self.name else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)  # where this fails, the next attempt comes here again
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            self.register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register_processor() -> None:
    auto = importlib.import_module(PROCESSORS).AutoProcessor
    auto.register(FastJukeboxModel.config_class, FastJukeboxProcessor, exist_ok=True)


def _register_pipeline() -> None:
    # The module registers its task at its end, also where it is what imported transformers' pipelines just now.
    importlib.import_module("fast_jukebox.pipelines")
