"""Encoding of songs to a file of codes: the work of one process of [`~fast_jukebox.data.codes.encode_songs`]."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fast_jukebox.audio.io import load_audio
from fast_jukebox.models.vqvae import FastJukeboxVQVAE
from fast_jukebox.sampling.machine import share_out, single_threads
from fast_jukebox.utils.files import JsonObject, replacing

if TYPE_CHECKING:
    from datasets import Dataset, Features

_SONGS_AHEAD = 2


@dataclass(frozen=True)
class CodeShard:
    """A file of codes to be made."""

    path: Path
    songs: Dataset | list[JsonObject]


class ShardEncoder:
    """Encodes the songs of a shard and writes the file, complete or not at all; calls `after` with 1 for each song."""

    def __init__(
        self,
        vqvae: FastJukeboxVQVAE,
        device: str,
        features: Features,
        after: Callable[[int], object] | None = None,
        duration: float | None = None,
    ) -> None:
        self.vqvae = vqvae if str(vqvae.device) == device else vqvae.to(device)
        self.features = features
        self._read = partial(load_audio, sampling_rate=vqvae.config.sampling_rate, duration=duration)
        self.after = after or (lambda count: None)

    def __call__(self, shard: CodeShard) -> None:
        from datasets import Dataset

        was_training = self.vqvae.training
        self.vqvae.eval()
        encoded = self._encode(shard.songs)
        self.vqvae.train(was_training)
        columns = {column: [song.get(column) for song in encoded] for column in self.features}
        with replacing(shard.path) as temporary:
            Dataset.from_dict(columns, features=self.features).to_parquet(str(temporary))

    def _encode(self, songs: Dataset | list[JsonObject]) -> list[dict[str, object]]:
        """Rows with codes. On a CPU each thread takes a song, so that codes do not depend on how many there are."""
        if self.vqvae.device.type == "cpu":
            with single_threads():
                return share_out(lambda row: self._read_and_encode(songs[row]), len(songs), self._count_one)
        encoded: list[dict[str, object]] = []
        for song, audio in _read_ahead(songs, self._read):
            encoded.append(encode_song(song, audio, self.vqvae))
            self.after(1)
        return encoded

    def _read_and_encode(self, song: JsonObject) -> dict[str, object]:
        return encode_song(song, self._read(song["audio"]), self.vqvae)

    def _count_one(self, _: int) -> None:
        self.after(1)


def _read_ahead(
    songs: Dataset | list[JsonObject], read: Callable[[object], Tensor]
) -> Iterator[tuple[JsonObject, Tensor]]:
    """Songs with their audio (samples,); two more are read while one is used."""
    with ThreadPoolExecutor(_SONGS_AHEAD) as pool:
        coming: deque[tuple[JsonObject, Future[Tensor]]] = deque()
        for row in range(len(songs)):
            song = songs[row]
            coming.append((song, pool.submit(read, song["audio"])))
            if len(coming) > _SONGS_AHEAD:
                song, audio = coming.popleft()
                yield song, audio.result()
        for song, audio in coming:
            yield song, audio.result()


def encode_song(song: JsonObject, audio: Tensor, vqvae: FastJukeboxVQVAE) -> JsonObject:
    """A song's metadata and codes, `codes_0`, `codes_1`, ... (length,), uint16 or int32, of its sound (samples,)."""
    config = vqvae.config
    hop = config.hop_lengths[-1]
    # The rest at the song's end that does not fill a code of the top level, less than 3 ms, is left out.
    audio = audio[: max(audio.shape[0] // hop, 1) * hop]
    audio = torch.nn.functional.pad(audio, (0, -audio.shape[0] % hop))
    codes = vqvae.encode(audio[None].to(vqvae.device))
    narrow = np.uint16 if config.codebook_size <= 2**16 else np.int32
    metadata = {key: value for key, value in song.items() if key != "audio"}
    return metadata | {f"codes_{level}": entry[0].cpu().numpy().astype(narrow) for level, entry in enumerate(codes)}
