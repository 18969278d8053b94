"""The classifier of emotional valence: a CNN over slices of a mel spectrogram, and self-attention over the slices."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import MobileNetV2Config, MobileNetV2Model, PreTrainedModel
from transformers.utils import ModelOutput

from fast_jukebox.hub import clear_hub_errors, download_arguments
from fast_jukebox.hub.push_mixin import HubPushMixin
from fast_jukebox.models.configuration_utils import PathLike
from fast_jukebox.models.loading import load_whole
from fast_jukebox.models.valence.configuration_valence import QUADRANTS, ValenceConfig


@dataclass
class ValenceOutput(ModelOutput):
    """Output of a [`ValenceModel`].

    Args:
        loss (float32 `Tensor` ()): mean of both heads' binary cross entropies, where labels were given.
        probabilities (float32 `Tensor` (N, 4)): of the attention head, in the order of `QUADRANTS`; they need not sum
            to 1.
        slice_probabilities (float32 `Tensor` (N, 4)): of the second head, averaged over the slices.
    """

    loss: Tensor | None = None
    probabilities: Tensor | None = None
    slice_probabilities: Tensor | None = None


class ValenceModel(HubPushMixin, PreTrainedModel):
    """The network of Sukhavasi and Adapa (MediaEval 2019) with four outputs in place of 56 tags (paper, section 5.2).

    Each slice goes through two 1x1 convolutions, MobileNetV2 and two more convolutions to one vector; self-attention
    over the slices' vectors gives the output, and a second head on each slice a second loss. Differs from the published
    network in a ReLU between the second head's two layers.
    """

    config: ValenceConfig
    config_class = ValenceConfig
    base_model_prefix = "valence"
    main_input_name = "input_features"

    def __init__(self, config: ValenceConfig) -> None:
        super().__init__(config)
        width, classes = config.hidden_size, len(QUADRANTS)
        self.input_norm = nn.BatchNorm2d(1)
        self.colours = nn.Sequential(nn.Conv2d(1, 10, 1), nn.ReLU(), nn.Conv2d(10, 3, 1), nn.ReLU())
        self.backbone = MobileNetV2Model(
            MobileNetV2Config(depth_multiplier=config.depth_multiplier, finegrained_output=False),
            add_pooling_layer=False,
        )
        channels = self.backbone.conv_1x1.convolution.out_channels
        self.reduce = nn.Sequential(
            nn.Conv2d(channels, 2 * width, 3, padding=1), nn.ReLU(), nn.Conv2d(2 * width, width, 1), nn.ReLU()
        )
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                config.num_attention_heads,
                config.intermediate_size,
                config.hidden_dropout,
                activation="gelu",
                batch_first=True,
            )
            for _ in range(config.num_hidden_layers)
        )
        for layer in self.layers:
            layer.self_attn.dropout = config.attention_dropout  # type: ignore[union-attr]  # a list of Modules
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.pooler = nn.Linear(width, width)
        self.classifier = nn.Linear(width, classes)
        self.slice_classifier = nn.Sequential(
            nn.Dropout(config.hidden_dropout),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(config.hidden_dropout),
            nn.Linear(width, classes),
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Torch's own initialisation is kept: nothing is loaded into weights that were not drawn."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: PathLike, *args: object, **kwargs: Any) -> ValenceModel:
        """Load as [`~transformers.PreTrainedModel.from_pretrained`] does.

        Raises:
            ValueError: the weights lack a tensor: names it, and the file.
            OSError: there is no configuration, or there are no weights.
        """
        load = partial(super().from_pretrained, pretrained_model_name_or_path, *args, **kwargs)
        if pretrained_model_name_or_path is None:
            return load()
        download = download_arguments(kwargs)
        loaded: ValenceModel = load_whole(
            load, pretrained_model_name_or_path, variant=kwargs.get("variant"), **download
        )
        return loaded

    def load_backbone(self, source: str | os.PathLike[str]) -> None:
        """Give MobileNetV2 the weights of a folder or Hub name, such as `google/mobilenet_v2_1.0_224` (ImageNet).

        Raises:
            ValueError: another width than the configuration's `depth_multiplier`.
            OSError: it is not there and cannot be fetched.
        """
        with clear_hub_errors(source):
            found = MobileNetV2Model.from_pretrained(source, add_pooling_layer=False)
        try:
            self.backbone.load_state_dict(found.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"`depth_multiplier` must be that of {source}, {found.config.depth_multiplier}, got "
                f"{self.config.depth_multiplier}"
            ) from error

    def forward(
        self, input_features: Tensor, labels: Tensor | None = None, return_dict: bool | None = None
    ) -> ValenceOutput | tuple[Tensor, ...]:
        """Classify clips.

        Args:
            input_features: (N, bands, frames) as [`ValenceFeatureExtractor`] makes them; frames a multiple of
                `slice_frames`.
            labels: float (N, 4) in [0, 1].
            return_dict: `False` for a tuple.

        Raises:
            ValueError: features of another shape.
        """
        config = self.config
        if (
            input_features.dim() != 3
            or input_features.shape[1] != config.num_mel_bins
            or input_features.shape[2] == 0
            or input_features.shape[2] % config.slice_frames
        ):
            raise ValueError(
                f"`input_features` must have the shape (N, {config.num_mel_bins}, a multiple of "
                f"{config.slice_frames}), got {tuple(input_features.shape)}"
            )
        batch = input_features.shape[0]
        slices = input_features.unflatten(2, (-1, config.slice_frames)).transpose(1, 2)  # (N, slices, bands, frames)
        count = slices.shape[1]
        images = self.colours(self.input_norm(slices.flatten(0, 1)[:, None]))
        maps = self.reduce(self.backbone(pixel_values=images).last_hidden_state)
        vectors = maps.amax(dim=(2, 3)).unflatten(0, (batch, count))  # (N, slices, width)
        hidden = vectors + positions(count, config.hidden_size).to(vectors)
        for layer in self.layers:
            hidden = layer(hidden)
        pooled = torch.tanh(self.pooler(hidden[:, 0]))
        logits = self.classifier(self.dropout(pooled)).float()
        by_slice = self.slice_classifier(vectors).float().sigmoid().mean(dim=1)
        loss = None
        if labels is not None:
            first = F.binary_cross_entropy_with_logits(logits, labels.float())
            loss = (first + F.binary_cross_entropy(by_slice.clamp(1e-6, 1 - 1e-6), labels.float())) / 2
        output = ValenceOutput(loss=loss, probabilities=logits.sigmoid(), slice_probabilities=by_slice)
        return output.to_tuple() if return_dict is False else output


def positions(count: int, width: int) -> Tensor:
    """Sinusoidal positions (count, width) of Vaswani et al. (2017); position 0 is zero, as in the published network."""
    angles = torch.arange(count)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    table = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]
    table[0] = 0
    return table
