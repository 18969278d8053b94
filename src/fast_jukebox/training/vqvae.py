"""Training a VQ-VAE with Hugging Face's Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.hf_argparser import HfArg
from transformers.utils import ModelOutput

from fast_jukebox.data.windows import SoundWindows
from fast_jukebox.models.vqvae import FastJukeboxVQVAE, FastJukeboxVQVAEConfig
from fast_jukebox.models.vqvae.losses import magnitude_spectrogram
from fast_jukebox.models.vqvae.metrics import ReconstructionReport
from fast_jukebox.training.arguments import FastJukeboxTrainingArguments
from fast_jukebox.training.trainer import FastJukeboxTrainer


@dataclass(repr=False)  # a new one would show the token
class VQVAETrainingArguments(FastJukeboxTrainingArguments):
    """[`FastJukeboxTrainingArguments`] with what a VQ-VAE adds."""

    levels: list[int] | None = HfArg(
        default=None,
        help="The levels to train, 0 is the bottom; all of them by default. They share nothing, so that training them "
        "one by one, or side by side in several processes, is the same training.",
    )


class VQVAETrainer(FastJukeboxTrainer):
    """A [`FastJukeboxTrainer`] that logs each loss of each level, and evaluates what the codes keep of the sound.

    Evaluation reports, for each level: `snr` (signal-to-noise ratio in dB), `spectral_convergence`, `codebook_used`
    (fraction of the codes that occur) and `codebook_perplexity`.
    """

    args: VQVAETrainingArguments
    card_kind = "vqvae"

    def __init__(self, *args: object, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False

    def describe(self) -> str:
        return f"{super().describe()} Trained level(s): {', '.join(map(str, self._levels()))} (0 is the bottom)."

    def loss_of(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None
    ) -> tuple[Tensor, ModelOutput]:
        """See [`FastJukeboxTrainer.loss_of`]: the model's own over the levels that are trained; notes its terms."""
        outputs = model(audio=inputs["audio"], levels=getattr(self.args, "levels", None))
        if model.training:
            for name in ("reconstruction_loss", "multispectral_loss", "commitment_loss"):
                losses = getattr(outputs, f"{name}es")
                self.note({f"{name}_{level}": loss for level, loss in zip(self._levels(), losses, strict=True)})
        return outputs.loss, outputs

    def metrics_of(self, inputs: dict[str, Tensor], outputs: ModelOutput) -> dict[str, Tensor]:
        """See [`FastJukeboxTrainer.metrics_of`]: the totals of a [`ReconstructionReport`]."""
        report = self._report()
        report.add(inputs["audio"], outputs.reconstructions, outputs.codes)
        return {"totals": report.totals}

    def metrics_from(self, sums: dict[str, Tensor], loss: float) -> dict[str, float]:
        """See [`FastJukeboxTrainer.metrics_from`]: the metrics of each level's reconstruction."""
        return self._report().metrics(sums.get("totals"))

    def _report(self) -> ReconstructionReport:
        config = self.trained_model().config
        return ReconstructionReport(self._levels(), config.codebook_size, self.args.device)

    def _levels(self) -> list[int]:
        levels = getattr(self.args, "levels", None)
        return list(range(len(self.trained_model().levels))) if levels is None else sorted(levels)


@torch.no_grad()
def measure_bandwidth(windows: SoundWindows, config: FastJukeboxVQVAEConfig, count: int = 64) -> dict[str, float]:
    """The dataset's own statistics, by which the losses are divided so that sound of any loudness trains the same.

    Args:
        windows: sound of the training split.
        config: holds the spectral resolutions.
        count: windows to look at, spread over the dataset.

    Returns:
        `bandwidth_l1` (mean absolute value), `bandwidth_l2` (mean square) and `bandwidth_spectral` (mean norm of a
        window's magnitude spectrogram over the resolutions), ready for `config.update`.

    Raises:
        ValueError: if the windows are silent.
    """
    count = min(count, len(windows))
    audio = torch.stack([windows[i * len(windows) // count]["audio"] for i in range(count)])
    sizes = zip(
        config.multispectral_n_fft, config.multispectral_hop_length, config.multispectral_win_length, strict=True
    )
    norms = [magnitude_spectrogram(audio, *size).flatten(1).norm(dim=1).mean() for size in sizes]
    bandwidth = {
        "bandwidth_l1": float(audio.abs().mean()),
        "bandwidth_l2": float(audio.square().mean()),
        "bandwidth_spectral": float(torch.stack(norms).mean()),
    }
    if min(bandwidth.values()) <= 0:
        raise ValueError(f"the {count} windows looked at are silent: there is nothing to train on")
    return bandwidth


@torch.no_grad()
def merge_levels(models: Sequence[FastJukeboxVQVAE]) -> FastJukeboxVQVAE:
    """One VQ-VAE whose level l is that of `models[l]`: joins levels that were trained apart.

    Raises:
        ValueError: if there is not one a level, or their configurations differ.
    """
    config = models[0].config
    if len(models) != config.num_levels:
        raise ValueError(f"`models` must hold one VQ-VAE a level, {config.num_levels}, got {len(models)}")
    for level, model in enumerate(models):
        ours, theirs = config.to_diff_dict(), model.config.to_diff_dict()
        different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        if different:
            raise ValueError(f"`models[{level}]` differs from `models[0]` in its configuration: {', '.join(different)}")
    merged = FastJukeboxVQVAE(config)
    for level, model in enumerate(models):
        merged.levels[level].load_state_dict(model.levels[level].state_dict())
    return merged
