"""Embeddings of songs by a network, one vector a window, for distances between sets of songs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fast_jukebox.audio.io import load_audio
from fast_jukebox.utils.files import write_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Sound: TypeAlias = "str | os.PathLike[str] | Mapping[str, object] | np.ndarray | Tensor"
"""A file, by its path or as `{"path", "bytes"}` of datasets, or samples (T,)."""


@runtime_checkable
class AudioEmbedding(Protocol):
    """Anything that turns sound into one vector a window.

    Attributes:
        name: with letters, digits and `_`; part of the name of every number that is made with it.
        version: of its weights: numbers of two versions are not compared.
        sampling_rate: that it hears, in Hz.
        dimensions: D, of a vector.
        window_samples: samples of the shortest sound that it takes.
    """

    name: str
    version: str
    sampling_rate: int
    dimensions: int
    window_samples: int

    def __call__(self, audio: Tensor) -> Tensor:
        """Vectors (N, windows, D), float32 on the CPU, of sound (N, T)."""
        ...


@runtime_checkable
class AudioTagger(AudioEmbedding, Protocol):
    """An embedding that gives probabilities of tags too.

    Attributes:
        tags: names of the K tags.
    """

    tags: tuple[str, ...]

    def embed_and_tag(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (N, windows, D) and probabilities of tags (N, windows, K) of sound (N, T)."""
        ...


@dataclass(frozen=True)
class EmbeddingSet:
    """Embeddings of a set of songs, window by window.

    Attributes:
        embedding: name of the embedding.
        version: of its weights.
        windows: float32 (n, D).
        songs: int64 (n,) number of the song that each window is of.
        tags: float32 (n, K) probabilities of the embedding's tags; None where it has none.
    """

    embedding: str
    version: str
    windows: Tensor
    songs: Tensor
    tags: Tensor | None = None

    @property
    def num_songs(self) -> int:
        """Number of songs that have a window."""
        return len(self.songs.unique())

    def check_same_embedding(self, other: EmbeddingSet) -> None:
        """Raise a `ValueError` for embeddings of another network or of other weights."""
        own, others = (f"{each.embedding} {each.version}" for each in (self, other))
        if own != others:
            raise ValueError(f"`reference` must be made with the embedding {own}, got one made with {others}")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to a safetensors file, completely or not at all; returns its path."""
        tensors = {"windows": self.windows.contiguous(), "songs": self.songs.contiguous()}
        if self.tags is not None:
            tensors["tags"] = self.tags.contiguous()
        encoded = save(tensors, {"embedding": self.embedding, "version": self.version})
        write_file(path, encoded)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EmbeddingSet:
        """Read what [`EmbeddingSet.save`] wrote.

        Raises:
            ValueError: the file is not one.
            FileNotFoundError: there is none.
        """
        try:
            with safe_open(path, "pt") as file:
                facts, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found = cls(facts["embedding"], facts["version"], tensors["windows"], tensors["songs"], tensors.get("tags"))
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{path} must be a file of embeddings as EmbeddingSet.save writes: {error}") from error
        if found.windows.dim() != 2 or found.songs.shape != found.windows.shape[:1]:
            raise ValueError(f"{path} must hold windows (n, D) and songs (n,), got {tuple(found.windows.shape)}")
        return found


def embed_songs(
    embedding: AudioEmbedding,
    sounds: Iterable[Sound],
    *,
    sampling_rate: int | None = None,
    duration: float | None = None,
) -> EmbeddingSet:
    """Embed songs one after the other; memory holds one song at a time.

    Args:
        sounds: files, or samples (T,) at `sampling_rate`; resampled and mixed to mono as the embedding asks.
        sampling_rate: of samples, in Hz; files know their own.
        duration: seconds from the start of each song; all of it by default.

    Raises:
        ValueError: no sounds, one that is shorter than a window, not finite or no sound at all; its name is said.
    """
    windows, tags, songs = [], [], []
    sounds = list(sounds)
    if not sounds:
        raise ValueError("`sounds` must hold at least one song, got none")
    for number, sound in enumerate(sounds):
        audio = read_sound(sound, embedding.sampling_rate, sampling_rate, duration)
        if len(audio) < embedding.window_samples:
            shortest, seconds = (count / embedding.sampling_rate for count in (embedding.window_samples, len(audio)))
            raise ValueError(
                f"{sound_name(sound, number)} must last at least {shortest:.3g} s, the window of {embedding.name}, got "
                f"{seconds:.3g} s"
            )
        if isinstance(embedding, AudioTagger):
            found, own_tags = embedding.embed_and_tag(audio[None])
            tags.append(own_tags[0])
        else:
            found = embedding(audio[None])
        windows.append(found[0])
        songs += [number] * found.shape[1]
    return EmbeddingSet(
        embedding.name,
        embedding.version,
        torch.cat(windows),
        torch.tensor(songs),
        torch.cat(tags) if tags else None,
    )


def sound_name(sound: Sound, number: int) -> str:
    """The name of a sound in an error: its path, or its number in the set."""
    path = sound.get("path") if isinstance(sound, Mapping) else sound
    return os.fspath(path) if isinstance(path, str | os.PathLike) else f"song {number}"


def read_sound(
    sound: Sound, target_rate: int, sampling_rate: int | None = None, duration: float | None = None
) -> Tensor:
    """Float32 samples (T,) at `target_rate`, mono, of a file or of samples (T,) at `sampling_rate`.

    Raises:
        ValueError: samples without a rate or that are not finite, or a file that is no sound.
    """
    is_array = isinstance(sound, np.ndarray | Tensor)
    if is_array and sampling_rate is None:
        raise ValueError("`sampling_rate` must be given with samples, got None")
    return load_audio(sound, target_rate, duration=duration, source_rate=sampling_rate if is_array else None)


def model_slug(kind: str, source: str) -> str:
    """Name of an embedding that is loaded by name or folder: `clap_larger_clap_music` of `laion/larger_clap_music`."""
    last = Path(source).name.lower() or "model"
    return f"{kind}_{''.join(letter if letter.isalnum() else '_' for letter in last)}"


def cut_windows(audio: Tensor, samples: int) -> Tensor:
    """Windows (N, windows, samples) side by side of sound (N, T); the rest at the end is left out."""
    check_audio(audio, samples)
    return audio[:, : audio.shape[1] // samples * samples].unflatten(1, (-1, samples))


def in_batches(embed: Callable[[Tensor], Tensor], windows: Tensor, size: int = 8) -> Tensor:
    """Vectors (N, windows, D), on the CPU, of windows (N, windows, ...), so many at a time."""
    found = [embed(batch).cpu() for batch in windows.flatten(0, 1).split(size)]
    return torch.cat(found).unflatten(0, windows.shape[:2])


def check_audio(audio: Tensor, samples: int, sampling_rate: int | None = None) -> None:
    """Raise a `ValueError` for sound that is not (N, T) of at least one window."""
    if audio.dim() != 2 or audio.shape[1] < samples:
        seconds = "" if sampling_rate is None else f" ({samples / sampling_rate:.3f} s)"
        raise ValueError(
            f"`audio` must have the shape (N, T) with at least {samples} samples{seconds}, got {tuple(audio.shape)}"
        )


def load_complete(kind: type[PreTrainedModel], source: str, what: str) -> PreTrainedModel:
    """A model of transformers in float32 by its folder or Hub name.

    Raises:
        ValueError: weights are missing: it is another kind of model.
        OSError: it is not there and cannot be fetched.
    """
    model, report = kind.from_pretrained(source, output_loading_info=True, dtype=torch.float32)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(f"{source} must be {what}, but {len(missing)} tensors are missing, such as {missing[0]}")
    return model
