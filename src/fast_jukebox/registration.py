"""Registration of the models and tasks with transformers, at no cost where they are not used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_AUTO = "transformers.models.auto"
_AUTO_MODULES = ("configuration_auto", "modeling_auto", "processing_auto")
_MODELS = tuple(f"fast_jukebox.models.{name}" for name in ("vqvae", "prior", "fast_jukebox"))
_PACKAGE = "fast_jukebox."
_CLASSES = ("FastJukeboxVQVAE", "FastJukeboxPrior", "FastJukeboxModel")


def register() -> None:
    """Make the package's `model_type`s known to `AutoConfig`, `AutoModel` and `AutoProcessor`, its task to `pipeline`,
    and transformers 4's layout of Jukebox to `from_pretrained` of ours. Calling it again is harmless.

    Each is registered now where the module that keeps it is imported, or else as soon as it is. transformers' pipelines
    import torchaudio where it is installed and fail where it is broken; the models alone need neither.
    """
    for module in (*(f"{_AUTO}.{name}" for name in _AUTO_MODULES), "transformers.modeling_utils"):
        _once_imported(module, _register_models)
    if not any(isinstance(finder, _PackageFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PackageFinder())
    _once_imported("transformers.pipelines", _register_pipeline)
    _once_imported("fast_jukebox.models.loading", _register_layout)


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

    def finds(self, name: str) -> bool:
        """True for a module of this finder."""
        return name == self.name

    def finish(self) -> None:
        """Register, as the module is imported."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        self.register()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As finders have it."""
        spec = PathFinder.find_spec(name, path, target) if self.finds(name) else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)  # where this fails, the next attempt comes here again
            _finished.add(module.__name__)
            self.finish()
            for finder in list(sys.meta_path):
                if isinstance(finder, _PackageFinder) and finder.waiting:
                    finder.register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


class _PackageFinder(_Finder):
    """Finds the package's modules, and registers the models once none of them is half imported that asked for it."""

    def __init__(self) -> None:
        super().__init__(_PACKAGE, _register_models)
        self.waiting = False

    def finds(self, name: str) -> bool:
        """True for a module of the package that is not registered by name."""
        others = (finder for finder in sys.meta_path if type(finder) is _Finder)
        return name.startswith(_PACKAGE) and not any(finder.name == name for finder in others)

    def finish(self) -> None:
        """Nothing: what waits for modules is registered after each."""


def _is_complete(module: str) -> bool:
    """True where a module is imported to its end, or up to what was to happen at its end."""
    found = sys.modules.get(module)
    return found is not None and not (getattr(found.__spec__, "_initializing", False) and module not in _finished)


_finished: set[str] = set()
"""Modules that have run to their end, though their import may be under way still."""


def _register_models() -> None:
    """Register what can be: importing the models imports transformers, which imports its auto classes on the way."""
    ours = [module for module in sys.modules if module.startswith(_PACKAGE) and module != __name__]
    half = any(not _is_complete(module) for module in (*ours, "transformers.modeling_utils") if module in sys.modules)
    for finder in sys.meta_path:
        if isinstance(finder, _PackageFinder):
            finder.waiting = half  # the last of them calls this again
    if half:
        return
    auto = {name: sys.modules[f"{_AUTO}.{name}"] for name in _AUTO_MODULES if _is_complete(f"{_AUTO}.{name}")}
    models = [getattr(importlib.import_module(module), name) for module, name in zip(_MODELS, _CLASSES, strict=True)]
    for model in models:
        if "configuration_auto" in auto:
            auto["configuration_auto"].AutoConfig.register(
                model.config_class.model_type, model.config_class, exist_ok=True
            )
        if "modeling_auto" in auto:
            auto["modeling_auto"].AutoModel.register(model.config_class, model, exist_ok=True)
    if "modeling_auto" in auto:
        auto["modeling_auto"].AutoModelForTextToWaveform.register(models[-1].config_class, models[-1], exist_ok=True)
    if "processing_auto" in auto:
        processor = importlib.import_module("fast_jukebox.processing").FastJukeboxProcessor
        auto["processing_auto"].AutoProcessor.register(models[-1].config_class, processor, exist_ok=True)


def _register_pipeline() -> None:
    # The module registers its task at its end, also where it is what imported transformers' pipelines just now.
    importlib.import_module("fast_jukebox.pipelines")
    importlib.import_module("fast_jukebox.text_to_audio")
    importlib.import_module("fast_jukebox.feature_extraction")


def _register_layout() -> None:
    sys.modules["fast_jukebox.models.loading"].register_layout("jukebox", _read_jukebox)


def _read_jukebox(*args: object, **kwargs: object) -> object:
    return importlib.import_module("fast_jukebox.conversion.transformers4").read_model(*args, **kwargs)
