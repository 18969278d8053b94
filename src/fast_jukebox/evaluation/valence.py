"""Emotional valence of songs: the paper's Table 2, and the quality of the classifier that gives it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from fast_jukebox.evaluation.distance import Estimate, bootstrap_mean
from fast_jukebox.evaluation.embeddings import Sound, load_complete, read_sound
from fast_jukebox.hub import clear_hub_errors
from fast_jukebox.models.valence import QUADRANTS, ValenceConfig, ValenceFeatureExtractor, ValenceModel
from fast_jukebox.models.valence.classification import confusion
from fast_jukebox.sessions.fingerprint import weights_digest
from fast_jukebox.utils.text import markdown_table

SILENCE = 1e-4
"""A song whose loudest sample stays below this, of a full scale of 1, has no valence."""

_BATCH_CLIPS = 8


class ValenceJudge:
    """A classifier of emotional valence with its feature extractor."""

    def __init__(
        self, model: ValenceModel, extractor: ValenceFeatureExtractor, device: str | torch.device = "cpu"
    ) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.extractor, self.version = extractor, weights_digest(model)[:12]
        if extractor.num_frames % model.config.slice_frames:
            raise ValueError(
                f"`num_frames` of the extractor must be a multiple of the model's `slice_frames` "
                f"{model.config.slice_frames}, got {extractor.num_frames}"
            )

    @classmethod
    def from_pretrained(
        cls, source: str, device: str | torch.device = "cpu", *, require_held_out: bool = True
    ) -> ValenceJudge:
        """Load a classifier by its folder or Hub name.

        Args:
            source: as `save_pretrained` of model and extractor wrote it.
            device: where it computes.
            require_held_out: refuse a classifier whose configuration does not state its metrics on held-out songs.

        Raises:
            ValueError: such a classifier, or it is another kind of model.
            OSError: it is not there and cannot be fetched.
        """
        with clear_hub_errors(source):
            config = ValenceConfig.from_pretrained(source)
            if require_held_out:
                config.require_held_out()
            model = load_complete(ValenceModel, source, "a classifier of emotional valence")
            return cls(model, ValenceFeatureExtractor.from_pretrained(source), device)

    @torch.no_grad()
    def probabilities(self, audio: Tensor) -> Tensor:
        """Four probabilities (4,), in the order of `QUADRANTS`, of sound (T,) at the extractor's rate.

        Sound that is longer than a clip is cut into clips side by side, whose probabilities are averaged; a rest counts
        where it is at least half a clip. Shorter sound is repeated to fill a clip.

        Raises:
            ValueError: the sound is silent, not finite, or of another shape.
        """
        frames, count = self.extractor.frames(audio), self.extractor.num_frames
        if not float(audio.abs().max()) >= SILENCE:
            raise ValueError(f"`audio` is silent (its peak is below {SILENCE:g}): it has no emotional valence")
        parts = list(frames.split(count, dim=1))
        if len(parts) > 1 and parts[-1].shape[1] < count / 2:
            parts.pop()
        clips = [part.repeat(1, -(-count // part.shape[1]))[:, :count] for part in parts]
        device = self.model.device
        found = [
            self.model(torch.stack(clips[first : first + _BATCH_CLIPS]).to(device)).probabilities.cpu()
            for first in range(0, len(clips), _BATCH_CLIPS)
        ]
        return torch.cat(found).mean(dim=0)

    def score(self, sound: Sound, sampling_rate: int | None = None, duration: float | None = None) -> Tensor:
        """[`ValenceJudge.probabilities`] of a file's first seconds or of samples (T,) at `sampling_rate`; NaN for
        silence.
        """
        audio = read_sound(sound, self.extractor.sampling_rate, sampling_rate, duration)
        is_silent = not float(audio.abs().max()) >= SILENCE
        return torch.full((len(QUADRANTS),), math.nan) if is_silent else self.probabilities(audio)

    def __call__(self, sound: Sound, duration: float | None = None) -> dict[str, float]:
        """`valence_AP` and so on of [`ValenceJudge.score`]."""
        values = self.score(sound, duration=duration).tolist()
        return {f"valence_{name}": value for name, value in zip(QUADRANTS, values, strict=True)}


def valence_estimates(probabilities: Tensor, resamples: int = 200, seed: int = 0) -> dict[str, Estimate]:
    """Mean of each of four probabilities (n, 4) over songs, with intervals: a row of the paper's Table 2.

    Raises:
        ValueError: no songs, or another shape.
    """
    if probabilities.dim() != 2 or probabilities.shape[1] != len(QUADRANTS) or not len(probabilities):
        raise ValueError(f"`probabilities` must be (songs, {len(QUADRANTS)}), got {tuple(probabilities.shape)}")
    return {name: bootstrap_mean(probabilities[:, column], resamples, seed) for column, name in enumerate(QUADRANTS)}


def valence_table(config: ValenceConfig, systems: Mapping[str, Tensor]) -> str:
    """The paper's Table 2 as Markdown: means of the four probabilities by system, with intervals of 95 % over songs.

    Args:
        config: the classifier's; its metrics on held-out songs stand below the table.
        systems: probabilities (n, 4) by name.

    Raises:
        ValueError: the configuration does not state metrics on held-out songs.
    """
    config.require_held_out()
    rows = []
    for name, probabilities in systems.items():
        cells = [
            f"{found.value:.4f}" + ("" if math.isnan(found.low) else f" ({found.low:.3f} to {found.high:.3f})")
            for found in valence_estimates(probabilities).values()
        ]
        rows.append([name, str(len(probabilities)), *cells])
    return f"{markdown_table(['samples', 'songs', *QUADRANTS], rows)}\n\n{held_out_sentence(config)}"


def held_out_sentence(config: ValenceConfig) -> str:
    """The classifier's metrics on held-out songs, in a sentence.

    Raises:
        ValueError: the configuration does not state it.
    """
    config.require_held_out()
    stated = config.held_out or {}
    weak = [axis for axis in ("pleasantness", "activation") if stated[f"{axis}_auc"] < 0.7]
    warning = f" It does not recognise {' or '.join(weak)} reliably: differences there say little." if weak else ""
    labels = f" Labels: {config.labels_from}." if config.labels_from else ""
    return (
        f"The classifier on {stated['songs']} held-out songs (apart by {stated['held_out_by']}): PR-AUC "
        f"{stated['pr_auc']:.4f}, ROC-AUC {stated['roc_auc']:.4f}, accuracy {stated['accuracy']:.3f}; ROC-AUC of "
        f"pleasantness alone {stated['pleasantness_auc']:.3f}, of activation alone {stated['activation_auc']:.3f} (0.5 "
        f"is chance).{labels}{warning}"
    )


def held_out_markdown(metrics: Mapping[str, float], probabilities: Tensor, labels: Tensor) -> str:
    """Metrics of each class and axis, confusion and calibration on held-out songs, as Markdown.

    Args:
        metrics: of [`~fast_jukebox.models.valence.classification.classification_metrics`].
        probabilities: (n, 4) of the held-out songs.
        labels: (n, 4) theirs.
    """
    rows = []
    for index, name in enumerate(QUADRANTS):
        count = int((labels[:, index] > 0.5).sum())
        rows.append([name, str(count), _cell(metrics[f"pr_auc_{name}"]), _cell(metrics[f"roc_auc_{name}"])])
    rows.append(["mean", str(len(labels)), _cell(metrics["pr_auc"]), _cell(metrics["roc_auc"])])
    axes = (
        f"ROC-AUC of pleasantness alone {_cell(metrics['pleasantness_auc'])}, of activation alone "
        f"{_cell(metrics['activation_auc'])}; accuracy {_cell(metrics['accuracy'])}; calibration error "
        f"{_cell(metrics['calibration_error'])}."
    )
    counts = zip(QUADRANTS, confusion(probabilities, labels).tolist(), strict=True)
    classes = markdown_table(["class", "songs", "PR-AUC", "ROC-AUC"], rows)
    matrix = markdown_table(["true \\ found", *QUADRANTS], [[name, *map(str, row)] for name, row in counts])
    return f"{classes}\n\n{axes}\n\n{matrix}\n"


def score_songs(judge: ValenceJudge, sounds: Iterable[Sound]) -> Tensor:
    """Probabilities (n, 4) of songs, the silent ones left out.

    Raises:
        ValueError: all are silent, or a sound that cannot be used.
    """
    found = [judge.score(sound) for sound in sounds]
    heard = [probabilities for probabilities in found if bool(probabilities.isfinite().all())]
    if not heard:
        raise ValueError("`sounds` must hold a song that is not silent, got none")
    return torch.stack(heard)


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
