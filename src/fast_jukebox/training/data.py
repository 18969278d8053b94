"""The codes of a training script: encoded where they are not there yet, with some of them held out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from transformers.hf_argparser import HfArg

from fast_jukebox.data.codes import MANIFEST, CodeWindows, encode_songs, load_codes, require_splits
from fast_jukebox.data.songs import load_songs
from fast_jukebox.data.splits import DEFAULT_TEST_FRACTION
from fast_jukebox.models.prior import FastJukeboxPriorConfig
from fast_jukebox.models.vqvae import FastJukeboxVQVAE
from fast_jukebox.processing import FastJukeboxProcessor

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

logger = logging.getLogger(__name__)


@dataclass
class CodesArguments:
    """The codes.

    Raises:
        ValueError: `test_fraction` is not in [0, 1).
    """

    codes: str = HfArg(help="Folder of codes; made of --songs where it is not there yet.")
    songs: str | None = HfArg(default=None, help="Folder of songs, needed while there are no codes.")
    test_fraction: float = HfArg(
        default=DEFAULT_TEST_FRACTION, help="Fraction of the songs held out where none are marked."
    )
    hold_out: Literal["songs", "time"] = HfArg(
        default="songs",
        help="What is held out: songs, or the end of every song, --test_fraction of it and at least one window, "
        "or one clip where songs were cut into clips. One song alone is always held out by time.",
    )
    max_eval_windows: int = HfArg(default=64, help="Held-out windows in an evaluation.")
    label_dropout: float = HfArg(
        default=0.0, help="Fraction of windows without artist and genre, and of windows without lyrics."
    )

    def load(self, vqvae: FastJukeboxVQVAE | None) -> DatasetDict:
        """The folder's codes, encoded first (or further) where songs and a VQ-VAE are named.

        Args:
            vqvae: whose codes they must be, on the device that encodes; `None` takes any.

        Returns:
            Splits `train` and `test`; `train` alone where the songs are held out by time.

        Raises:
            ValueError: there are no codes and nothing to make them of, or no songs are held out.
        """
        if self.songs and vqvae is not None:
            songs = load_songs(self.songs, test_fraction=self.test_fraction, progress=True)
            if not self._by_time(songs):
                require_splits(songs, f"`--songs` {self.songs}")
            return self._split(encode_songs(songs, vqvae, self.codes))
        if not (Path(self.codes) / MANIFEST).exists() and Path(self.codes).is_dir():
            raise ValueError(f"`--codes` {self.codes} holds no codes: name `--songs` and `--vqvae` to make them")
        codes = self._split(load_codes(self.codes, vqvae=vqvae))
        return codes if self._by_time(codes) else require_splits(codes, f"`--codes` {self.codes}")

    def windows(
        self,
        codes: DatasetDict,
        config: FastJukeboxPriorConfig,
        seed: int,
        processor: FastJukeboxProcessor | None = None,
    ) -> tuple[CodeWindows, CodeWindows]:
        """Windows of [`load`]'s codes to train a prior on, at random places drawn by the seed, and held-out ones."""
        learnt = partial(CodeWindows, seed=seed, processor=processor, label_dropout=self.label_dropout)
        measured = partial(CodeWindows, max_windows=self.max_eval_windows, processor=processor)
        if "test" in codes:
            return learnt(codes["train"], config), measured(codes["test"], config)
        songs, fraction = codes["train"], self.test_fraction
        train = learnt(songs, config, part="train", test_fraction=fraction)
        return train, measured(songs, config, part="test", test_fraction=fraction)

    def _by_time(self, songs: DatasetDict) -> bool:
        return self.hold_out == "time" or len({song for split in songs.values() for song in _songs_of(split)}) == 1

    def _split(self, codes: DatasetDict) -> DatasetDict:
        """The splits; where the songs are held out by time, `train` alone with all of them, or of clips the last ones
        of each song as `test`.
        """
        if not self._by_time(codes):
            return codes
        from datasets import DatasetDict, concatenate_datasets

        rows = concatenate_datasets(list(codes.values()))
        clips: dict[str, list[int]] = {}
        for row, song in enumerate(_songs_of(rows)):
            clips.setdefault(song, []).append(row)
        last = f"held out by time: the last {100 * self.test_fraction:g} % of each"
        if max(map(len, clips.values())) == 1:
            logger.info("%d songs or clips, %s, and at least one window", len(rows), last)
            return DatasetDict({"train": rows})
        starts, held_out = rows["start"], []
        for own in clips.values():
            own.sort(key=lambda row: starts[row])
            count = min(max(round(self.test_fraction * len(own)), 1), len(own) - 1)
            held_out += own[len(own) - count :]
        logger.info("%d clips of %d songs, %s, and at least one clip", len(rows), len(clips), last)
        train = sorted(set(range(len(rows))) - set(held_out))
        return DatasetDict({"train": rows.select(train), "test": rows.select(held_out)})


def _songs_of(rows: Dataset) -> list[str]:
    """The song of each row: where songs were cut into clips the one it is of, else a separate name."""
    if {"song", "start"} <= set(rows.column_names):
        return list(rows["song"])
    return [f"{id(rows)}-{row}" for row in range(len(rows))]
