"""Encoders of transformers as embeddings: EnCodec, DAC and MERT, averaged over windows."""

from __future__ import annotations

import torch
from torch import Tensor

from fast_jukebox.evaluation.embeddings import cut_windows, in_batches, load_complete, model_slug
from fast_jukebox.hub import clear_hub_errors
from fast_jukebox.sessions.fingerprint import weights_digest

WINDOW_SECONDS = {"encodec": 1.0, "dac": 1.0, "mert": 5.0}
"""Length of a window by the kind of encoder; frames within it are averaged."""


class EncoderEmbedding:
    """The continuous output of a pretrained encoder, before any quantisation, as an embedding.

    One vector is the mean over a window of [`WINDOW_SECONDS`]: of `encoder(audio)` of EnCodec and DAC, of the last
    hidden states of MERT. Other packages compare single frames; their distances are not comparable.

    Args:
        kind: `"encodec"`, `"dac"` or `"mert"`.
        model: an `EncodecModel`, a `DacModel`, or for MERT a `HubertModel`.
        name: of the numbers made with it.
        sampling_rate: that it hears, in Hz.
        normalize: bring each window to mean 0 and variance 1 first.
        device: where it computes.
    """

    def __init__(
        self,
        kind: str,
        model: torch.nn.Module,
        name: str,
        sampling_rate: int,
        normalize: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        if kind not in WINDOW_SECONDS:
            raise ValueError(f"`kind` must be one of {', '.join(WINDOW_SECONDS)}, got {kind!r}")
        self.kind, self.name, self.sampling_rate, self.normalize = kind, name, sampling_rate, normalize
        self.device = torch.device(device)
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.version = weights_digest(model)[:12]
        self.window_samples = round(WINDOW_SECONDS[kind] * sampling_rate)
        self.dimensions = self._frames(torch.zeros(1, self.window_samples, device=self.device)).shape[1]

    @classmethod
    def from_pretrained(cls, kind: str, source: str, device: str | torch.device = "cpu") -> EncoderEmbedding:
        """Load a model by its folder or Hub name. Code that lies beside the weights is never run.

        Raises:
            ValueError: weights are missing: it is another kind of model.
            OSError: it is not there and cannot be fetched.
        """
        from transformers import AutoFeatureExtractor, DacModel, EncodecModel, HubertModel

        # MERT's repositories bring their own code; its network is HuBERT's.
        model_class = {"encodec": EncodecModel, "dac": DacModel, "mert": HubertModel}[kind]
        with clear_hub_errors(source):
            model = load_complete(model_class, source, f"a model of the kind {kind}")
            facts, normalize = model.config, False
            if kind == "mert":
                facts = AutoFeatureExtractor.from_pretrained(source)
                normalize = facts.do_normalize
        return cls(kind, model, model_slug(kind, source), int(facts.sampling_rate), normalize, device)

    def _frames(self, windows: Tensor) -> Tensor:
        """(N, D, frames) of windows (N, samples)."""
        if self.kind == "mert":
            return self.model(windows).last_hidden_state.transpose(1, 2)
        return self.model.get_submodule("encoder")(windows[:, None])

    @torch.no_grad()
    def __call__(self, audio: Tensor) -> Tensor:
        windows = cut_windows(audio.float(), self.window_samples)
        if self.normalize:
            centred = windows - windows.mean(dim=2, keepdim=True)
            windows = centred / (windows.var(dim=2, keepdim=True, correction=0) + 1e-7).sqrt()
        return in_batches(lambda batch: self._frames(batch.to(self.device)).mean(dim=2), windows)
