"""Songs to codes, and codes to training windows.

Codes are a folder of Parquet shards (the layout of a dataset on the Hub) and a manifest that names the VQ-VAE they were
made with. A row is a song: its metadata, and `codes_0`, `codes_1`, ... (uint16 or int32, bottom first).
"""

from __future__ import annotations

import copy
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from fast_jukebox.audio.io import load_audio
from fast_jukebox.data.labels import WindowLabels
from fast_jukebox.data.manifest import (
    MANIFEST,
    check_codes_folder,
    code_shards,
    read_manifest,
    shard_rows,
    songs_manifest,
)
from fast_jukebox.data.parquet import check_codes, check_values, is_readable, load_shards
from fast_jukebox.data.scanning import find_dataset
from fast_jukebox.data.splits import DEFAULT_TEST_FRACTION, describe_splits
from fast_jukebox.data.windows import SongWindows, WindowSampler, time_cut
from fast_jukebox.models.prior import FastJukeboxPriorConfig
from fast_jukebox.models.vqvae import FastJukeboxVQVAE
from fast_jukebox.processing import FastJukeboxProcessor
from fast_jukebox.processing.vocabulary import column_of
from fast_jukebox.sampling.machine import share_out, single_threads
from fast_jukebox.sessions.fingerprint import weights_digest
from fast_jukebox.utils.files import JsonObject, check_apart, claim_folder, clear_temporary, replacing
from fast_jukebox.utils.workers import Workers, map_shards

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict, Features


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

            def encode(row: int) -> JsonObject:
                song = songs[row]
                return encode_song(song, self._read(song["audio"]), self.vqvae)

            def count_one(_: int) -> None:
                self.after(1)

            with single_threads():
                return share_out(encode, len(songs), count_one)
        encoded: list[dict[str, object]] = []
        for song, audio in _read_ahead(songs, self._read):
            encoded.append(encode_song(song, audio, self.vqvae))
            self.after(1)
        return encoded


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


logger = logging.getLogger(__name__)

_SONGS_IN_A_SHARD = 16
_DTYPES = ("uint8", "uint16", "int16", "int32", "uint32", "int64")


def encode_songs(
    songs: DatasetDict,
    vqvae: FastJukeboxVQVAE,
    folder: str | os.PathLike[str],
    *,
    duration: float | None = None,
    workers: Workers | None = None,
    progress: bool = True,
) -> DatasetDict:
    """Encode every song of a dataset with every level of a VQ-VAE, and keep the codes in `folder`.

    Shards are written completely or not at all, and complete ones are kept: an interrupted run can be resumed. Metadata
    of songs that are encoded already, such as lyrics added since, is updated. On a CPU each song is encoded by one
    thread, so that the codes depend neither on threads nor on workers.

    Args:
        songs: splits of rows as [`~fast_jukebox.data.songs.load_songs`] makes them.
        vqvae: on any device, which is that of the workers too; used in evaluation mode. On a GPU the next songs are
            read while one is encoded.
        duration: seconds from the start of each song; all of it by default.
        workers: processes that encode, a shard of 16 songs at a time; the calling one by default.

    Raises:
        ValueError: if the folder holds codes of another VQ-VAE or of other songs, or something else than codes, or two
            splits differ by capital letters alone.
    """
    from tqdm.auto import tqdm

    check_apart(songs, "splits of `songs`")
    folder, workers = Path(folder), workers or Workers()
    check_codes_folder(folder)
    identity = {
        name: split.select_columns([column for column in ("duration", "file_name") if column in split.column_names])
        for name, split in songs.items()
    }
    claim_folder(folder / MANIFEST, songs_manifest(identity, vqvae, duration), "codes made")
    clear_temporary(folder)
    features = _features(songs, vqvae)
    total = sum(len(split) for split in songs.values())
    with tqdm(total=total, desc="encoding songs", unit="song", disable=not progress) as bar:

        def missing() -> Iterator[CodeShard]:
            for name, split in songs.items():
                for first in range(0, len(split), _SONGS_IN_A_SHARD):
                    rows = split.select(range(first, min(first + _SONGS_IN_A_SHARD, len(split))))
                    shard = folder.absolute() / f"{name}-{first // _SONGS_IN_A_SHARD:05d}.parquet"
                    if shard_rows(shard) != len(rows) or not is_readable(shard):  # not made yet, or damaged
                        yield CodeShard(shard, rows if workers.in_process else list(rows))
                    else:
                        _refresh_metadata(shard, rows, features)
                        bar.update(len(rows))

        after = bar.update if workers.in_process else None
        elsewhere = vqvae if workers.in_process else copy.deepcopy(vqvae).cpu()
        setup = partial(ShardEncoder, elsewhere, str(vqvae.device), features, after, duration)
        for shard, _ in map_shards(setup, missing(), workers):
            if after is None:
                bar.update(len(shard.songs))
    return load_codes(folder)


def load_codes(
    folder: str | os.PathLike[str],
    *,
    vqvae: FastJukeboxVQVAE | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> DatasetDict:
    """Codes that [`encode_songs`] made.

    Args:
        folder: of the codes, or the name of a data set that [`~fast_jukebox.data.push.push_codes`] made.
        vqvae: that must have made them; `None` takes any.
        revision, token, local_files_only: of a data set on the Hub, as in `from_pretrained`.

    Raises:
        ValueError: the folder holds no codes, not all that its manifest states, or those of another VQ-VAE.
        FileNotFoundError: there is no such folder.
        HubError: the data set cannot be read from the Hub.
    """
    path = find_dataset(folder, revision=revision, token=token, local_files_only=local_files_only)
    shards = code_shards(path)
    if not shards:
        raise ValueError(f"{folder} holds no codes: expected shards such as train-00000.parquet, see `encode_songs`")
    files: dict[str, list[str]] = {}
    for shard in shards:
        check_values(shard)
        files.setdefault(shard.name.rsplit("-", 1)[0], []).append(str(shard))
    if path != Path(folder) or (path / MANIFEST).is_file():
        manifest = read_manifest(path)
        if vqvae is not None and manifest["vqvae"] != weights_digest(vqvae):
            raise ValueError(
                f"{folder} holds codes of another VQ-VAE than the one given: encode the songs with that one"
            )
    elif vqvae is not None:
        raise ValueError(f"{folder} holds no {MANIFEST}, which says whose codes these are")
    # The cache lies in the folder, so that the folder alone is to be moved or deleted.
    cache = str(path / ".cache") if path == Path(folder) and os.access(path, os.W_OK) else None
    data = load_shards(files, cache)
    for split in data.values():
        for name, feature in split.features.items():
            if name.startswith("codes_") and getattr(getattr(feature, "feature", None), "dtype", "") not in _DTYPES:
                raise ValueError(f"{folder} must have lists of whole numbers in `{name}`, got {feature}")
    return data


def require_splits(data: DatasetDict, source: str | os.PathLike[str]) -> DatasetDict:
    """The data, which must have the splits `train` and `test` (`ValueError`); logs their songs and hours."""
    if "train" not in data or "test" not in data:
        raise ValueError(
            f"{source} must have songs to train on and songs held out, marked as `train` and `test` or parted by a "
            f"`test_fraction` above 0; got the splits {', '.join(data)}"
        )
    logger.info("%s: %s", source, describe_splits(data))
    return data


class CodeWindows(SongWindows):
    """Windows of one level's codes, with the codes of the level above for the same span of time.

    Items are `{"codes": int64 (n_ctx,), "labels": the same}`, with `"upper_codes": int64 (n_ctx / upper_ratio,)` for an
    upsampler and `"metadata": int64 (metadata_length,)` for a labelled prior, in which the window's part of the lyrics
    stands last. Labels come from the columns `artist`, `genre` and `lyrics` where there is a processor, else from
    `artist_id` and `genre_ids`; a song without them is of artist 0 and genre 0, the unknown ones, and has no lyrics.

    Args:
        seed: of the random offsets, or None for windows side by side from each song's start.
        processor: knows the names, see [`~fast_jukebox.data.labels.WindowLabels`].
        label_dropout: probability of a window at a random offset to receive no artist and genre, and no lyrics.
        part: `"test"` for the end of each song, a fraction `test_fraction` of it and at least one window, `"train"` for
            the rest: songs held out by time. `None` for complete songs.

    Raises:
        ValueError: if the codes lack the level or the level above, are outside the codebook, every song is shorter than
            the context (two contexts where it has two parts), or a song is longer than the prior's `max_duration`.
    """

    def __init__(
        self,
        codes: Dataset,
        config: FastJukeboxPriorConfig,
        seed: int | None = None,
        max_windows: int | None = None,
        processor: FastJukeboxProcessor | None = None,
        label_dropout: float = 0.0,
        part: Literal["train", "test"] | None = None,
        test_fraction: float = DEFAULT_TEST_FRACTION,
    ) -> None:
        self.config = config
        self.labels = WindowLabels(codes, config, processor, label_dropout, seed) if config.has_labels else None
        self.column, self.upper_column = f"codes_{config.level}", f"codes_{config.level + 1}"
        wanted = [self.column, self.upper_column] if config.has_upper_level else [self.column]
        for column in wanted:
            if column not in codes.column_names:
                raise ValueError(f"the codes have no column `{column}`, only {', '.join(codes.column_names)}")
        self._rows = codes.with_format("arrow")
        lengths = self._lengths()
        starts = [0] * len(lengths)
        if part is not None:
            cuts = [time_cut(length, config.n_ctx, config.upper_ratio, test_fraction) for length in lengths]
            if cuts == lengths:
                raise ValueError(
                    f"a song must have at least two windows of {config.n_ctx} codes to be held out by time "
                    f"({self._seconds(2 * config.n_ctx):.1f} s, one to train on and one held out), the longest has "
                    f"{self._seconds(max(lengths, default=0)):.1f} s: use longer songs, or more than one"
                )
            if part == "test":
                starts, lengths = cuts, [length - cut for length, cut in zip(lengths, cuts, strict=True)]
            else:
                lengths = cuts
        super().__init__(WindowSampler(lengths, config.n_ctx, config.upper_ratio, seed, starts), max_windows)

    def _seconds(self, codes: int) -> float:
        return codes * self.config.hop_length / self.config.sampling_rate

    def _lengths(self) -> list[int]:
        """Codes of each song."""
        config, lengths = self.config, []
        for row in range(len(self._rows)):
            table = self._rows[row : row + 1]
            values = _values(table, self.column)
            check_codes(values, config.codebook_size, f"song {row}")
            length = len(values)
            if config.use_timing and self._seconds(length) >= config.max_duration:
                raise ValueError(
                    f"`max_duration` of the prior is {config.max_duration:g} s, but song {row} lasts "
                    f"{self._seconds(length):.1f} s: cut it into shorter files"
                )
            if config.has_upper_level:
                upper = _values(table, self.upper_column)
                check_codes(upper, config.upper_codebook_size or config.codebook_size, f"song {row}")
                length = min(length, len(upper) * config.upper_ratio)
            lengths.append(length)
        return lengths

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        config = self.config
        window = self.window_number(index)
        row, start = self.sampler[window]
        table = self._rows[row : row + 1]
        codes = _slice(table, self.column, start, config.n_ctx)
        item = {"codes": codes, "labels": codes.clone()}
        if config.has_upper_level:
            ratio = config.upper_ratio
            item["upper_codes"] = _slice(table, self.upper_column, start // ratio, config.n_ctx // ratio)
        if self.labels is not None:
            total = len(_values(table, self.column))
            item["metadata"] = self.labels(row, start, total, window, self.sampler.epoch)
        return item


def _refresh_metadata(shard: Path, songs: Dataset, features: Features) -> None:
    """Rewrite a shard whose songs' metadata has changed since they were encoded; the codes stay."""
    import pyarrow.parquet
    from datasets import Dataset, Features

    names = [column for column in features if not column.startswith("codes_")]
    wanted = {column: column_of(songs, column) for column in names}
    there = [name for name in pyarrow.parquet.read_schema(shard).names if not name.startswith("codes_")]
    if there == names and pyarrow.parquet.read_table(shard, columns=names).to_pydict() == wanted:
        return
    codes = pyarrow.parquet.read_table(shard, columns=[column for column in features if column not in names])
    table = Dataset.from_dict(wanted, features=Features({name: features[name] for name in names})).data.table
    for column in codes.column_names:
        table = table.append_column(codes.schema.field(column), codes[column])
    with replacing(shard) as temporary:
        pyarrow.parquet.write_table(table.replace_schema_metadata(features.arrow_schema.metadata), temporary)


def _features(songs: DatasetDict, vqvae: FastJukeboxVQVAE) -> Features:
    """Types of a row's columns, the same in every shard, also where all songs of a shard lack a value."""
    from datasets import Features, List, Value

    metadata: dict[str, object] = {}
    for split in songs.values():
        for name, feature in split.features.items():
            if name not in metadata or metadata[name] == Value("null"):
                metadata[name] = feature
    metadata.pop("audio")
    codes = List(Value("uint16" if vqvae.config.codebook_size <= 2**16 else "int32"))
    return Features({**metadata, **{f"codes_{level}": codes for level in range(vqvae.config.num_levels)}})


def _values(table: pa.Table, column: str) -> np.ndarray:
    """The list in the only row of `table`, without a copy."""
    return table[column].chunk(0).flatten().to_numpy(zero_copy_only=True)


def _slice(table: pa.Table, column: str, start: int, length: int) -> Tensor:
    return torch.from_numpy(_values(table, column)[start : start + length].astype(np.int64))
