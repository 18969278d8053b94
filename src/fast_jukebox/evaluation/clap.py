"""CLAP (Wu et al. 2023): how well sound fits a text, and an embedding of sound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.evaluation.distance import Estimate, bootstrap_mean
from fast_jukebox.evaluation.embeddings import (
    EmbeddingSet,
    Sound,
    check_audio,
    cut_windows,
    embed_songs,
    in_batches,
    load_complete,
    model_slug,
)
from fast_jukebox.hub import clear_hub_errors
from fast_jukebox.sessions.fingerprint import weights_digest

if TYPE_CHECKING:
    from transformers import ClapFeatureExtractor, ClapModel, PreTrainedTokenizerBase


class Clap:
    """A `ClapModel` of transformers: an [`~fast_jukebox.evaluation.embeddings.AudioEmbedding`] that embeds texts too.

    Windows of the length that the model was trained on (10 s mostly) lie side by side. Sound that is shorter is
    repeated by the feature extractor, as in training; of longer sound the rest at the end is left out.
    """

    def __init__(
        self,
        model: ClapModel,
        feature_extractor: ClapFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        device: str | torch.device = "cpu",
    ) -> None:
        self.name, self.device = name, torch.device(device)
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.feature_extractor, self.tokenizer = feature_extractor, tokenizer
        self.version = weights_digest(model)[:12]
        self.sampling_rate = int(feature_extractor.sampling_rate)
        self.dimensions = int(model.config.projection_dim)
        self.longest_samples = int(feature_extractor.nb_max_samples)
        self.window_samples = min(self.sampling_rate, self.longest_samples)

    @classmethod
    def from_pretrained(cls, source: str, device: str | torch.device = "cpu") -> Clap:
        """Load a model by its folder or Hub name, such as `laion/larger_clap_music`.

        Raises:
            ValueError: it is no CLAP model.
            OSError: it is not there and cannot be fetched.
        """
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

        with clear_hub_errors(source):
            model = load_complete(ClapModel, source, "a CLAP model")
            parts = ClapFeatureExtractor.from_pretrained(source), AutoTokenizer.from_pretrained(source)
        return cls(model, *parts, model_slug("clap", source), device)

    @torch.no_grad()
    def __call__(self, audio: Tensor) -> Tensor:
        """Vectors (N, windows, D) of length 1 of sound (N, T) at the model's rate.

        Raises:
            ValueError: another shape, or sound shorter than a second.
        """
        check_audio(audio, self.window_samples, self.sampling_rate)
        windows = cut_windows(audio.float(), min(self.longest_samples, audio.shape[1]))
        return in_batches(self._embed_windows, windows)

    def _embed_windows(self, windows: Tensor) -> Tensor:
        inputs = self.feature_extractor(
            list(windows.cpu().numpy()), sampling_rate=self.sampling_rate, return_tensors="pt"
        )
        # Models with fusion would have one window of each batch, drawn at random, taken for a longer one.
        longer = torch.zeros(len(windows), 1, dtype=torch.bool, device=self.device)
        features = inputs["input_features"].to(self.device)
        return self.model.get_audio_features(features, is_longer=longer).pooler_output

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Vectors (N, D) of length 1 of texts."""
        inputs = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        inputs = {name: inputs[name].to(self.device) for name in ("input_ids", "attention_mask")}
        return F.normalize(self.model.get_text_features(**inputs).pooler_output, dim=-1).cpu()


def clap_score(
    clap: Clap,
    sounds: Sequence[Sound],
    texts: Sequence[str] | str,
    *,
    sampling_rate: int | None = None,
    duration: float | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Estimate:
    """Mean cosine of the embeddings of sounds and of their texts, from -1 to 1, with an interval over the songs.

    Args:
        clap: the model; state its name with every score.
        sounds: files, or samples (T,) at `sampling_rate` in Hz. A song of several windows counts once, with their mean.
        texts: one for each sound, or one for all.
        duration: seconds from the start of each song.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: no sounds, another number of texts, an empty text, or sound that cannot be used.
    """
    if isinstance(texts, str):
        texts = [texts] * len(sounds)
    if not len(sounds) or len(texts) != len(sounds):
        raise ValueError(f"`texts` must be one for each of the sounds, got {len(texts)} for {len(sounds)}")
    if any(not text.strip() for text in texts):
        raise ValueError("`texts` must not be empty, got one of no words")
    found = embed_songs(clap, sounds, sampling_rate=sampling_rate, duration=duration)
    return mean_cosine(found, clap.embed_texts(texts), resamples, seed)


def mean_cosine(found: EmbeddingSet, texts: Tensor, resamples: int = 200, seed: int = 0) -> Estimate:
    """Mean cosine of the embeddings of songs and of their texts (songs, D), all of length 1, with an interval over the
    songs; each song's windows are averaged.
    """
    cosines = (found.windows * texts[found.songs]).sum(dim=1).double()
    windows = torch.bincount(found.songs, minlength=len(texts))
    values = torch.zeros(len(texts), dtype=torch.float64).index_add_(0, found.songs, cosines) / windows
    return bootstrap_mean(values, resamples, seed)
