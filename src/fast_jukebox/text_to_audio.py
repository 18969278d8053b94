"""transformers' task `text-to-audio`, and `pipeline(model=...)` without a task, for models of this package."""

from __future__ import annotations

import functools
import os
from abc import abstractmethod
from collections.abc import Sequence

import transformers.pipelines
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import AutoTokenizer, Pipeline, PreTrainedConfig, PreTrainedModel
from transformers.pipelines import PIPELINE_REGISTRY

from fast_jukebox.hub import HubError, prefer_cache
from fast_jukebox.models.fast_jukebox.modeling_fast_jukebox import FastJukeboxModel
from fast_jukebox.models.loading import COMPOSITE_MODEL_TYPE

_TASK = "text-to-audio"
_PREPROCESSORS = ("tokenizer", "processor", "feature_extractor", "image_processor", "video_processor")


class OwnOrTheirs:
    """The pipeline of a task that transformers has too: ours for models of this package, its own for all others.

    `transformers.pipeline` chooses the class before it has the model, so this chooses once it is there.

    Args:
        model: what was loaded.
        kwargs: of the pipeline's class.
    """

    _load_tokenizer = None  # models of this package have none: tried, and missed below where one is needed
    _load_processor: bool | None = None
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __new__(cls, model: PreTrainedModel, **kwargs: object) -> Pipeline:  # type: ignore[misc]  # that is what it is for
        ours, theirs = cls.classes()
        if isinstance(model, FastJukeboxModel):
            return ours(model, **{name: value for name, value in kwargs.items() if name not in _PREPROCESSORS})
        if kwargs.get("tokenizer") is None and theirs._load_tokenizer:
            if not getattr(model, "name_or_path", None):
                raise ValueError("`tokenizer` must be given with a model that was not loaded by its name")
            kwargs["tokenizer"] = AutoTokenizer.from_pretrained(model.name_or_path)  # says why it is not there
        return theirs(model=model, **kwargs)

    @staticmethod
    @abstractmethod
    def classes() -> Sequence[type[Pipeline]]:
        """Our class and transformers'."""


class TextToAudio(OwnOrTheirs):
    """The pipeline of the task `text-to-audio`: a [`FastJukeboxPipeline`] for models of this package."""

    @staticmethod
    def classes() -> Sequence[type[Pipeline]]:
        from transformers import TextToAudioPipeline

        from fast_jukebox.pipelines import FastJukeboxPipeline

        return FastJukeboxPipeline, TextToAudioPipeline


def register_task(task: str, chooser: type[OwnOrTheirs]) -> None:
    """Let `transformers.pipeline(task)` choose between our pipeline and its own. Calling it again is harmless."""
    known = PIPELINE_REGISTRY.supported_tasks
    if task in known and known[task]["impl"] is not chooser:
        known[task] = {**known[task], "impl": chooser}


def register_text_to_audio() -> None:
    """Let transformers find the pipeline of this package's models: by `pipeline("text-to-audio", model=...)` and by
    `pipeline(model=...)`, for which it asks the Hub, also where the model is a folder. Calling it again is harmless.
    """
    register_task(_TASK, TextToAudio)
    ask = transformers.pipelines.get_task
    if hasattr(ask, "__wrapped__"):
        return

    @functools.wraps(ask)
    def get_task(model: str, *args: object, **kwargs: object) -> str:
        return "fast-jukebox" if _is_ours(model) else ask(model, *args, **kwargs)

    transformers.pipelines.get_task = get_task

    resolve = transformers.pipelines.resolve_revision

    @functools.wraps(resolve)
    def resolve_revision(name: object, *args: object, **kwargs: object) -> str | None:
        try:
            if not os.path.isdir(str(name)):
                validate_repo_id(str(name))
        except HFValidationError as error:
            raise HubError(
                f"Cannot load the model `{name}`: there is no such folder here, and a repository's name is such as "
                "'organisation/name'."
            ) from error
        where = ("cache_dir", "local_files_only")
        prefer_cache(name, {key: value for key, value in kwargs.items() if key in where})  # says at once what is wrong
        return resolve(name, *args, **kwargs)

    transformers.pipelines.resolve_revision = resolve_revision


def _is_ours(model: str) -> bool:
    """True for a folder, or a repository whose `config.json` was fetched just before, with a model of this package."""
    try:
        config = PreTrainedConfig.get_config_dict(model, local_files_only=True)[0]
    except (OSError, ValueError):
        return False
    return str(config.get("model_type")).startswith(COMPOSITE_MODEL_TYPE)


register_text_to_audio()
