"""The task `fast-jukebox` of transformers' `pipeline`: a call, and there is music."""

from __future__ import annotations

import difflib
import itertools
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypedDict, TypeGuard, cast

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel, GenerationConfig, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import ModelOutput

from fast_jukebox.audio.io import load_audio
from fast_jukebox.data.scanning import AUDIO_SUFFIXES
from fast_jukebox.generation.request import FIELDS, Metadata, SongRequest, request_arguments
from fast_jukebox.generation.windows import check_duration
from fast_jukebox.models.adapters import load_adapters
from fast_jukebox.models.fast_jukebox import FastJukeboxModel
from fast_jukebox.models.loading import default_model_path
from fast_jukebox.processing.processor import text_song
from fast_jukebox.sampling.checks import check_count, check_device, fresh_seed
from fast_jukebox.sampling.progress import ProgressBars, ProgressCallback
from fast_jukebox.utils.text import shown

TASK = "fast-jukebox"
"""Name of the task."""

Recording = str | os.PathLike[str] | bytes | np.ndarray | Tensor | dict[str, object]
"""A recording: a path, the bytes of a file, samples at the model's sampling rate, or `{"array" or "raw",
"sampling_rate"}`."""

_AUDIO_KEYS = {"array", "raw", "bytes", "path"}
_CONTEXT_SECONDS = 1.0
"""Seconds of a prompt that are read after `prompt_duration`, as its last codes depend on what follows."""


class FastJukeboxPipelineOutput(TypedDict, total=False):
    """Output of a call of [`FastJukeboxPipeline`] for one input.

    audio: float32 numpy array (samples,), or (songs, samples) where the input asks for several songs.
    sampling_rate: samples a second.
    metadata: of a model with labels that was asked for no artist, no genre or neither: what the song got, with those
        that were drawn; a dictionary, or a list of them for several songs.
    seed: with `return_details=True`: the seed that makes the same song again.
    dropped_lyrics: with `return_details=True`: of each song whose `metadata` is in words, the characters of its lyrics
        that the vocabulary cannot spell.
    engines: with `return_details=True`: what ran the steps of each level, bottom first, `None` where not sampled.
    codes: with `return_details=True`: int64 tensors (songs, length) of each level, bottom first, `None` where not made.
    """

    audio: np.ndarray
    sampling_rate: int
    metadata: dict[str, object] | list[dict[str, object]]
    seed: int | list[int]
    codes: list[Tensor | None]
    dropped_lyrics: list[str] | None
    engines: list[str | None] | None


class SongOutput(TypedDict):
    """Output of the model for one input, of N songs."""

    audio: Tensor
    sampling_rate: int
    seed: int | list[int]
    codes: list[Tensor | None]
    dropped_lyrics: list[str] | None
    engines: list[str | None]
    metadata: list[dict[str, object]] | None


class FastJukeboxPipeline(Pipeline):
    """Music generation with any [`FastJukeboxModel`].

    Example:
        ```python
        >>> import fast_jukebox
        >>> from transformers import pipeline

        >>> jukebox = pipeline("fast-jukebox")
        >>> song = jukebox(duration=60, seed=0)
        >>> song["audio"], song["sampling_rate"]

        >>> continued = jukebox("recording.flac", prompt_duration=5, duration=20)
        >>> several = jukebox([{"duration": 5, "seed": 1}, {"duration": 6, "seed": 2}], temperature=0.98)
        ```

    Args:
        model ([`FastJukeboxModel`]): the model; `pipeline("fast-jukebox", model=...)` takes the name of a repository or
            folder, and the model inside the package where none is given.
        device: where to run, as in [`~transformers.Pipeline`]; `"auto"` is the same as leaving it out.
        adapters: folder or Hub name of an adapter (LoRA) by level, to merge into the model's priors.
        kwargs: those of [`~transformers.Pipeline`], and defaults for the arguments of a call.

    Raises:
        ValueError: the model is no complete Fast Jukebox model, or the device is not there.
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(
        self,
        model: FastJukeboxModel,
        *args: object,
        device: str | int | torch.device | None = None,
        adapters: Mapping[int, str | os.PathLike[str]] | None = None,
        **kwargs: object,
    ) -> None:
        if not isinstance(model, FastJukeboxModel):
            raise ValueError(
                f"`model` must be a FastJukeboxModel (a VQ-VAE and its priors) for the task {TASK!r}, got "
                f"{type(model).__name__}"
            )
        if adapters:
            load_adapters(model, adapters)
        super().__init__(model, *args, device=check_device(device), **kwargs)

    @request_arguments(without=["prompt", "progress"])
    def __call__(  # type: ignore[override]  # the base class takes any keyword
        self,
        inputs: object = None,
        *,
        duration: float | None = None,
        num_samples: int | None = None,
        prompt: Recording | None = None,
        prompt_duration: float | None = None,
        codes: Sequence[Tensor | None] | None = None,
        start_level: int | None = None,
        stop_level: int | None = None,
        metadata: Metadata | None = None,
        seed: int | Sequence[int] | None = None,
        schedule: str | Sequence[str | None] | None = None,
        window_fractions: float | Sequence[float | None] | None = None,
        hop_fractions: float | Sequence[float | None] | None = None,
        temperature: float | Sequence[float] | None = None,
        top_k: int | Sequence[int] | None = None,
        top_p: float | Sequence[float] | None = None,
        do_sample: bool | Sequence[bool] | None = None,
        progress: ProgressCallback | bool | None = None,
        song_ids: Sequence[int] | None = None,
        max_batch_size: int | None = None,
        engine: str | None = None,
        generation_config: GenerationConfig | None = None,
        forward_params: Mapping[str, object] | None = None,
        generate_kwargs: Mapping[str, object] | None = None,
        return_details: bool | None = None,
        batch_size: int | None = None,
        num_workers: int | None = None,
    ) -> object:
        """Make songs.

        An argument that is `None` is as it was given when the pipeline was made, else as in
        [`FastJukeboxGenerationMixin.generate`].

        Args:
            inputs: nothing; or a recording to continue (a path, the bytes of a file, an array at the model's sampling
                rate, or a dictionary `{"array" or "raw", "sampling_rate"}`); or a text, where no file is called so: a
                genre, an artist, or `"GENRE by ARTIST"`, for models with lyrics also the words that are sung; or a
                dictionary of the arguments below; or a list, dataset or generator of such. A dictionary's own
                arguments go before those of the call.
            prompt: a recording, as in `inputs`.
            {request}
            progress: `True` and `False` show bars or none, `None` shows them on terminals and in notebooks; a function
                is called with a [`GenerationProgress`].
            forward_params: further arguments by name, as transformers' `text-to-audio` takes them.
            generate_kwargs: the same; they go before `forward_params`.
            return_details: return `seed`, `codes`, `engines` and `dropped_lyrics` too; not by default.
            batch_size: how many inputs of a list to sample at once, where they differ in their seed only; 1 by default.
            num_workers: has no effect; inputs are read by this process.

        Returns:
            A [`FastJukeboxPipelineOutput`], or a list of them for a list, or an iterator for a dataset or generator.

        Raises:
            ValueError: naming the argument that is wrong, before anything is sampled.
        """
        arguments = {
            "duration": duration,
            "num_samples": num_samples,
            "prompt": prompt,
            "prompt_duration": prompt_duration,
            "codes": codes,
            "start_level": start_level,
            "stop_level": stop_level,
            "metadata": metadata,
            "seed": seed,
            "schedule": schedule,
            "window_fractions": window_fractions,
            "hop_fractions": hop_fractions,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "do_sample": do_sample,
            "progress": progress,
            "song_ids": song_ids,
            "max_batch_size": max_batch_size,
            "engine": engine,
            "generation_config": generation_config,
            "return_details": return_details,
            "batch_size": batch_size,
            "num_workers": num_workers,
        }
        if batch_size is not None:
            check_count("batch_size", batch_size)
        if isinstance(inputs, list) and not inputs:
            return []
        if _is_hub_dataset(inputs):  # transformers knows those of torch only
            inputs = (row for row in inputs)
        named = {**(forward_params or {}), **(generate_kwargs or {})}
        given = {**named, **{name: value for name, value in arguments.items() if value is not None}}
        return super().__call__({} if inputs is None else inputs, **given)

    def _sanitize_parameters(self, **kwargs: object) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
        forward = {"progress": kwargs.pop("progress")} if "progress" in kwargs else {}
        postprocess = {"return_details": kwargs.pop("return_details")} if "return_details" in kwargs else {}
        return _checked_arguments(kwargs), forward, postprocess

    def preprocess(self, inputs: object, **arguments: object) -> dict[str, list[SongRequest]]:
        """The request of one input, its recording read, under `"requests"`."""
        given = {**arguments, **self._arguments_of(inputs, arguments)}
        if given.get("prompt") is not None:
            given["prompt"] = self._read_prompt(given["prompt"], given.get("prompt_duration"))
        if given.get("seed") is None:
            given["seed"] = fresh_seed()
        return {"requests": [SongRequest(**given)]}  # type: ignore[arg-type]  # which checks its values

    def _arguments_of(self, inputs: object, others: dict[str, object]) -> dict[str, object]:
        """One input as arguments of `generate`."""
        if isinstance(inputs, dict) and not _AUDIO_KEYS & inputs.keys():
            return _checked_arguments(inputs)
        if not isinstance(inputs, str) or _is_recording(inputs):
            return {"prompt": inputs}
        metadata = others.get("metadata")
        if metadata is not None and not isinstance(metadata, dict):
            raise ValueError("a text must not be given with `metadata` of several songs or in label vectors")
        return {"metadata": {**text_song(getattr(self.model, "processor", None), inputs), **(metadata or {})} or None}

    def _read_prompt(self, prompt: object, prompt_duration: object) -> Tensor:
        wanted = None
        if prompt_duration is not None:
            wanted = check_duration("prompt_duration", prompt_duration) + _CONTEXT_SECONDS
        if isinstance(prompt, str):
            _check_recording(prompt)
        if isinstance(prompt, tuple):
            raise ValueError(
                "`prompt` must be a path, a file's bytes, an array or a dict, got a tuple: of a rate and an array give "
                '{"array": floats in [-1, 1], "sampling_rate": rate}'
            )
        if isinstance(prompt, dict):
            misplaced = [name for name in _ARGUMENTS if name in prompt]
            if misplaced:
                raise ValueError(
                    f"`{misplaced[0]}` must not stand beside a recording's keys, where it would be overlooked: give "
                    f"the recording as `prompt`, or the argument to the call; got the keys "
                    f"{', '.join(map(repr, prompt))}"
                )
            if "raw" in prompt:
                prompt = {"array": prompt["raw"], "sampling_rate": prompt.get("sampling_rate")}
        rate = self.model.vqvae.config.sampling_rate
        return load_audio(prompt, sampling_rate=rate, duration=wanted, source_rate=rate)

    def _forward(
        self, model_inputs: dict[str, list[SongRequest]], progress: ProgressCallback | bool | None = None
    ) -> dict[str, list[SongOutput]]:
        requests = model_inputs["requests"]
        outputs: dict[int, SongOutput] = {}
        for group in _groups(requests):
            request = requests[group[0]]
            if len(group) > 1:
                request = replace(request, seed=[cast(int, requests[index].seed) for index in group])  # see `_groups`
            made = self._generate(request, progress)
            for row, index in enumerate(group):
                part = slice(row, row + 1) if len(group) > 1 else slice(None)
                outputs[index] = {
                    "audio": made.audio[part],
                    "sampling_rate": made.sampling_rate,
                    "seed": cast("int | list[int]", requests[index].seed),
                    "codes": [None if codes is None else codes[part] for codes in made.codes],
                    "dropped_lyrics": made.dropped_lyrics,
                    "engines": made.engines,
                    "metadata": None if made.metadata is None else made.metadata[part],
                }
        return {"outputs": [outputs[index] for index in range(len(requests))]}

    def _generate(self, request: SongRequest, progress: ProgressCallback | bool | None) -> ModelOutput:
        arguments = request.arguments()
        if callable(progress):
            return self.model.generate(**arguments, progress=progress)
        with ProgressBars(progress) as bars:
            return self.model.generate(**arguments, progress=bars)

    def postprocess(
        self, model_outputs: dict[str, list[SongOutput]], return_details: bool = False
    ) -> FastJukeboxPipelineOutput:
        """The first song of a batch as the caller gets it."""
        (output,) = model_outputs["outputs"]
        audio = output["audio"].float().numpy()
        result = FastJukeboxPipelineOutput(
            audio=audio[0] if len(audio) == 1 else audio, sampling_rate=output["sampling_rate"]
        )
        if (drawn := output["metadata"]) is not None:
            result["metadata"] = drawn[0] if len(drawn) == 1 else drawn
        if return_details:
            result["seed"], result["codes"] = output["seed"], output["codes"]
            result["dropped_lyrics"] = output["dropped_lyrics"]
            result["engines"] = output["engines"]
        return result

    def get_iterator(
        self,
        inputs: Iterable[object],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, object],
        forward_params: dict[str, object],
        postprocess_params: dict[str, bool],
    ) -> Iterator[FastJukeboxPipelineOutput]:
        """Results in the order of the inputs, of which `batch_size` are prepared and sampled together."""
        items = iter(inputs)
        while batch := list(itertools.islice(items, batch_size)):
            prepared = [self.preprocess(item, **preprocess_params) for item in batch]
            merged = {"requests": [request for entry in prepared for request in entry["requests"]]}
            for output in self.forward(merged, **forward_params)["outputs"]:
                yield self.postprocess({"outputs": [output]}, **postprocess_params)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: object) -> None:
        """Save the model without code: loading it needs this package and no trust."""
        self.model.save_pretrained(save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: object) -> str:
        """Push the model as its own `push_to_hub` does: with a card that states a licence."""
        return self.model.push_to_hub(repo_id, **kwargs)


_ARGUMENTS = tuple(name for name in FIELDS if name != "progress")


def _checked_arguments(arguments: dict[str, object]) -> dict[str, object]:
    for name in arguments:
        if name not in _ARGUMENTS:
            nearest = difflib.get_close_matches(str(name), _ARGUMENTS, n=1, cutoff=0.0)[0]
            raise ValueError(f"`{name}` is no argument of the pipeline {TASK!r}; did you mean `{nearest}`?")
    return arguments


def _check_recording(path: str) -> None:
    """Raise a `ValueError` for an address or a text where the path of a recording is expected."""
    if "://" in path:
        raise ValueError(f"`prompt` must be a local recording, got the address {shown(path)}: download it first")
    if not os.path.lexists(os.path.expanduser(path)):
        raise ValueError(
            f"`prompt` must be a recording, and there is no file {shown(path)}. Say what is known of the song by "
            '`metadata={"artist": ..., "genre": ..., "lyrics": ...}`'
        )


def _is_recording(text: str) -> bool:
    """True for a text that is meant as the path or the address of a recording, which may be missing."""
    if "://" in text or os.path.splitext(text)[1].lower() in AUDIO_SUFFIXES:
        return True
    try:
        return os.path.lexists(os.path.expanduser(text))
    except (OSError, ValueError):  # a text is not bound to be a path
        return False


def _is_hub_dataset(inputs: object) -> TypeGuard[Iterable[object]]:
    """True for a data set of `datasets`, which need not be installed."""
    datasets = sys.modules.get("datasets")
    return datasets is not None and isinstance(inputs, datasets.Dataset | datasets.IterableDataset)


def _groups(requests: list[SongRequest]) -> list[list[int]]:
    """Indices of requests to sample together: for one song each, from nothing, that differ in the seed only."""
    groups: dict[object, list[int]] = {}
    for index, request in enumerate(requests):
        others = request.arguments()
        alone = not isinstance(others.pop("seed"), int) or request.num_samples != 1
        alone = alone or not others.keys().isdisjoint(("prompt", "codes", "metadata", "song_ids"))
        key = tuple(sorted((name, repr(value)) for name, value in others.items()))
        groups.setdefault(index if alone else key, []).append(index)
    return list(groups.values())


def register_pipeline() -> None:
    """Make `transformers.pipeline("fast-jukebox")` known; importing this module does. Calling it again is harmless."""
    if PIPELINE_REGISTRY.supported_tasks.get(TASK, {}).get("impl") is FastJukeboxPipeline:
        return
    PIPELINE_REGISTRY.register_pipeline(
        TASK,
        pipeline_class=FastJukeboxPipeline,
        pt_model=AutoModel,
        default={"model": (str(default_model_path()), None)},
        type="audio",
    )
    logging.getLogger("transformers.pipelines").addFilter(_names_no_default)


def _names_no_default(record: logging.LogRecord) -> bool:
    """False for transformers' advice to name a model, which the model inside the package does not need."""
    return str(default_model_path()) not in record.getMessage()


register_pipeline()
