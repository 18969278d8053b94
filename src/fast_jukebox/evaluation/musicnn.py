"""The musicnn taggers (Pons and Serra, 2019): embeddings and 50 tags of 3 s of sound."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from fast_jukebox.evaluation.embeddings import check_audio
from fast_jukebox.utils.text import shown

WEIGHTS_DIR = Path(__file__).parent / "weights"
"""Folder of the weights and of their notice (ISC licence)."""

SAMPLING_RATE = 16000
WINDOW_FRAMES = 187
_HOP_SAMPLES = 256
_MEL_BANDS = 96
_BATCH_WINDOWS = 16

MTT_TAGS = (
    *("guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano", "ambient"),
    *("beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals", "no vocals"),
    *("harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop", "soft", "sitar", "solo"),
    *("man", "classic", "choir", "voice", "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello"),
    *("no voice", "weird", "country", "metal", "female voice", "choral"),
)
"""Tags of the network trained on MagnaTagATune, in its order."""

MSD_TAGS = (
    *("rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s", "alternative rock"),
    *("jazz", "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul", "indie rock", "Mellow"),
    *("electronica", "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies", "blues", "hard rock", "ambient"),
    *("acoustic", "experimental", "female vocalist", "guitar", "Hip-Hop", "70s", "party", "country", "easy listening"),
    *("sexy", "catchy", "funk", "electro", "heavy metal", "Progressive rock", "60s", "rnb", "indie pop", "sad"),
    *("House", "happy"),
)
"""Tags of the network trained on the Million Song Dataset, in its order."""

TAGS = {"musicnn_mtt": MTT_TAGS, "musicnn_msd": MSD_TAGS}
"""Tags by the network's name."""


class _Filter(nn.Module):
    """Convolution, ReLU, batch normalisation; then, of a map over mel bands, the loudest band."""

    def __init__(self, convolution: nn.Conv1d | nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        norm = nn.BatchNorm1d if isinstance(convolution, nn.Conv1d) else nn.BatchNorm2d
        self.norm = norm(convolution.out_channels, eps=1e-3)

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.dim() == 4:  # as many frames out as in; of an even kernel the longer side comes after
            frames = self.convolution.kernel_size[0]
            inputs = F.pad(inputs, (0, 0, (frames - 1) // 2, frames // 2))
        hidden = self.norm(F.relu(self.convolution(inputs)))
        return hidden.amax(dim=3) if hidden.dim() == 4 else hidden  # (N, C, T, bands) -> (N, C, T)


class Musicnn(nn.Module):
    """The network `musicnn` of version 0.1.0: timbral and temporal filters, dense convolutions, pooling over time."""

    def __init__(self, tags: int = 50) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(1, eps=1e-3)
        self.timbral = nn.ModuleList(_Filter(nn.Conv2d(1, 204, (7, bands))) for bands in (38, 67))
        self.temporal = nn.ModuleList(_Filter(nn.Conv2d(1, 51, (frames, 1))) for frames in (128, 64, 32))
        self.dense = nn.ModuleList(_Filter(nn.Conv1d(channels, 64, 7, padding=3)) for channels in (561, 64, 64))
        self.pool_norm = nn.BatchNorm1d(1506, eps=1e-3)
        self.penultimate = nn.Linear(1506, 200)
        self.penultimate_norm = nn.BatchNorm1d(200, eps=1e-3)
        self.output = nn.Linear(200, tags)

    def forward(self, mels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (N, 200) and probabilities of the tags (N, 50) of log-mel frames (N, T, 96)."""
        inputs = self.input_norm(mels[:, None])  # (N, 1, T, 96)
        front = torch.cat([own(inputs) for own in (*self.timbral, *self.temporal)], dim=1)  # (N, 561, T)
        first = self.dense[0](front)
        second = self.dense[1](first) + first
        third = self.dense[2](second) + second
        features = torch.cat([front, first, second, third], dim=1)  # (N, 753, T)
        pooled = torch.stack([features.amax(dim=2), features.mean(dim=2)], dim=2).flatten(1)  # (N, 1506)
        embeddings = self.penultimate_norm(F.relu(self.penultimate(self.pool_norm(pooled))))
        return embeddings, self.output(embeddings).sigmoid()


class MusicnnEmbedding:
    """A musicnn tagger as an [`~fast_jukebox.evaluation.embeddings.AudioTagger`]; its weights come with the package.

    Windows of 2.992 s lie side by side from the start; what does not fill one at the end is left out.

    Args:
        name: `"musicnn_mtt"` or `"musicnn_msd"`.
        device: where it computes.
        weights: a file of weights as `fast_jukebox.conversion.musicnn` makes it, in place of the package's.

    Raises:
        ValueError: another name.
    """

    sampling_rate = SAMPLING_RATE
    dimensions = 200
    window_samples = (WINDOW_FRAMES - 1) * _HOP_SAMPLES
    """Samples of the shortest sound that has a window. Frames are centred: half of the first and last is padding."""

    def __init__(
        self,
        name: str = "musicnn_mtt",
        device: str | torch.device = "cpu",
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        from torchaudio.transforms import MelSpectrogram

        if name not in TAGS:
            raise ValueError(f"`name` must be one of {', '.join(TAGS)}, got {shown(name)}")
        self.name, self.tags = name, TAGS[name]
        self.version = "0.1.0-float16"
        self.device = torch.device(device)
        state = load_file(Path(weights) if weights else WEIGHTS_DIR / f"{name}.safetensors")
        self.network = Musicnn(len(self.tags))
        # The batch counters of torch's norms count training steps; the published weights have none.
        missing, _ = self.network.load_state_dict({key: value.float() for key, value in state.items()}, strict=False)
        if any(not key.endswith("num_batches_tracked") for key in missing):
            raise ValueError(f"`weights` must hold a musicnn network, but {', '.join(missing)} are missing")
        self.network.eval().requires_grad_(False).to(self.device)
        self._mels = MelSpectrogram(
            SAMPLING_RATE,
            n_fft=512,
            hop_length=_HOP_SAMPLES,
            n_mels=_MEL_BANDS,
            power=2.0,
            norm="slaney",
            mel_scale="slaney",
            pad_mode="constant",
        ).to(self.device)

    def mel_windows(self, audio: Tensor) -> Tensor:
        """Log-mel frames (N, windows, 187, 96) of sound (N, T)."""
        power = self._mels(audio.to(self.device, torch.float32))  # (N, 96, frames)
        frames = torch.log10(10000 * power + 1).transpose(1, 2)
        windows = frames.shape[1] // WINDOW_FRAMES
        return frames[:, : windows * WINDOW_FRAMES].unflatten(1, (windows, WINDOW_FRAMES))

    @torch.no_grad()
    def embed_and_tag(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (N, windows, 200) and tag probabilities (N, windows, 50) of sound (N, T) at 16 kHz.

        Raises:
            ValueError: the sound is shorter than a window.
        """
        check_audio(audio, self.window_samples, self.sampling_rate)
        mels = self.mel_windows(audio)
        parts = [self.network(batch) for batch in mels.flatten(0, 1).split(_BATCH_WINDOWS)]
        embeddings, tags = (torch.cat(column).unflatten(0, mels.shape[:2]).cpu() for column in zip(*parts, strict=True))
        return embeddings, tags

    def __call__(self, audio: Tensor) -> Tensor:
        return self.embed_and_tag(audio)[0]
