"""Songs of several systems, sampled in the same way and kept on disk, so that an interrupted evaluation resumes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from fast_jukebox.audio.io import load_audio, save_audio
from fast_jukebox.evaluation.embeddings import Sound
from fast_jukebox.evaluation.reconstruction import complete_codes
from fast_jukebox.evaluation.shards import SONGS_IN_A_SHARD, each_on_a_thread, reachable
from fast_jukebox.generation.request import SongRequest
from fast_jukebox.models.fast_jukebox import FastJukeboxGenerationOutput, FastJukeboxModel
from fast_jukebox.models.vqvae import FastJukeboxVQVAE
from fast_jukebox.sessions.fingerprint import model_facts
from fast_jukebox.utils.files import claim_folder, clear_temporary
from fast_jukebox.utils.workers import Workers, map_shards

Model = TypeVar("Model", bound=PreTrainedModel)

FACTS = "system.json"
"""File in a system's folder that says what its songs were sampled with."""


@dataclass(frozen=True)
class System:
    """A model that is judged.

    Attributes:
        name: in tables and file names.
        source: folder or Hub name of a complete model.
    """

    name: str
    source: str

    def __post_init__(self) -> None:
        """Refuse a name that no folder can have."""
        if not self.name.strip() or self.name.startswith(".") or set(self.name) & set('/\\:*?"<>|'):
            raise ValueError(f"a model must have a name for files, as in NAME=MODEL, got {self.name!r}")


def claim_songs(folder: Path, model: FastJukeboxModel, settings: dict[str, object]) -> None:
    """Make a folder that of one model and one way of sampling.

    Args:
        folder: made where missing.
        model: whose songs it holds.
        settings: of their sampling.

    Raises:
        ValueError: the folder holds songs that were sampled otherwise; they are kept.
    """
    facts = model_facts(model, "")
    generation = model.generation_config.to_diff_dict() if model.generation_config is not None else {}
    generation.pop("transformers_version", None)
    claim = {**settings, "vqvae": facts.vqvae, "priors": facts.priors, "generation": generation}
    claim_folder(folder / FACTS, claim, "songs sampled")


def sample_paths(folder: Path, count: int) -> list[Path]:
    """The files of a system's songs."""
    return [folder / f"sample-{index}.flac" for index in range(count)]


def given_samples(folder: Path, count: int) -> list[Path]:
    """The first FLAC and WAV files of a folder, `sample-2` before `sample-10`, hidden ones left out.

    Raises:
        ValueError: it holds fewer than `count`.
    """
    files = [path for path in folder.glob("*") if path.suffix.lower() in (".flac", ".wav")]
    files = [path for path in files if not path.stem.endswith("-top") and not path.name.startswith(".")]
    files = sorted(files, key=lambda path: [(len(part), part) for part in re.split(r"(\d+)", path.stem)])
    if len(files) < count:
        raise ValueError(
            f"`samples` must be a folder with at least {count} FLAC or WAV files (`num_samples`), got {str(folder)!r} "
            f"with {len(files)}"
        )
    return files[:count]


def top_level_path(sample: Path) -> Path:
    """The file of a song decoded from its top level's codes alone."""
    return sample.with_name(f"{sample.stem}-top.flac")


def sample_system(
    model: FastJukeboxModel,
    folder: Path,
    count: int,
    duration: float,
    seed: int,
    *,
    batch_size: int = 4,
    after: Callable[[int], None] | None = None,
    workers: Workers | None = None,
    source: str | None = None,
) -> list[Path]:
    """Sample songs 0 to `count` - 1 of a seed into FLAC files; those that exist are kept.

    Args:
        model: a complete model in evaluation mode.
        folder: of the songs; made where missing.
        count: how many songs.
        duration: seconds of each.
        seed: of all of them.
        batch_size: songs sampled at once; what is lost by an interruption at most.
        after: called with the number of songs that are done, after each batch.
        workers: processes that sample; the calling one by default.
        source: where workers beside the calling process load the model, by folder or Hub name.

    Returns:
        The files, in order. Beside each lies the song decoded from its top level's codes alone.

    Raises:
        ValueError: the folder holds songs that were sampled otherwise, or workers have no source.
    """
    claim_songs(folder, model, {"duration": duration, "seed": seed})
    paths, workers = sample_paths(folder, count), workers or Workers()
    sample_songs(
        loader_of(model, load_system, source, workers),
        paths,
        SongRequest(duration=duration, seed=seed),
        batch_size=batch_size,
        top_level=True,
        after=after,
        workers=workers,
    )
    return paths


def loader_of(
    own: Model, load: Callable[[str, str], Model], source: str | None, workers: Workers
) -> Callable[[], Model]:
    """A function that gives workers a model, pickled where they are other processes, which `load` it by its name.

    Raises:
        ValueError: workers beside the calling process have no source.
    """
    if workers.in_process:
        return lambda: own
    if source is None:
        raise ValueError("`source` must be given with several workers, got None")
    return partial(load, os.path.abspath(source) if Path(source).is_dir() else source, str(own.device))


def load_vqvae(source: str, device: str) -> FastJukeboxVQVAE:
    """The VQ-VAE of a complete model, or one that stands alone, in evaluation mode."""
    vqvae: FastJukeboxVQVAE = FastJukeboxVQVAE.from_pretrained(source).eval().to(device)
    return vqvae


def load_system(source: str, device: str) -> FastJukeboxModel:
    """A complete model as it is judged: in float32 and evaluation mode."""
    model: FastJukeboxModel = FastJukeboxModel.from_pretrained(source, dtype=torch.float32)
    moved: FastJukeboxModel = model.eval().to(device)
    return moved


def sample_songs(
    load: Callable[[], FastJukeboxModel],
    paths: Sequence[Path],
    request: SongRequest,
    *,
    batch_size: int = 4,
    top_level: bool = False,
    after: Callable[[int], None] | None = None,
    workers: Workers | None = None,
) -> None:
    """Sample a song into each file that is missing.

    The song of a seed and a number does not depend on the batch that it is sampled in, so that an interrupted run gives
    the same ones.

    Args:
        load: gives the model, once in each process; pickled where there are several.
        paths: FLAC files; the number of each decides its song.
        request: of all songs; a list as `metadata` has an entry for each song.
        batch_size: songs sampled at once.
        top_level: write beside each song the one decoded from its top level's codes alone.
        after: called with the number of songs that are done, after each batch.
        workers: processes that sample; the calling one by default.
    """
    asked = [[path, top_level_path(path)] if top_level else [path] for path in paths]
    missing = [number for number, files in enumerate(asked) if not all(file.is_file() for file in files)]
    batches = [tuple(missing[first : first + batch_size]) for first in range(0, len(missing), batch_size)]
    setup = partial(_sampling, load, [path.absolute() for path in paths], request, top_level)
    done = len(paths) - len(missing)
    for batch, _ in map_shards(setup, batches, workers or Workers()):
        done += len(batch)
        if after is not None:
            after(done)


def _sampling(
    load: Callable[[], FastJukeboxModel], paths: Sequence[Path], request: SongRequest, top_level: bool
) -> Callable[[tuple[int, ...]], None]:
    """The work of one process: samples songs of some numbers into their files."""
    model = load()
    rate = model.vqvae.config.sampling_rate

    @torch.no_grad()
    def work(numbers: tuple[int, ...]) -> None:
        own = replace(request, num_samples=len(numbers), song_ids=list(numbers))
        if isinstance(request.metadata, list):
            own = replace(own, metadata=[request.metadata[number] for number in numbers])
        made = model.generate(**own.arguments())
        songs, alone = heard(model, made) if top_level else (made.audio.float().cpu(), None)  # type: ignore[union-attr]  # asked for
        for index, number in enumerate(numbers):
            if alone is not None:
                save_audio(top_level_path(paths[number]), alone[index].clamp(-1, 1), rate)
            save_audio(paths[number], songs[index].clamp(-1, 1), rate)

    return work


@torch.no_grad()
def heard(model: FastJukeboxModel, made: FastJukeboxGenerationOutput) -> tuple[Tensor, Tensor]:
    """Songs (N, T) as a model made them, and as the codes of its top level alone sound; float32 on the CPU.

    Raises:
        ValueError: nothing was generated down to sound.
    """
    if made.audio is None or not made.codes or made.codes[-1] is None:
        raise ValueError("`made` must hold audio and the codes of the top level")
    top = model.vqvae.decode([made.codes[-1]], len(made.codes) - 1)
    return made.audio.float().cpu(), top[:, : made.audio.shape[1]].float().cpu()


def reconstruct_songs(
    load: Callable[[], FastJukeboxVQVAE],
    sounds: Sequence[Sound],
    folder: Path,
    duration: float,
    workers: Workers | None = None,
) -> list[Path]:
    """Songs through the bottom level's codes, into FLAC files: what the VQ-VAE alone costs. Those that stand are kept.

    Args:
        load: gives the VQ-VAE, once in each process; pickled where there are several.
        sounds: files.
        folder: made where missing.
        duration: seconds from the start of each.
        workers: processes that reconstruct; the calling one by default.

    Returns:
        The files, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clear_temporary(folder)
    paths = [folder.absolute() / f"song-{number}.flac" for number in range(len(sounds))]
    missing = [(path, reachable(sound)) for path, sound in zip(paths, sounds, strict=True) if not path.is_file()]
    shards = [missing[first : first + SONGS_IN_A_SHARD] for first in range(0, len(missing), SONGS_IN_A_SHARD)]
    for _ in map_shards(partial(_reconstructing, load, duration), shards, workers or Workers()):
        pass
    return paths


def _reconstructing(
    load: Callable[[], FastJukeboxVQVAE], duration: float
) -> Callable[[Sequence[tuple[Path, Sound]]], object]:
    """The work of one process: songs through the bottom level's codes, into their files."""
    vqvae = load()
    rate, hop = vqvae.config.sampling_rate, vqvae.config.hop_lengths[-1]

    @torch.no_grad()
    def reconstruct(pair: tuple[Path, Sound]) -> None:
        audio = complete_codes(load_audio(pair[1], rate, duration=duration), hop)
        codes = vqvae.encode(audio[None].to(vqvae.device), levels=[0])
        save_audio(pair[0], vqvae.decode(codes)[0].float().cpu().clamp(-1, 1), rate)

    return lambda shard: each_on_a_thread(reconstruct, shard, vqvae.device)
