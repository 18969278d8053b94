"""A published checkpoint to a folder of ours, within the memory of one file and one shard."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from fast_jukebox.conversion import transformers4
from fast_jukebox.conversion.openai import OpenAICheckpoint, is_openai_folder
from fast_jukebox.conversion.parts import Part
from fast_jukebox.hub import download_arguments, prefer_cache, write_model_card
from fast_jukebox.models.fast_jukebox import FastJukeboxConfig, FastJukeboxModel
from fast_jukebox.models.loading import read_config
from fast_jukebox.processing import FastJukeboxProcessor
from fast_jukebox.processing.files import read_json
from fast_jukebox.sampling.checks import level_name
from fast_jukebox.utils.files import JsonObject, new_folder
from fast_jukebox.utils.text import shown

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(size: int | str) -> int:
    """Bytes of a size such as `"1GB"`, `"500MB"` or `2**30`; a `ValueError` for what is none."""
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?B)\s*", size.upper()) if isinstance(size, str) else None
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"`max_shard_size` must be bytes or a size such as '1GB' or '500MB', got {shown(size)}")
    return int(float(found[1]) * _UNITS[found[2]])


def plan_shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names in order, in shards of at most `limit` bytes; a tensor larger than that is a separate shard."""
    shards: list[list[str]] = []
    held = limit
    for name, size in sizes.items():
        if not shards or held + size > limit:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += size
    return shards


def write_shards(
    folder: Path,
    sizes: Mapping[str, int],
    tensors: Iterable[tuple[str, Tensor]],
    dtypes: Mapping[str, torch.dtype],
    limit: int,
    written: Callable[[int], None] | None = None,
) -> None:
    """Write tensors as a model's safetensors, with an index where there is more than one file.

    Args:
        sizes: bytes of each tensor in its dtype, by name, in the order in which they come.
        tensors: name and tensor, in that order; each is released before the next shard but one is begun.
        dtypes: that the numbers of each tensor are written in, by name.

    Raises:
        OSError: a file could not be written.
        ValueError: a tensor holds numbers that are not finite, or are not in its dtype.
    """
    shards = plan_shards(sizes, limit)
    source = iter(tensors)
    weight_map: dict[str, str] = {}
    for index, names in enumerate(shards):
        file = SAFE_WEIGHTS_NAME
        if len(shards) > 1:
            file = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        shard = {name: _ready(name, tensor, dtypes[name]) for name, (_, tensor) in zip(names, source, strict=False)}
        if list(shard) != names:
            raise ValueError(f"`tensors` end before {names[len(shard)]}")
        try:
            save_file(shard, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"`{folder / file}` could not be written: {error}") from error
        weight_map |= dict.fromkeys(names, file)
        del shard
        if written is not None:
            written(sum(sizes[name] for name in names))
    if len(shards) > 1:
        content = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")


def size_in(shape: Iterable[int], dtype: torch.dtype) -> int:
    """Bytes of a tensor."""
    return torch.Size(shape).numel() * dtype.itemsize


def _ready(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    ready = tensor.to(dtype).contiguous()
    if not _is_finite(ready):
        if _is_finite(tensor):
            raise ValueError(f"`{name}` holds numbers that are beyond the range of {dtype}: name another `dtype`")
        raise ValueError(f"`{name}` holds numbers that are not finite: fetch the file that it comes from again")
    # Own memory, for safetensors writes no tensor that is a part of another's.
    return ready if ready.data_ptr() != tensor.data_ptr() else ready.clone()


def _is_finite(tensor: Tensor) -> bool:
    """True where all numbers are finite, by the least and the greatest (NaN if there is one), without a mask."""
    return tensor.numel() == 0 or bool(torch.stack(torch.aminmax(tensor)).isfinite().all())


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
                f"{transformers4.MODEL_TYPE!r}; `{source}` holds {shown(config.get('model_type'))}"
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
    held: Mapping[str, Tensor] | None = first
    del first
    done, current = 0, ""

    def stream() -> Iterator[tuple[str, Tensor]]:
        """Tensors of all parts in order; a part's file is released when the next part is asked for."""
        nonlocal current, held
        for part in checkpoint.parts:
            current = part.name
            source, held = checkpoint.tensors(part) if held is None else held, None
            for name, tensor in part.tensors(source):
                yield f"{part.name}.{name}", tensor
            del source, tensor

    def wrote(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total, current)

    with new_folder(output) as temporary:
        free = shutil.disk_usage(output.parent).free
        if free < total:
            raise OSError(f"`{output.parent}` has {free / 1e9:.2f} GB free, but the model takes {total / 1e9:.2f} GB")
        write_shards(temporary, sizes, stream(), dtypes, limit, wrote)
        config.dtype = wanted
        config.architectures = [FastJukeboxModel.__name__]
        config.save_pretrained(temporary)
        processor = FastJukeboxProcessor.find(checkpoint.name, config, **download)
        if processor is not None:
            processor.save_pretrained(temporary)
        _write_card(temporary, output.name, checkpoint.name, config)
    return output


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
            raise ValueError(f"`{name}` is for a folder of .pth.tar files, which `{source}` is not; got {shown(value)}")
    if folder.is_dir() and not (folder / "config.json").is_file():
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise FileNotFoundError(f"`{source}` holds neither .pth.tar files nor a config.json, but {held}")
    return Transformers4Checkpoint(folder if folder.is_dir() else source, **download)


def _checked_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype in DTYPES.values()):
        return dtype
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {shown(dtype)}")


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
