"""Embeddings by name; encoders of transformers (EnCodec, DAC and MERT, averaged over windows) and VGGish as embeddings.

VGGish (Hershey et al. 2017), that of the first Frechet audio distance, is read from a file that the user has.
"""

from __future__ import annotations

import os

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from fast_jukebox.evaluation.clap import Clap
from fast_jukebox.evaluation.embeddings import (
    AudioEmbedding,
    check_audio,
    cut_windows,
    in_batches,
    load_complete,
    model_slug,
)
from fast_jukebox.evaluation.musicnn import MusicnnEmbedding
from fast_jukebox.hub import clear_hub_errors
from fast_jukebox.sessions.fingerprint import weights_digest
from fast_jukebox.utils.text import shown

WINDOW_SECONDS = {"encodec": 1.0, "dac": 1.0, "mert": 5.0}
"""Length of a window by the kind of encoder; frames within it are averaged."""

# Of VGGish.
SAMPLING_RATE = 16000
_FRAMES = 96
_HOP, _WINDOW, _FFT = 160, 400, 512
_BATCH_WINDOWS = 32


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
            raise ValueError(f"`kind` must be one of {', '.join(WINDOW_SECONDS)}, got {shown(kind)}")
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


class VGGish(nn.Module):
    """The network, with the names of its weights in torch's published layout."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width, convolutions in ((64, 1), (128, 1), (256, 2), (512, 2)):
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            *(nn.Linear(512 * 4 * 6, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 128))
        )

    def forward(self, mels: Tensor) -> Tensor:
        """(N, 128), before the last activation, of log-mel frames (N, 96, 64)."""
        hidden = self.features(mels[:, None])  # (N, 512, 6, 4)
        return self.embeddings(hidden.permute(0, 2, 3, 1).flatten(1))


class VGGishEmbedding:
    """VGGish as an embedding: windows of 0.96 s, 128 dimensions, without its later projection and quantisation.

    Args:
        weights: a safetensors file, or a state dict that torch wrote, with the names `features.N` and `embeddings.N`.
            It is read as tensors alone; nothing is fetched.

    Raises:
        ValueError: other weights.
        FileNotFoundError: no such file.
    """

    name = "vggish"
    sampling_rate = SAMPLING_RATE
    dimensions = 128
    window_samples = (_FRAMES - 1) * _HOP + _WINDOW

    def __init__(self, weights: str | os.PathLike[str], device: str | torch.device = "cpu") -> None:
        path = os.fspath(weights)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"VGGish's weights must be a file, got {path!r}; it is not fetched by itself")
        is_safe = path.endswith(".safetensors")
        state = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
        with torch.device("meta"):
            self.network = VGGish()
        try:
            kept = {name: value for name, value in state.items() if not name.startswith("pproc.")}
            self.network.load_state_dict(kept, assign=True)
        except (RuntimeError, AttributeError) as error:
            raise ValueError(f"{path} must hold VGGish's weights: {error}") from error
        self.device = torch.device(device)
        self.network.eval().requires_grad_(False).float().to(self.device)
        self.version = weights_digest(self.network)[:12]
        self._filters = mel_matrix().to(self.device)
        self._window = torch.hann_window(_WINDOW, device=self.device)

    def mel_windows(self, audio: Tensor) -> Tensor:
        """Log-mel frames (N, windows, 96, 64) of sound (N, T)."""
        frames = audio.to(self.device, torch.float32).unfold(1, _WINDOW, _HOP) * self._window
        magnitudes = torch.fft.rfft(frames, _FFT).abs()  # (N, frames, 257)
        mels = torch.log(magnitudes @ self._filters + 0.01)
        windows = mels.shape[1] // _FRAMES
        return mels[:, : windows * _FRAMES].unflatten(1, (windows, _FRAMES))

    @torch.no_grad()
    def __call__(self, audio: Tensor) -> Tensor:
        check_audio(audio, self.window_samples, self.sampling_rate)
        return in_batches(self.network, self.mel_windows(audio), _BATCH_WINDOWS)


def mel_matrix() -> Tensor:
    """Weights (257, 64): triangles from 125 to 7500 Hz, straight on the mel scale, 1127 ln(1 + f / 700), not in Hz."""
    weights = mel_filter_bank(
        _FFT // 2 + 1, 64, 125.0, 7500.0, SAMPLING_RATE, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    weights[0] = 0  # the constant part counts for no band
    return torch.from_numpy(weights).float()


EMBEDDINGS = {
    "musicnn_mtt": "musicnn trained on MagnaTagATune; comes with the package",
    "musicnn_msd": "musicnn trained on the Million Song Dataset; comes with the package",
    "clap:MODEL": "a ClapModel by its folder or Hub name, such as clap:laion/larger_clap_music",
    "encodec:MODEL": "an EncodecModel, such as encodec:facebook/encodec_24khz",
    "dac:MODEL": "a DacModel, such as dac:descript/dac_44khz",
    "mert:MODEL": "MERT, a HubertModel, such as mert:m-a-p/MERT-v1-95M",
    "vggish:FILE": "VGGish from a file of its weights in torch's layout (torchvggish's names)",
}
"""Names for [`load_embedding`], with their meaning."""


def load_embedding(name: str, device: str | torch.device = "cpu") -> AudioEmbedding:
    """The embedding of a name of [`EMBEDDINGS`], in which `-` is read as `_`.

    Raises:
        ValueError: another name, or weights that do not fit.
        OSError: the model that is named is not there and cannot be fetched.
    """
    kind, _, source = name.partition(":")
    kind = kind.replace("-", "_").lower()
    if kind in ("musicnn_mtt", "musicnn_msd") and not source:
        return MusicnnEmbedding(kind, device)
    if kind == "vggish" and source:
        return VGGishEmbedding(source, device)
    if kind == "clap" and source:
        return Clap.from_pretrained(source, device)
    if kind in ("encodec", "dac", "mert") and source:
        return EncoderEmbedding.from_pretrained(kind, source, device)
    raise ValueError(f"`embedding` must be one of {', '.join(EMBEDDINGS)}, got {shown(name)}")
