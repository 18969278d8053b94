"""Batches of training windows drawn on the device that trains, from codes in its memory, by one gather a batch.

A song takes 14.5 kB a second of music at all three levels; a level is loaded alone.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from fast_jukebox.data.labels import name_ids
from fast_jukebox.data.manifest import MANIFEST
from fast_jukebox.data.parquet import check_codes
from fast_jukebox.models.prior import FastJukeboxPriorConfig
from fast_jukebox.processing import FastJukeboxProcessor
from fast_jukebox.utils.files import JsonObject
from fast_jukebox.utils.text import shown


def check_window_parts(name: str, parts: Sequence[int], num_rows: int) -> None:
    """Raise a `ValueError` naming the argument unless a window of so many rows can be divided by each of `parts`."""
    if not parts or any(not 1 <= part <= num_rows or num_rows % part for part in parts):
        raise ValueError(f"`{name}` must be divisors of {num_rows}, the rows of a window, got {shown(list(parts))}")


class DeviceCodeBatches(IterableDataset[dict[str, Tensor]]):
    """Batches of windows at random places of the codes of a folder, all places equally likely.

    Batch number i is a function of the seed, i and the songs loaded by then alone. Items are batches: `codes` and
    `labels` int64 (N, n_ctx), with `upper_codes` int64 (N, n_ctx / upper_ratio) for an upsampler and `metadata` int64
    (N, label_length) for a labelled prior without lyrics. The folder may still be growing: shards that have come since
    are loaded every `refresh_steps` batches.

    Args:
        folders: of [`~fast_jukebox.data.codes.encode_songs`], one or several.
        batch_size: windows in a batch, N.
        processor: knows the ids of `artist` and `genre`, for a labelled prior.
        label_dropout: probability of a window to have neither artist nor genre.
        code_noise: fraction of the codes that the prior is given, from 0 to this for each window, that are those of
            another place of the window. The labels stay, so that a prior learns to go on from its own errors.
        window_parts: the windows of batch i are the context divided by entry i of these, again from the first after the
            last, and so many times as many.
        refresh_steps: batches between searches for new shards; 0 searches once, at the start.
        wait_seconds: time to wait for the first songs.

    Raises:
        ValueError: an argument is out of its range, the prior has lyrics, the codes are outside its codebook, or no
            song is as long as a window.
    """

    values_checked = True

    def __init__(
        self,
        folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        config: FastJukeboxPriorConfig,
        batch_size: int,
        device: torch.device | str,
        *,
        split: str = "train",
        seed: int = 0,
        processor: FastJukeboxProcessor | None = None,
        label_dropout: float = 0.0,
        code_noise: float = 0.0,
        window_parts: Sequence[int] = (1,),
        refresh_steps: int = 0,
        wait_seconds: float = 0.0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
        for name, fraction in (("label_dropout", label_dropout), ("code_noise", code_noise)):
            if not 0 <= fraction <= 1:
                raise ValueError(f"`{name}` must be from 0 to 1, got {shown(fraction)}")
        if config.has_lyrics:
            raise ValueError("codes on the device must be for a prior without lyrics, and `lyric_length` is above 0")
        if max(config.codebook_size, config.upper_codebook_size or 0) > 2**15:
            raise ValueError(f"`codebook_size` must be at most {2**15} on the device, got {config.codebook_size}")
        named = [folders] if isinstance(folders, str | os.PathLike) else folders
        self.folders = [Path(folder) for folder in named]
        self.config, self.batch_size, self.split = config, batch_size, split
        self.device, self.seed = torch.device(device), seed
        self.label_dropout, self.code_noise, self.window_parts = label_dropout, code_noise, tuple(window_parts)
        check_window_parts("window_parts", window_parts, config.num_rows)
        self.refresh_steps, self.position = refresh_steps, 0
        self._vocabulary = None
        if config.has_labels:
            if processor is None:
                raise ValueError("`processor` must be given for a prior with labels")
            self._vocabulary = processor.for_prior(config)[1]
        self._levels = [config.level, config.level + 1] if config.has_upper_level else [config.level]
        self._shards: set[Path] = set()
        self._codes: list[Tensor] = [torch.empty(0, dtype=torch.int16, device=self.device) for _ in self._levels]
        # By song: first code, first code of the level above, codes, and the windows up to its end.
        self._table = np.zeros((0, 3), dtype=np.int64)
        self._ids = np.zeros((0, 1 + config.max_genres), dtype=np.int64)
        self.refresh()
        limit = time.monotonic() + wait_seconds
        while not self.num_songs and time.monotonic() < limit:
            # The manifest is written last: no more songs come to folders that have it.
            if all((folder / MANIFEST).exists() for folder in self.folders) and not self.refresh():
                break
            time.sleep(0.2)
            self.refresh()
        if not self.num_songs:
            raise ValueError(
                f"{', '.join(map(str, self.folders))}: no song of {self.split} is as long as a window of "
                f"{config.n_ctx} codes"
            )

    @property
    def num_songs(self) -> int:
        """Songs loaded that are as long as a window."""
        return len(self._table)

    def __len__(self) -> int:
        """Batches that hold as many codes as the songs."""
        return max(1, int(self._table[:, 2].sum()) // (self.batch_size * self.config.n_ctx))

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for _ in range(len(self)):
            if self.refresh_steps and self.position % self.refresh_steps == 0:
                self.refresh()
            # Counted first: the last batch of an epoch is taken from a generator that is not resumed.
            self.position += 1
            yield self.batch(self.position - 1)

    def batch(self, number: int) -> dict[str, Tensor]:
        """Batch `number` of the songs loaded."""
        config, ratio = self.config, self.config.upper_ratio
        # Mixed into 32 bits, which are all that a CPU's generator takes of a seed.
        mixed = np.random.SeedSequence((self.seed, number)).generate_state(1)
        generator = torch.Generator(self.device).manual_seed(int(mixed[0]))
        part = self.window_parts[number % len(self.window_parts)]
        count, length = self.batch_size * part, config.n_ctx // part
        draw = torch.rand(count, dtype=torch.float64, device=self.device, generator=generator)
        window = (draw * self._total).long()
        song = torch.searchsorted(self._ends, window, right=True)
        start = (window - self._first_windows[song]) * ratio
        place = self._starts[song] + start
        codes = self._codes[0][place[:, None] + self._offsets[:length]].long()
        batch = {"codes": codes, "labels": codes}
        if config.has_upper_level:
            upper = self._upper_starts[song] + start // ratio
            batch["upper_codes"] = self._codes[1][upper[:, None] + self._offsets[: length // ratio]].long()
        if config.has_labels:
            known = torch.rand(count, device=self.device, generator=generator) >= self.label_dropout
            named = self._names[song]
            # Id 0 is that of the unknown artist and genre; slots without a genre hold -1.
            named = torch.where(known[:, None], named, torch.minimum(named, torch.zeros_like(named)))
            times = torch.stack([self._lengths[song], start, torch.full_like(start, config.n_ctx)], dim=1)
            times = times * config.hop_length
            if config.use_timing:
                times[:, 0].clamp_(min=math.ceil(config.min_duration * config.sampling_rate))
            batch["metadata"] = torch.cat([times, named], dim=1)
        if self.code_noise:
            rate = self.code_noise * torch.rand(len(codes), 1, device=self.device, generator=generator)
            wrong = torch.rand(codes.shape, device=self.device, generator=generator) < rate
            elsewhere = torch.randint(length, codes.shape, device=self.device, generator=generator)
            batch["codes"] = torch.where(wrong, codes.gather(1, elsewhere), codes)
        return batch

    def windows(self, count: int) -> list[dict[str, Tensor]]:
        """The first `count` windows, one by one on the CPU: held-out windows for an evaluation."""
        batches = [self.batch(number) for number in range(-(-count // self.batch_size))]
        return [
            {name: values[index].cpu() for name, values in batch.items()}
            for batch in batches
            for index in range(self.batch_size)
        ][:count]

    def refresh(self) -> int:
        """Load new shards; returns how many songs they held."""
        pattern = f"{self.split}-[0-9][0-9][0-9][0-9][0-9].parquet"
        new = [path for folder in self.folders for path in sorted(folder.glob(pattern)) if path not in self._shards]
        if not new:
            return 0
        before = self.num_songs
        codes: list[list[np.ndarray]] = [[] for _ in self._levels]
        for path in new:
            self._read(path, codes)
            self._shards.add(path)
        for level, chunks in enumerate(codes):
            if chunks:
                loaded = torch.from_numpy(np.concatenate(chunks)).to(self.device)
                self._codes[level] = torch.cat([self._codes[level], loaded])
        self._index()
        return self.num_songs - before

    def _read(self, path: Path, codes: list[list[np.ndarray]]) -> None:
        """Append a shard's songs that are as long as a window to `codes` and to the tables."""
        import pyarrow.parquet

        config, ratio = self.config, self.config.upper_ratio
        columns = [f"codes_{level}" for level in self._levels]
        there = pyarrow.parquet.read_schema(path).names
        if missing := [column for column in columns if column not in there]:
            raise ValueError(f"{path} has no column `{missing[0]}`, only {', '.join(there)}")
        labels = [column for column in ("artist", "genre") if column in there and self._vocabulary is not None]
        table = pyarrow.parquet.read_table(path, columns=[*columns, *labels]).combine_chunks()
        rows = table.select(labels).to_pylist() if labels else [{}] * len(table)
        # Codes loaded before, in memory or read from earlier shards.
        first = [len(own) + sum(map(len, chunks)) for own, chunks in zip(self._codes, codes, strict=True)]
        lists = [table[column].combine_chunks() for column in columns]
        songs, ids = [], []
        for row, names in enumerate(rows):
            own = [column[row].values.to_numpy(zero_copy_only=False) for column in lists]
            length = min([len(own[0])] + [len(upper) * ratio for upper in own[1:]])
            if length < config.n_ctx:
                continue
            sizes = [config.codebook_size, config.upper_codebook_size or config.codebook_size]
            for values, size in zip(own, sizes, strict=False):
                check_codes(values, size, str(path))
            for chunks, values in zip(codes, own, strict=True):
                chunks.append(values.astype(np.int16))
            songs.append((first[0], first[-1], length))
            ids.append(self._ids_of(names))
            first = [place + len(values) for place, values in zip(first, own, strict=True)]
        if songs:
            self._table = np.concatenate([self._table, np.array(songs, dtype=np.int64)])
            self._ids = np.concatenate([self._ids, np.array(ids, dtype=np.int64)])

    def _ids_of(self, names: JsonObject) -> list[int]:
        """Artist and genre slots of a song."""
        slots = self.config.max_genres
        if self._vocabulary is None:
            return [0, *[-1] * slots]
        artist, genres = name_ids(self._vocabulary, names.get("artist"), names.get("genre"))
        return [artist, *[*genres, *[-1] * slots][:slots]]

    def _index(self) -> None:
        """Put the tables of songs where batches are drawn."""
        config = self.config
        windows = (self._table[:, 2] - config.n_ctx) // config.upper_ratio + 1
        ends = np.cumsum(windows)
        self._total = int(ends[-1]) if len(ends) else 0

        def placed(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)

        self._ends, self._first_windows = placed(ends), placed(ends - windows)
        self._starts, self._upper_starts, self._lengths = (placed(self._table[:, column]) for column in range(3))
        self._names = placed(self._ids)
        self._offsets = torch.arange(config.n_ctx, device=self.device)
