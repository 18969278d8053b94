"""transformers' task `feature-extraction` for models of this package: recordings to states of a prior's layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from transformers import Pipeline

from fast_jukebox.audio.io import load_audio
from fast_jukebox.models.fast_jukebox.modeling_fast_jukebox import FastJukeboxModel
from fast_jukebox.models.prior.features_prior import PriorFeatures
from fast_jukebox.sampling.checks import check_device
from fast_jukebox.text_to_audio import OwnOrTheirs, register_task

_TASK = "feature-extraction"
_ARGUMENTS = ("level", "layers", "frame_rate", "pool", "overlap", "metadata", "progress")


class FeaturesOutput(TypedDict):
    """Output of a call of [`FastJukeboxFeaturePipeline`] for one recording.

    features: float32 arrays by layer: (frames, W), or (W,) where they are pooled.
    frame_rate: frames a second; `None` where they are pooled.
    level: of the prior, 0 is the bottom.
    teacher_layers: of a distilled prior the teacher's layer that each learnt from, else `None`.
    """

    features: dict[int, np.ndarray]
    frame_rate: float | None
    level: int
    teacher_layers: dict[int, int] | None


class FastJukeboxFeaturePipeline(Pipeline):
    """Features of recordings of any length and format.

    Example:
        ```python
        >>> import fast_jukebox
        >>> from transformers import pipeline
        >>> from fast_jukebox.models.loading import default_model_path

        >>> extract = pipeline("feature-extraction", model=str(default_model_path()), layers=[5], frame_rate=10)
        >>> extract("song.flac")["features"][5]  # (frames, width)
        ```

    Args:
        model ([`FastJukeboxModel`]): the model.
        device: where to run; `"auto"` is the same as leaving it out.
        kwargs: those of [`~transformers.Pipeline`], and defaults for the arguments of a call: `level`, `layers`,
            `frame_rate`, `pool`, `overlap`, `metadata` and `progress`, as
            [`~fast_jukebox.models.fast_jukebox.features_fast_jukebox.FastJukeboxFeaturesMixin.features`] takes them.

    Raises:
        ValueError: the model is no complete Fast Jukebox model, or the device is not there.
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(
        self, model: FastJukeboxModel, *args: object, device: str | int | torch.device | None = None, **kwargs: object
    ) -> None:
        super().__init__(model, *args, device=check_device(device), **kwargs)

    def __call__(  # type: ignore[override]  # the base class takes any input
        self, inputs: object, **arguments: object
    ) -> FeaturesOutput | list[FeaturesOutput]:
        """Features of a recording, or of each of a list, data set or generator of them.

        Args:
            inputs: a path, the bytes of a file, samples at the model's sampling rate, or a dictionary `{"array" or
                "raw", "sampling_rate"}`.
            arguments: in place of the pipeline's.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
        """
        result: FeaturesOutput | list[FeaturesOutput] = super().__call__(inputs, **arguments)
        return result

    def _sanitize_parameters(self, **kwargs: object) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
        for name in kwargs:
            if name not in _ARGUMENTS:
                raise ValueError(f"`{name}` is no argument of {_TASK!r}; there are {', '.join(_ARGUMENTS)}")
        return {}, kwargs, {}

    def preprocess(self, inputs: object) -> dict[str, Tensor]:
        """The recording as samples (T,) at the model's sampling rate."""
        if isinstance(inputs, dict) and "raw" in inputs:
            inputs = {"array": inputs["raw"], "sampling_rate": inputs.get("sampling_rate")}
        rate = self.model.vqvae.config.sampling_rate
        return {"audio": load_audio(inputs, sampling_rate=rate, source_rate=rate)}

    def _forward(self, model_inputs: dict[str, Tensor], **arguments: object) -> dict[str, PriorFeatures]:
        return {"found": self.model.features(model_inputs["audio"], **arguments)}

    def forward(self, model_inputs: dict[str, Tensor], **arguments: object) -> dict[str, PriorFeatures]:
        """See [`~transformers.Pipeline.forward`]; the model moves what it reads to its device, part by part."""
        return self._forward(model_inputs, **arguments)

    def postprocess(self, model_outputs: dict[str, PriorFeatures]) -> FeaturesOutput:
        """The features of one recording as the caller gets them."""
        found = model_outputs["found"]
        return FeaturesOutput(
            features={layer: states[0].numpy() for layer, states in found.layers.items()},
            frame_rate=found.frame_rate,
            level=found.level,
            teacher_layers=found.teacher_layers,
        )

    def get_iterator(
        self,
        inputs: Iterable[object],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, object],
        forward_params: dict[str, object],
        postprocess_params: dict[str, object],
    ) -> object:
        """Results in the order of the inputs, one by one."""
        return (self.run_single(item, preprocess_params, forward_params, postprocess_params) for item in inputs)


class FeatureExtraction(OwnOrTheirs):
    """The pipeline of the task `feature-extraction`: a [`FastJukeboxFeaturePipeline`] for models of this package,
    transformers' own for all others.
    """

    _load_processor = False

    @staticmethod
    def classes() -> Sequence[type[Pipeline]]:
        from transformers import FeatureExtractionPipeline

        return FastJukeboxFeaturePipeline, FeatureExtractionPipeline


register_task(_TASK, FeatureExtraction)
