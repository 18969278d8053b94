"""VGGish (Hershey et al. 2017), the embedding of the first Frechet audio distance, from a file that the user has."""

from __future__ import annotations

import os

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from fast_jukebox.evaluation.embeddings import check_audio, in_batches
from fast_jukebox.sessions.fingerprint import weights_digest

SAMPLING_RATE = 16000
_FRAMES = 96
_HOP, _WINDOW, _FFT = 160, 400, 512
_BATCH_WINDOWS = 32


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
        device: where it computes.

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
