"""Log-mel frames of sound for the classifier of emotional valence."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, SequenceFeatureExtractor


class ValenceFeatureExtractor(SequenceFeatureExtractor):
    """Log-mel frames as Essentia makes them for the MTG-Jamendo data set, by torchaudio.

    Hann windows of 512 samples, 256 apart, at 12 kHz; 96 Slaney mel bands up to 6 kHz, each of unit area; 20 log10 of
    the power, not below -200 dB; divided by 100.

    Args:
        feature_size: mel bands.
        sampling_rate: in Hz.
        num_frames: frames of a clip; shorter sound is repeated to fill them, of longer sound the middle is taken.
        padding_value: not used, as nothing is padded; the base class asks for it.
    """

    model_input_names = ["input_features"]  # noqa: RUF012  # as transformers declares it

    def __init__(
        self,
        feature_size: int = 96,
        sampling_rate: int = 12000,
        num_frames: int = 4096,
        padding_value: float = 0.0,
        **kwargs: object,
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        if not 1 <= num_frames <= 2**20:
            raise ValueError(f"`num_frames` must be from 1 to {2**20}, got {num_frames}")
        self.num_frames = num_frames

    def frames(self, audio: Tensor) -> Tensor:
        """Log-mel frames (bands, frames), float32, of sound (T,) at the extractor's rate.

        Raises:
            ValueError: another shape, no samples, or samples that are not finite.
        """
        from torchaudio.transforms import MelSpectrogram

        if audio.dim() != 1 or len(audio) == 0 or not bool(audio.isfinite().all()):
            raise ValueError(f"`audio` must be finite sound (T,), got shape {tuple(audio.shape)}")
        mels = MelSpectrogram(
            self.sampling_rate,
            n_fft=512,
            hop_length=256,
            n_mels=self.feature_size,
            power=2.0,
            norm="slaney",
            mel_scale="slaney",
            pad_mode="constant",
        ).to(audio.device)
        power = mels(audio.float()).clamp_min(1e-10)
        return power.log10().mul(20 / 100)

    def __call__(
        self,
        audio: np.ndarray | Tensor | list[np.ndarray] | list[Tensor],
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
        **kwargs: object,
    ) -> BatchFeature:
        """Features `input_features` (N, bands, frames) of one sound (T,) or of several.

        Args:
            audio: mono sound at the extractor's rate.
            sampling_rate: of the sound; must be the extractor's.
            return_tensors: `"pt"` or `"np"`.
            kwargs: not used.

        Raises:
            ValueError: another rate, or what [`ValenceFeatureExtractor.frames`] refuses.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(f"`sampling_rate` must be {self.sampling_rate}: resample first, got {sampling_rate}")
        sounds = audio if isinstance(audio, list) else [audio]
        clips = [fit_frames(self.frames(torch.as_tensor(sound)), self.num_frames) for sound in sounds]
        return BatchFeature({"input_features": torch.stack(clips)}, tensor_type=return_tensors)


def fit_frames(frames: Tensor, count: int, start: int | None = None) -> Tensor:
    """`count` frames of (bands, frames): repeated where there are fewer, else from `start`, by default the middle."""
    if frames.shape[1] < count:
        return frames.repeat(1, -(-count // frames.shape[1]))[:, :count]
    start = (frames.shape[1] - count) // 2 if start is None else start
    return frames[:, start : start + count]
