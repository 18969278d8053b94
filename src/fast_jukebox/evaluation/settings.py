"""What an evaluation is made of: its settings, the networks that listen, and the real songs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fast_jukebox.audio.io import audio_info
from fast_jukebox.data.manifest import check_codes_folder
from fast_jukebox.data.songs import SongLimits, load_songs
from fast_jukebox.data.splits import DEFAULT_TEST_FRACTION
from fast_jukebox.evaluation.clap import Clap
from fast_jukebox.evaluation.embeddings import AudioEmbedding, Sound, sound_name
from fast_jukebox.evaluation.systems import given_samples, sample_paths
from fast_jukebox.sampling.checks import check_seed

if TYPE_CHECKING:
    from datasets import DatasetDict

SHORTEST_SECONDS = 0.6
"""Length of a song that they need."""

FEW = 24
"""Songs of a control and training songs to measure, at most."""


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation, the same for all systems.

    Attributes:
        songs: folder of real songs, or the Hub's name of a dataset.
        output: folder of everything that is made; what stands there is gone on with.
        num_samples: songs of each system.
        duration: seconds of each, and of each real song from its start.
        seed: of the samples, the bootstrap and the floors.
        codes: folder of codes of the complete songs, made where missing. The priors then predict windows of complete
            songs and receive their names, beside counts of the training songs' codes; without it, windows of the first
            seconds of the held-out songs, and no names.
        samples: folder of songs that the only system has made before, in place of sampling.
        max_songs: real songs that the samples are held against, at most; also of each part of `codes`.
        max_windows: held-out windows that each prior predicts.
        batch_size: songs sampled at once, windows predicted at once.
        resamples: of the bootstrap.
        test_fraction: fraction of the songs held out where none are marked.
        text: what the samples should sound like, for the CLAP score.
        reconstruct: songs through each VQ-VAE's codes, the held-out ones first; 0 for none.
        device: where models and embeddings compute.
    """

    songs: str
    output: Path
    num_samples: int = 12
    duration: float = 10.0
    seed: int = 0
    codes: Path | None = None
    samples: Path | None = None
    max_songs: int = 100
    max_windows: int = 48
    batch_size: int = 4
    resamples: int = 200
    test_fraction: float = DEFAULT_TEST_FRACTION
    text: str | None = None
    reconstruct: int = 12
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse values that nothing can be measured with, naming the field."""
        for name in ("num_samples", "duration", "max_songs", "max_windows", "batch_size"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"`{name}` must be over 0, got {value}")
        longest = SongLimits().max_duration
        if not SHORTEST_SECONDS <= self.duration <= longest:
            raise ValueError(f"`duration` must be from {SHORTEST_SECONDS} to {longest:g} s, got {self.duration:g}")
        if self.resamples < 20:
            raise ValueError(f"`resamples` must be at least 20, got {self.resamples}")
        if self.reconstruct < 0:
            raise ValueError(f"`reconstruct` must be at least 0, got {self.reconstruct}")
        if self.num_samples < 2 or self.max_songs < 2:
            raise ValueError("`num_samples` and `max_songs` must be at least 2: one song has no interval")
        check_seed(self.seed)
        if self.output.exists() and not self.output.is_dir():
            raise ValueError(f"`output` must be a folder, got the file {str(self.output)!r}")
        if self.codes is not None:
            check_codes_folder(self.codes)
        if self.samples is not None:
            given_samples(self.samples, self.num_samples)

    def sample_files(self, system: str) -> list[Path]:
        """The songs of a system: its folder's, whether they are there or not, or those given."""
        if self.samples is not None:
            return given_samples(self.samples, self.num_samples)
        return sample_paths(self.output / "samples" / system, self.num_samples)


class SongScorer(Protocol):
    """Anything that gives a song numbers by name, such as an emotional valence.

    Attributes:
        version: of its weights: numbers of another version are not taken for its own.
    """

    version: str

    def __call__(self, sound: Sound, duration: float | None = None) -> Mapping[str, float]:
        """Numbers of a file's first seconds; NaN for what it does not have."""
        ...


@dataclass
class Judges:
    """The networks that listen.

    Attributes:
        embeddings: for the distances.
        clap: for the CLAP score.
        scorer: gives further numbers of each song.
    """

    embeddings: Sequence[AudioEmbedding]
    clap: Clap | None = None
    scorer: SongScorer | None = None


@dataclass(frozen=True)
class RealSongs:
    """Songs that samples are held against.

    Attributes:
        reference: at most `max_songs`, the held-out ones first.
        held_out: those of them that are held out.
        training: a few of those to train on.
        rows: all songs of both splits, see [`~fast_jukebox.data.songs.load_songs`].
    """

    reference: Sequence[Sound]
    held_out: Sequence[Sound]
    training: Sequence[Sound]
    rows: DatasetDict

    @property
    def counts(self) -> dict[str, float]:
        """Number of songs and hours of each split."""
        hours = {name: sum(split["duration"]) / 3600 for name, split in self.rows.items()}
        songs = {f"{name}_songs": len(split) for name, split in self.rows.items()}
        return {**songs, **{f"{name}_hours": value for name, value in hours.items()}}


def real_songs(settings: EvaluationSettings, judges: Judges) -> RealSongs:
    """The songs of `settings`, as files of the folder.

    Songs that are shorter than `settings.duration` are left out, as samples are not.

    Raises:
        ValueError: fewer than 2 such songs, none held out, or samples shorter than an embedding's window.
    """
    for network in [*judges.embeddings, *([judges.clap] if judges.clap else [])]:
        if settings.duration * network.sampling_rate < network.window_samples:
            raise ValueError(
                f"`duration` must be at least {network.window_samples / network.sampling_rate:.3g} s, the window of "
                f"{network.name}, got {settings.duration:g}"
            )
    limits = SongLimits(min_duration=settings.duration, complete=False)
    songs = load_songs(settings.songs, settings.test_fraction, limits=limits)
    held_out, others = (
        [
            str(audio["path"]) if audio.get("bytes") is None else dict(audio)
            for audio in (songs[split]["audio"] if split in songs else [])
        ]
        for split in ("test", "train")
    )
    reference = [*held_out, *others][: settings.max_songs]
    held_out = held_out[: settings.max_songs]
    if len(reference) < 2 or not held_out:
        raise ValueError(
            f"`songs` {settings.songs} must hold at least 2 songs of {settings.duration:g} s, one of them held out, "
            f"got {len(reference)} and {len(held_out)}"
        )
    return RealSongs(reference, held_out, others[: min(FEW, settings.num_samples)], songs)


def songs_digest(sounds: Sequence[Sound], duration: float) -> str:
    """Eight hexadecimal digits that change with the files, their order or the seconds that are used."""
    digest = hashlib.sha256(f"{duration}".encode())
    for number, sound in enumerate(sounds):
        info = audio_info(sound)
        name = sound_name(sound, number)
        size = Path(name).stat().st_size if Path(name).is_file() else info.frames
        digest.update(f"{Path(name).name} {size} {info.frames} {info.sampling_rate}".encode())
    return digest.hexdigest()[:8]
