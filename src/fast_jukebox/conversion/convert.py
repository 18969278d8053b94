"""A published checkpoint to a folder of ours, within the memory of one file and one shard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from fast_jukebox.conversion import transformers4
from fast_jukebox.conversion.openai import OpenAICheckpoint, is_openai_folder
from fast_jukebox.conversion.parts import Part
from fast_jukebox.conversion.shards import parse_size, size_in, write_shards
from fast_jukebox.hub import download_arguments, prefer_cache, write_model_card
from fast_jukebox.models.fast_jukebox import FastJukeboxConfig, FastJukeboxModel
from fast_jukebox.models.loading import read_config
from fast_jukebox.processing import FastJukeboxProcessor
from fast_jukebox.processing.files import read_json
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.utils.files import JsonObject, new_folder

LICENSE_NAME = "jukebox-noncommercial"
LICENSE_LINK = "https://github.com/openai/jukebox/blob/master/LICENSE"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

Progress = Callable[[int, int, str], None]
"""Receives the bytes written, the total, and the part that is being written."""


class Transformers4Checkpoint:
    """A folder or repository in transformers 4's layout; attributes and errors as of [`OpenAICheckpoint`]."""

    def __init__(self, source: str | os.PathLike[str], **download: object) -> None:
        self.name = str(source)
        folder = Path(source)
        is_folder = folder.is_dir()
        config = read_json(folder / "config.json") if is_folder else read_config(source, **download_arguments(download))
        if config.get("model_type") != transformers4.MODEL_TYPE:
            raise ValueError(
                f"`source` must be a folder of published files or hold a model whose `model_type` is "
                f"{transformers4.MODEL_TYPE!r}; `{source}` holds {config.get('model_type')!r}"
            )
        vqvae, priors = transformers4.parts_of(config)
        self.parts = [*reversed(priors), vqvae]
        self._tensors = transformers4.read_tensors(source, **download)
        transformers4.check_prefixes(self._tensors, self.parts, self.name)

    def tensors(self, part: Part) -> Mapping[str, Tensor]:
        """See [`OpenAICheckpoint.tensors`]."""
        return transformers4.checked_tensors(part, self._tensors, self.name)


Checkpoint = OpenAICheckpoint | Transformers4Checkpoint


def convert_checkpoint(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | None = None,
    hyperparameters: JsonObject | str | os.PathLike[str] | None = None,
    dtype: str | torch.dtype | None = None,
    max_shard_size: int | str = "1GB",
    progress: Progress | None = None,
    **download: object,
) -> Path:
    """Write a published Jukebox as a model that [`FastJukeboxModel.from_pretrained`] loads, with a card that states the
    licence of its weights. Lists of artists and genres beside the weights become the model's vocabularies.

    One shard is in memory at a time, and files of the format that torch had before 1.6. The output appears when it is
    complete: an error or an interruption leaves nothing.

    Args:
        source: a folder of OpenAI's files (`vqvae.pth.tar`, `prior_level_0.pth.tar` to `prior_level_2.pth.tar`; or the
            folder of all models, with `model`), or a folder or Hub repository in transformers 4's layout.
        output: the folder to write; does not exist or is empty.
        model: of OpenAI's files: `"1b_lyrics"`, `"5b"` or `"5b_lyrics"`; found out where None.
        hyperparameters: of OpenAI's files of your own model; see [`OpenAICheckpoint`]. May be a JSON file.
        dtype: of the priors: `"float32"`, `"float16"` or `"bfloat16"`; that of their files where None. The VQ-VAE is
            written in float32.
        max_shard_size: bytes of a file, or `"1GB"` and the like.
        download: `revision`, `token`, `cache_dir` of a repository.

    Raises:
        OSError: files are missing, cannot be read, or the disk is full.
        ValueError: an argument is not as asked, a file is damaged, or tensors are missing, left over or of another
            shape: names them.
    """
    limit = parse_size(max_shard_size)
    wanted = _checked_dtype(dtype)
    output = Path(output).expanduser().absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"`output` must be a folder that does not exist or is empty, got {str(output)!r}")
    output.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = _open(source, model, hyperparameters, prefer_cache(source, download))
    *priors, vqvae = checkpoint.parts
    config = FastJukeboxConfig(vqvae_config=vqvae.config, prior_configs=[part.config for part in reversed(priors)])
    first = checkpoint.tensors(checkpoint.parts[0])
    if wanted is None:
        wanted = first[str(checkpoint.parts[0].key_map["code_embedding.weight"])].dtype
        if wanted not in DTYPES.values():
            wanted = torch.float32
    dtypes, sizes = {}, {}
    for part in checkpoint.parts:
        for name, shape in part.shapes.items():
            ours = torch.float32 if part.name == "vqvae" else wanted
            constant = part.constants.get(name)
            if constant is not None and not constant.is_floating_point():
                ours = constant.dtype
            dtypes[f"{part.name}.{name}"], sizes[f"{part.name}.{name}"] = ours, size_in(shape, ours)
    total = sum(sizes.values())
    with new_folder(output) as temporary:
        free = shutil.disk_usage(output.parent).free
        if free < total:
            raise OSError(f"`{output.parent}` has {free / 1e9:.2f} GB free, but the model takes {total / 1e9:.2f} GB")
        stream = _Stream(checkpoint, first, progress, total)
        del first
        write_shards(temporary, sizes, stream, dtypes, limit, stream.wrote)
        config.dtype = wanted
        config.architectures = [FastJukeboxModel.__name__]
        config.save_pretrained(temporary)
        processor = FastJukeboxProcessor.find(checkpoint.name, config, **download)
        if processor is not None:
            processor.save_pretrained(temporary)
        _write_card(temporary, output.name, checkpoint.name, config)
    return output


class _Stream:
    """Tensors of all parts in order; a part's file is released when the next part is asked for."""

    def __init__(
        self, checkpoint: Checkpoint, first: Mapping[str, Tensor], progress: Progress | None, total: int
    ) -> None:
        self.checkpoint, self.progress, self.total = checkpoint, progress, total
        self.done = 0
        self.part = checkpoint.parts[0].name
        self._first: Mapping[str, Tensor] | None = first

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for part in self.checkpoint.parts:
            self.part = part.name
            source, self._first = self._first, None
            if source is None:
                source = self.checkpoint.tensors(part)
            for name, tensor in part.tensors(source):
                yield f"{part.name}.{name}", tensor
            del source, tensor

    def wrote(self, count: int) -> None:
        """Report the bytes of a shard that was written."""
        self.done += count
        if self.progress is not None:
            self.progress(self.done, self.total, self.part)


def _open(
    source: str | os.PathLike[str],
    model: str | None,
    hyperparameters: JsonObject | str | os.PathLike[str] | None,
    download: Mapping[str, object],
) -> Checkpoint:
    folder = Path(source).expanduser()
    if folder.is_dir() and is_openai_folder(folder) and not (folder / "config.json").is_file():
        if isinstance(hyperparameters, str | os.PathLike):
            hyperparameters = read_json(hyperparameters)
        return OpenAICheckpoint(folder, model, hyperparameters)
    for name, value in (("model", model), ("hyperparameters", hyperparameters)):
        if value is not None:
            raise ValueError(f"`{name}` is for a folder of .pth.tar files, which `{source}` is not; got {value!r}")
    if folder.is_dir() and not (folder / "config.json").is_file():
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise FileNotFoundError(f"`{source}` holds neither .pth.tar files nor a config.json, but {held}")
    return Transformers4Checkpoint(folder if folder.is_dir() else source, **download)


def _checked_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype in DTYPES.values()):
        return dtype
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {dtype!r}")


_USAGE = """\
from fast_jukebox import FastJukeboxModel

model = FastJukeboxModel.from_pretrained("{name}")
metadata = dict(total_duration=180, lyrics="Where the wind blows, there I go.")
song = model.generate(duration=20, metadata=metadata, seed=0)
song.audio, song.sampling_rate"""


def _write_card(folder: Path, name: str, source: str, config: FastJukeboxConfig) -> None:
    sizes = "; ".join(
        f"{level_name(prior.level, config.num_levels, numbered=True)}: {prior.num_hidden_layers} layers, width "
        f"{prior.hidden_size}, "
        f"context {prior.n_ctx}" + (f", {prior.lyric_length} characters of lyrics" if prior.has_lyrics else "")
        for prior in reversed(config.prior_configs)
    )
    labelled = all(prior.has_labels for prior in config.prior_configs)
    write_model_card(
        folder,
        name=name,
        description=(
            f"A published Jukebox, converted by fast-jukebox with the numbers it had. Its priors: {sizes}.\n\n"
            "Jukebox is by Prafulla Dhariwal, Heewoo Jun, Christine Payne, Jong Wook Kim, Alec Radford and Ilya "
            "Sutskever (Jukebox: A Generative Model for Music, 2020)."
        ),
        training=f"Not trained here. Converted from `{Path(source).name}`.",
        license="other",
        license_name=LICENSE_NAME,
        license_link=LICENSE_LINK,
        license_text=(
            f"The weights are Jukebox's, under OpenAI's [Noncommercial Use License]({LICENSE_LINK}): **not for "
            "commercial use**. What is made from them, students and songs included, is bound by its terms as well: "
            "read them. The code of fast-jukebox is under Apache-2.0, which does not extend to the weights."
        ),
        tags=["jukebox", "non-commercial"],
        usage=_USAGE.format(name=name) if labelled else None,
    )
