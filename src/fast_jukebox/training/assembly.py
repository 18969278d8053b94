"""Priors trained side by side: the weights that each begins with, the model that they become, and its description."""

from __future__ import annotations

import json
import os
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from fast_jukebox.models.fast_jukebox import FastJukeboxConfig, FastJukeboxModel
from fast_jukebox.models.prior import FastJukeboxPriorConfig
from fast_jukebox.models.vqvae import FastJukeboxVQVAE
from fast_jukebox.processing.files import read_json
from fast_jukebox.training.checkpoints import RESULTS, STATE
from fast_jukebox.training.weights import save_weights
from fast_jukebox.utils.files import write_file


def starting_weights(
    sources: Sequence[Path], names: Sequence[str], config: FastJukeboxPriorConfig, folder: Path
) -> Path | None:
    """The file of weights that a prior begins with, for [`~fast_jukebox.training.weights.take_weights`]; `None` where
    no source has one that fits.

    Args:
        sources: folders that are asked in turn. They hold `NAME.safetensors`, or a complete model, of which the prior
            of the same level is taken if it has the width and the depth of `config`.
        names: of files that fit, the best first.
        config: of the prior.
        folder: where the weights of a complete model's prior are written.

    Raises:
        ValueError: a source is no folder.
    """
    for source in sources:
        if not source.is_dir():
            raise ValueError(f"`start_from` must name folders, and there is none at {str(source)!r}")
        found = next((path for path in (source / f"{name}.safetensors" for name in names) if path.exists()), None)
        if found is not None:
            return found
        if not (source / "config.json").exists():
            continue
        there = FastJukeboxConfig.from_pretrained(source).prior_configs[config.level]
        if all(getattr(there, field) == getattr(config, field) for field in ("hidden_size", "num_hidden_layers")):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{names[0]}.safetensors"
            save_weights(source, path, config.level)
            return path
    return None


def assemble_model(
    folder: Path,
    vqvae: FastJukeboxVQVAE,
    trained: Sequence[Path],
    complete: Path | None = None,
    temperatures: Sequence[float] | None = None,
    rhythm_scale: float = 1.0,
) -> bool:
    """Save a complete model, its priors in float16, in files of at most 15 MB; `False` where one is not finished yet.

    It is loaded in float32, unless another dtype is asked for: a CPU computes slowly in 16 bits. The VQ-VAE is saved as
    it is: codes that were encoded with it remain its own.

    Args:
        folder: of the model.
        vqvae: in float32.
        trained: the folder of each level's training, bottom first; the top one must be finished.
        complete: the model whose priors stand in for those that are not; `None` asks for all of them.
        temperatures: of sampling, bottom first; the model's own by default.
        rhythm_scale: the vectors of the genres' rhythm, of priors that have them and were trained now, are multiplied
            by it: above 1, attacks come where a genre has them more often than in the songs.
    """
    done = [(part / RESULTS).exists() for part in trained]
    if not done[-1] or (complete is None and not all(done)):
        return False
    parts = [part if own else complete for part, own in zip(trained, done, strict=True)]
    model = FastJukeboxModel.from_levels(vqvae=vqvae, priors=[part for part in parts if part], dtype=torch.float32)
    if temperatures is not None:
        model.generation_config.temperature = list(temperatures)
    for prior, own in zip(model.priors, done, strict=True):
        if own and prior.config.genre_period:
            with torch.no_grad():
                prior.label_conditioner.rhythm_embedding.mul_(rhythm_scale)
        prior.half()
    model.save_pretrained(folder, max_shard_size="15MB")
    config = read_json(folder / "config.json")
    write_file(folder / "config.json", json.dumps({**config, "dtype": "float32"}, indent=2) + "\n")
    return True


def training_facts(trained: Mapping[str, Path], batch_sizes: Mapping[str, int]) -> dict[str, dict[str, object]]:
    """Steps, windows a step, seconds and held-out bits of each training that is finished, from its own logs."""
    facts = {}
    for name, folder in trained.items():
        if not (folder / RESULTS).exists():
            continue
        state, results, metrics = (read_json(folder / file) for file in (STATE, "train_results.json", RESULTS))
        facts[name] = {
            "steps": state["global_step"],
            "batch_size": batch_sizes[name],
            "seconds": round(results["train_runtime"]),
            "bits_per_code": round(metrics["eval_bits_per_code"], 4),
        }
    return facts


def pack_logs(output: Path, path: Path) -> None:
    """Write the small files of a run, which has `configs` and trainings in `prior-NAME`, into one archive, a .tar.gz:
    configurations, names, logs, metrics.
    """
    with tarfile.open(path, "w:gz") as archive:
        for pattern in ("*.log", "*.json", "configs/*/*", "prior-*/*.json"):
            for file in sorted(output.glob(pattern)):
                archive.add(file, file.relative_to(output))


def machine_name(device: torch.device) -> str:
    """The machine that trains, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"
