"""Several models judged in the same way on one folder of songs, with intervals, floors and differences."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fast_jukebox.audio.io import audio_info, save_audio
from fast_jukebox.data.codes import encode_songs, load_codes, require_splits
from fast_jukebox.data.manifest import is_complete
from fast_jukebox.evaluation.clap import mean_cosine
from fast_jukebox.evaluation.comparison import Comparison, compare_pitch, compare_sets
from fast_jukebox.evaluation.controls import random_notes, white_noise
from fast_jukebox.evaluation.distance import Estimate, estimate, median_distance
from fast_jukebox.evaluation.embeddings import AudioEmbedding, EmbeddingSet, Sound, read_sound
from fast_jukebox.evaluation.likelihood import predict_by_counts, windows_digest, windows_of_songs
from fast_jukebox.evaluation.pitch import ClipPitch, analyse_song, distance_within
from fast_jukebox.evaluation.reconstruction import reconstruction_metrics
from fast_jukebox.evaluation.settings import FEW, EvaluationSettings, Judges, RealSongs, songs_digest
from fast_jukebox.evaluation.shards import embed_in_shards, measure_songs, predict_in_shards, read_numbers
from fast_jukebox.evaluation.song_metrics import METRICS, measure_song, summarise_songs
from fast_jukebox.evaluation.systems import (
    System,
    claim_songs,
    given_samples,
    load_system,
    load_vqvae,
    loader_of,
    reconstruct_songs,
    sample_paths,
    sample_system,
)
from fast_jukebox.models.fast_jukebox import FastJukeboxConfig, FastJukeboxModel
from fast_jukebox.sessions.fingerprint import model_facts
from fast_jukebox.utils.files import JsonObject, clear_temporary, write_file
from fast_jukebox.utils.text import shown
from fast_jukebox.utils.workers import Workers

if TYPE_CHECKING:
    from datasets import DatasetDict

LOWEST_RATE = 8000
"""Samples a second that the song metrics need; sound of a lower rate has none."""

SONGS, HELD_OUT, TRAINING, NOTES, NOISE = "songs", "held-out songs", "training songs", "random notes", "white noise"
"""Names of the rows that are no systems; the reconstructions of a system are called after it."""

Progress = Callable[[str], None]


@dataclass
class SetResult:
    """Metrics of one set of songs.

    Attributes:
        name: of the system, or of what else it is.
        songs: how many.
        numbers: estimates by name.
        floors: what real songs get, for those that have a floor: mean and standard deviation.
        vqvae: fingerprint of the VQ-VAE of a system or of reconstructions: bits per code are compared where it is the
            same.
        parameters: of a system's priors together.
        predicted: held-out songs that each of a system's priors predicted, bottom first.
    """

    name: str
    songs: int
    numbers: dict[str, Estimate] = field(default_factory=dict)
    floors: dict[str, tuple[float, float]] = field(default_factory=dict)
    vqvae: str | None = None
    parameters: int | None = None
    predicted: tuple[int, ...] = ()


def evaluate_systems(
    systems: Sequence[System],
    settings: EvaluationSettings,
    judges: Judges,
    songs: RealSongs,
    progress: Progress = print,
    workers: Workers | None = None,
) -> list[SetResult]:
    """Sample each system in the same way, and measure samples, real songs, reconstructions and controls.

    Samples, embeddings and what was measured of each song are kept in `settings.output` as they are made. Called again,
    it goes on where it was.

    Args:
        systems: the models.
        settings: how.
        judges: the networks.
        songs: as [`real_songs`] gives them.
        progress: called with one line on what is done.
        workers: processes that encode and reconstruct songs, sample, measure and embed, and predict the held-out songs;
            the calling one by default.

    Returns:
        The real songs, those held out, some to train on, each VQ-VAE's reconstructions, each system, and the controls:
        notes drawn at random and white noise.

    Raises:
        ValueError: an output that holds songs that were sampled otherwise, a system with the name of another row, or
            songs too short for a system's priors.
    """
    _check_systems(systems, settings)
    settings.output.mkdir(parents=True, exist_ok=True)
    clear_temporary(settings.output)
    run = _Evaluation(settings, judges, songs, progress, workers or Workers())
    count = len(songs.held_out)
    progress(f"{len(songs.reference)} real songs to compare with, {count} of them held out")
    real = run.measure(SONGS, songs.reference, f"songs-{songs_digest(songs.reference, settings.duration)}")
    for heard in real.embeddings:
        median_distance(heard.windows)  # refuses songs that sound all alike before anything is sampled
    held_out = _Measured(run.summary(HELD_OUT, real.rows[:count]), real.rows[:count])
    sets = [real, held_out]
    if songs.training:
        key = f"training-{songs_digest(songs.training, settings.duration)}"
        sets.append(run.measure(TRAINING, songs.training, key, judges=Judges([])))
    reconstructed: set[str] = set()
    for system in systems:
        progress(f"{system.name}: loading {system.source}")
        model = load_system(system.source, settings.device)
        vqvae = model_facts(model, "").vqvae
        if settings.reconstruct and vqvae not in reconstructed:
            reconstructed.add(vqvae)
            sets.append(run.judge_reconstructions(model, system, vqvae))
        sets.append(run.judge_system(model, system, vqvae))
        del model
    for name, make in ((NOTES, random_notes), (NOISE, white_noise)):
        paths = _control(name, make, settings)
        sets.append(run.measure(name, paths, paths[0].parent.name))
    for each in sets:
        _compare(each, real, held_out, settings)
    return [each.result for each in sets]


def _through(system: System) -> str:
    """The name of the row of the songs through a system's codes."""
    return f"songs through the codes of {system.name}"


def _check_systems(systems: Sequence[System], settings: EvaluationSettings) -> None:
    """Refuse what would be found out only after songs are sampled."""
    if settings.samples is not None and len(systems) > 1:
        raise ValueError(f"`samples` must be of one model, got {len(systems)} models")
    others = {SONGS, HELD_OUT, TRAINING, NOTES, NOISE, *(_through(system) for system in systems)}
    for system in systems:
        if system.name in others:
            raise ValueError(
                f"a model must not be called {shown(system.name)}, as another row of the report is: NAME=MODEL"
            )
        config = FastJukeboxConfig.from_pretrained(system.source)
        hop = config.vqvae_config.hop_lengths[-1]
        samples = math.ceil(settings.duration * config.vqvae_config.sampling_rate) // hop * hop
        longest = max(prior.n_ctx * prior.hop_length for prior in config.prior_configs)
        if settings.codes is None and samples < longest:
            raise ValueError(
                f"`duration` must be at least {longest / config.vqvae_config.sampling_rate:.3g} s, the longest context "
                f"of the priors of {system.name}, which predict the held-out songs; got {settings.duration:g}"
            )


@dataclass
class _Measured:
    result: SetResult
    rows: list[JsonObject]
    embeddings: list[EmbeddingSet] = field(default_factory=list)

    @property
    def clips(self) -> list[list[ClipPitch]]:
        """Pitch content of each song's clips."""
        return [[ClipPitch.from_json(clip) for clip in row.get("clips", [])] for row in self.rows]


@dataclass(frozen=True)
class _Evaluation:
    """What is the same for all sets of songs; see [`evaluate_systems`]."""

    settings: EvaluationSettings
    judges: Judges
    songs: RealSongs
    progress: Progress
    workers: Workers

    def measure(self, name: str, sounds: Sequence[Sound], key: str, judges: Judges | None = None) -> _Measured:
        """Everything that can be said of a set of songs by itself; embeddings and numbers of each song are kept in the
        folder `key` of the output.
        """
        settings, judges = self.settings, judges or self.judges
        folder = settings.output / key
        folder.mkdir(parents=True, exist_ok=True)
        clear_temporary(folder)
        measure = partial(_metrics, duration=settings.duration)
        rows = measure_songs(measure, sounds, folder / f"metrics-{len(sounds)}.json", self.workers)
        if judges.scorer is not None:
            path = folder / f"scores-{judges.scorer.version}-{len(sounds)}.json"
            scores = measure_songs(partial(judges.scorer, duration=settings.duration), sounds, path, self.workers)
            rows = [row | score for row, score in zip(rows, scores, strict=True)]

        def heard_by(network: AudioEmbedding) -> EmbeddingSet:
            path = folder / f"{network.name}-{network.version}-{len(sounds)}.safetensors"
            there = path.is_file()
            found = embed_in_shards(network, sounds, path, settings.duration, self.workers)
            if not there:
                self.progress(f"{name}: heard by {network.name}")
            return found

        measured = _Measured(self.summary(name, rows), rows, [heard_by(network) for network in judges.embeddings])
        if judges.clap is not None and settings.text:
            texts = judges.clap.embed_texts([settings.text]).expand(len(sounds), -1)
            score = mean_cosine(heard_by(judges.clap), texts, settings.resamples, settings.seed)
            measured.result.numbers[f"{judges.clap.name}_score"] = score
        return measured

    def summary(self, name: str, rows: Sequence[JsonObject]) -> SetResult:
        """Means over songs of their numbers."""
        numbers = [{number: value for number, value in row.items() if number != "clips"} for row in rows]
        return SetResult(name, len(rows), summarise_songs(numbers, self.settings.resamples, self.settings.seed))

    def judge_reconstructions(self, model: FastJukeboxModel, system: System, vqvae: str) -> _Measured:
        """The real songs through the codes of a VQ-VAE of a fingerprint, which is a system's."""
        settings, sounds = self.settings, self.songs.reference[: self.settings.reconstruct]
        key = f"reconstructions-{vqvae[:12]}-{songs_digest(self.songs.reference, settings.duration)}"
        load = loader_of(model.vqvae, load_vqvae, system.source, self.workers)
        paths = reconstruct_songs(load, sounds, settings.output / key, settings.duration, self.workers)
        measured = self.measure(_through(system), paths, key)
        measured.result.vqvae = vqvae
        path = settings.output / key / f"reconstruction-{len(sounds)}.json"
        if not path.is_file():
            rate = model.vqvae.config.sampling_rate
            recordings = (read_sound(sound, rate, duration=settings.duration) for sound in sounds)
            write_file(path, json.dumps(reconstruction_metrics(model.vqvae, recordings)))
        kept = read_numbers(path)  # ratios over all songs, without intervals
        measured.result.numbers |= {name: estimate(value, torch.empty(0), len(sounds)) for name, value in kept.items()}
        return measured

    def judge_system(self, model: FastJukeboxModel, system: System, vqvae: str) -> _Measured:
        """A system's samples, and its priors' bits for the held-out songs. What is wrong with their codes is found
        before songs are sampled.
        """
        settings, codes = self.settings, self.codes(model, vqvae)
        processor = None if settings.codes is None else model.processor
        configs = [prior.config for prior in model.priors]
        windows = list(windows_of_songs(codes["test"], configs, settings.max_windows, processor))
        folder, key = settings.output / "samples" / system.name, f"samples/{system.name}"
        if settings.samples is None:

            def after(done: int) -> None:
                self.progress(f"{system.name}: {done} of {settings.num_samples} songs sampled")

            paths = sample_system(
                model, folder, settings.num_samples, settings.duration, settings.seed, batch_size=settings.batch_size,
                after=after, workers=self.workers, source=system.source,
            )  # fmt: skip
        else:
            paths = given_samples(settings.samples, settings.num_samples)
            claim_songs(folder, model, {"samples": str(settings.samples.resolve())})
            key = f"{key}/given-{songs_digest(paths, settings.duration)}"
        measured = self.measure(system.name, paths, key)
        result = measured.result
        result.vqvae, result.parameters = vqvae, sum(value.numel() for value in model.priors.parameters())
        load = loader_of(model, load_system, system.source, self.workers)
        path = folder / f"song-bits-{windows_digest(windows)}.json"
        own = predict_in_shards(load, windows, path, settings.batch_size, self.workers)
        bits = {"": own} | ({} if settings.codes is None else predict_by_counts(windows, codes["train"], configs))
        draws = settings.resamples, settings.seed
        for name, levels in bits.items():
            for level, found in enumerate(levels):
                result.numbers[f"{name}{'_' if name else ''}bits_per_code_{level}"] = found.estimate(*draws)
        result.numbers |= {f"accuracy_{level}": found.accuracy(*draws) for level, found in enumerate(own)}
        result.predicted = tuple(len(found.bits) for found in own)
        self.progress(f"{system.name}: predicted the held-out songs")
        return measured

    def codes(self, model: FastJukeboxModel, vqvae: str) -> DatasetDict:
        """Codes of at most `max_songs` of each split, of complete songs read where they are, or else made or finished;
        without a folder of them those of the first seconds of the held-out songs.
        """
        from datasets import DatasetDict

        settings, songs, folder = self.settings, self.songs, self.settings.codes

        def first(data: DatasetDict) -> DatasetDict:
            kept = {name: rows.select(range(len(rows))[: settings.max_songs]) for name, rows in data.items()}
            return DatasetDict(kept)

        if folder is None:
            held_out = first(DatasetDict(test=songs.rows["test"]))
            folder = settings.output / f"codes-{vqvae[:12]}-{songs_digest(songs.held_out, settings.duration)}"
            return encode_songs(held_out, model.vqvae, folder, duration=settings.duration, workers=self.workers)
        if is_complete(folder):
            return first(require_splits(load_codes(folder, vqvae=model.vqvae), f"`codes` {folder}"))
        rows = first(require_splits(songs.rows, f"`songs` {settings.songs}"))
        return encode_songs(rows, model.vqvae, folder, workers=self.workers)


def _metrics(sound: Sound, duration: float) -> JsonObject:
    """Metrics of a song and the pitch content of its clips; nothing of a low rate."""
    rate = audio_info(sound).sampling_rate
    if rate < LOWEST_RATE:
        return {}
    audio = read_sound(sound, rate, duration=duration)
    metrics = asdict(measure_song(audio, rate))
    clips = [clip.to_json() for clip in analyse_song(audio, rate)]
    return {**{name: float(metrics[name]) for name in METRICS}, "clips": clips}


def _control(name: str, make: Callable[[float, int, int], torch.Tensor], settings: EvaluationSettings) -> list[Path]:
    """Files of a control, as many as there are samples, but few."""
    folder = settings.output / f"{name.replace(' ', '-')}-{settings.duration:g}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = sample_paths(folder, min(FEW, settings.num_samples))
    for seed, path in enumerate(paths):
        if not path.is_file():
            save_audio(path, make(settings.duration, 44100, seed).clamp(-1, 1), 44100)
    return paths


def _compare(each: _Measured, real: _Measured, held_out: _Measured, settings: EvaluationSettings) -> None:
    """Add the distances from the real songs, and in pitch content from those held out."""
    found: dict[str, Comparison] = {}
    if each is not real:
        found |= compare_pitch(each.clips, held_out.clips, settings.resamples, settings.seed)
        for own, reference in zip(each.embeddings, real.embeddings, strict=False):  # those of some sets are not heard
            found |= compare_sets(own, reference, resamples=settings.resamples, seed=settings.seed)
    for name, comparison in found.items():
        each.result.numbers[name] = comparison.estimate
        each.result.floors[name] = (comparison.floor.value, comparison.floor.deviation)
    if each is held_out and "pitch_distance" in each.result.numbers:  # of one half from the other, not from itself
        each.result.numbers["pitch_distance"] = estimate(distance_within(each.clips), torch.empty(0), each.result.songs)
