"""Several models judged in the same way on one folder of songs, with intervals, floors and differences."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
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
from fast_jukebox.evaluation.distance import Estimate, median_distance
from fast_jukebox.evaluation.embeddings import AudioEmbedding, EmbeddingSet, Sound, read_sound
from fast_jukebox.evaluation.pitch import ClipPitch, analyse_song, distance_within
from fast_jukebox.evaluation.reconstruction import reconstruction_metrics
from fast_jukebox.evaluation.settings import FEW, EvaluationSettings, Judges, RealSongs, songs_digest
from fast_jukebox.evaluation.shards import embed_in_shards, measure_songs, predict_in_shards
from fast_jukebox.evaluation.song_likelihood import SongBits, predict_by_counts, windows_digest, windows_of_songs
from fast_jukebox.evaluation.song_metrics import METRICS, measure_song, summarise_songs
from fast_jukebox.evaluation.systems import (
    System,
    claim_songs,
    given_samples,
    load_system,
    reconstruct_songs,
    sample_paths,
    sample_system,
    system_loader,
    vqvae_loader,
)
from fast_jukebox.models.fast_jukebox import FastJukeboxConfig, FastJukeboxModel
from fast_jukebox.models.vqvae import FastJukeboxVQVAE
from fast_jukebox.processing.files import read_json
from fast_jukebox.sessions.fingerprint import model_facts
from fast_jukebox.utils.files import JsonObject, clear_temporary, write_file
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
    workers = workers or Workers()
    settings.output.mkdir(parents=True, exist_ok=True)
    clear_temporary(settings.output)
    measured_of = partial(_measured, settings=settings, judges=judges, progress=progress, workers=workers)
    count = len(songs.held_out)
    progress(f"{len(songs.reference)} real songs to compare with, {count} of them held out")
    real = measured_of(SONGS, songs.reference, f"songs-{songs_digest(songs.reference, settings.duration)}")
    for heard in real.embeddings:
        median_distance(heard.windows)  # refuses songs that sound all alike before anything is sampled
    sets = [real, _Measured(_summary(HELD_OUT, real.rows[:count], settings), real.rows[:count])]
    if songs.training:
        key = f"training-{songs_digest(songs.training, settings.duration)}"
        sets.append(measured_of(TRAINING, songs.training, key, judges=Judges([])))
    reconstructed: set[str] = set()
    for system in systems:
        progress(f"{system.name}: loading {system.source}")
        model = load_system(system.source, settings.device)
        vqvae = model_facts(model, "").vqvae
        if settings.reconstruct and vqvae not in reconstructed:
            reconstructed.add(vqvae)
            sets.append(_judge_reconstructions(model, system, vqvae, songs, settings, measured_of, workers))
        sets.append(_judge_system(model, system, vqvae, songs, settings, measured_of, progress, workers))
        del model
    for name, make in ((NOTES, random_notes), (NOISE, white_noise)):
        paths = _control(name, make, settings)
        sets.append(measured_of(name, paths, paths[0].parent.name))
    for each in sets:
        _compare(each, real, sets[1], settings)
    return [each.result for each in sets]


def _through(system: System) -> str:
    """The name of the row of the songs through a system's codes."""
    return f"songs through the codes of {system.name}"


def _judge_reconstructions(
    model: FastJukeboxModel,
    system: System,
    vqvae: str,
    songs: RealSongs,
    settings: EvaluationSettings,
    measured_of: Callable[[str, Sequence[Sound], str], _Measured],
    workers: Workers,
) -> _Measured:
    """The real songs through the codes of a VQ-VAE of a fingerprint, which is a system's."""
    sounds = songs.reference[: settings.reconstruct]
    key = f"reconstructions-{vqvae[:12]}-{songs_digest(songs.reference, settings.duration)}"
    load, folder = vqvae_loader(model, system.source, workers), settings.output / key
    paths = reconstruct_songs(load, sounds, folder, settings.duration, workers)
    measured = measured_of(_through(system), paths, key)
    measured.result.vqvae = vqvae
    path = folder / f"reconstruction-{len(sounds)}.json"
    measured.result.numbers |= _reconstruction(model.vqvae, sounds, path, settings.duration)
    return measured


def _judge_system(
    model: FastJukeboxModel,
    system: System,
    vqvae: str,
    songs: RealSongs,
    settings: EvaluationSettings,
    measured_of: Callable[[str, Sequence[Sound], str], _Measured],
    progress: Progress,
    workers: Workers,
) -> _Measured:
    """A system's samples, and its priors' bits for the held-out songs. What is wrong with their codes is found before
    songs are sampled.
    """
    codes = _codes(model, vqvae, songs, settings, workers)
    processor = None if settings.codes is None else model.processor
    configs = [prior.config for prior in model.priors]
    windows = list(windows_of_songs(codes["test"], configs, settings.max_windows, processor))
    folder, key = settings.output / "samples" / system.name, f"samples/{system.name}"
    if settings.samples is None:
        paths = sample_system(
            model, folder, settings.num_samples, settings.duration, settings.seed, batch_size=settings.batch_size,
            after=partial(_report_sampled, progress, system.name, settings.num_samples), workers=workers,
            source=system.source,
        )  # fmt: skip
    else:
        paths = given_samples(settings.samples, settings.num_samples)
        claim_songs(folder, model, {"samples": str(settings.samples.resolve())})
        key = f"{key}/given-{songs_digest(paths, settings.duration)}"
    measured = measured_of(system.name, paths, key)
    measured.result.vqvae = vqvae
    measured.result.parameters = sum(value.numel() for value in model.priors.parameters())
    path = folder / f"song-bits-{windows_digest(windows)}.json"
    load = system_loader(model, system.source, workers)
    found = {"": predict_in_shards(load, windows, path, settings.batch_size, workers)}
    if settings.codes is not None:
        found |= predict_by_counts(windows, codes["train"], configs)
    _add_bits(measured.result, found, settings)
    progress(f"{system.name}: predicted the held-out songs")
    return measured


def _check_systems(systems: Sequence[System], settings: EvaluationSettings) -> None:
    """Refuse what would be found out only after songs are sampled."""
    if settings.samples is not None and len(systems) > 1:
        raise ValueError(f"`samples` must be of one model, got {len(systems)} models")
    others = {SONGS, HELD_OUT, TRAINING, NOTES, NOISE, *(_through(system) for system in systems)}
    for system in systems:
        if system.name in others:
            raise ValueError(f"a model must not be called {system.name!r}, as another row of the report is: NAME=MODEL")
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


def _measured(
    name: str,
    sounds: Sequence[Sound],
    key: str,
    settings: EvaluationSettings,
    judges: Judges,
    progress: Progress,
    workers: Workers,
) -> _Measured:
    """Everything that can be said of a set of songs by itself; embeddings and numbers of each song are kept."""
    folder = settings.output / key
    folder.mkdir(parents=True, exist_ok=True)
    clear_temporary(folder)
    measure = partial(_metrics, duration=settings.duration)
    rows = measure_songs(measure, sounds, folder / f"metrics-{len(sounds)}.json", workers)
    scorer = judges.scorer
    if scorer is not None:
        path = folder / f"scores-{scorer.version}-{len(sounds)}.json"
        scores = measure_songs(partial(scorer, duration=settings.duration), sounds, path, workers)
        rows = [row | score for row, score in zip(rows, scores, strict=True)]
    result = _summary(name, rows, settings)

    def heard_by(network: AudioEmbedding) -> EmbeddingSet:
        path = folder / f"{network.name}-{network.version}-{len(sounds)}.safetensors"
        there = path.is_file()
        found = embed_in_shards(network, sounds, path, settings.duration, workers)
        if not there:
            progress(f"{name}: heard by {network.name}")
        return found

    embeddings = [heard_by(network) for network in judges.embeddings]
    if judges.clap is not None and settings.text:
        found = heard_by(judges.clap)
        texts = judges.clap.embed_texts([settings.text]).expand(len(sounds), -1)
        score = mean_cosine(found, texts, settings.resamples, settings.seed)
        result.numbers[f"{judges.clap.name}_score"] = score
    return _Measured(result, rows, embeddings)


def _metrics(sound: Sound, duration: float) -> JsonObject:
    """Metrics of a song and the pitch content of its clips; nothing of a low rate."""
    rate = audio_info(sound).sampling_rate
    if rate < LOWEST_RATE:
        return {}
    audio = read_sound(sound, rate, duration=duration)
    metrics = asdict(measure_song(audio, rate))
    clips = [clip.to_json() for clip in analyse_song(audio, rate)]
    return {**{name: float(metrics[name]) for name in METRICS}, "clips": clips}


def _summary(name: str, rows: Sequence[JsonObject], settings: EvaluationSettings) -> SetResult:
    numbers = [{number: value for number, value in row.items() if number != "clips"} for row in rows]
    return SetResult(name, len(rows), summarise_songs(numbers, settings.resamples, settings.seed))


def _reconstruction(
    vqvae: FastJukeboxVQVAE, sounds: Sequence[Sound], path: Path, duration: float
) -> dict[str, Estimate]:
    """What the codes of each level keep of songs, measured once and kept; ratios over all songs, without intervals."""
    if not path.is_file():
        recordings = (read_sound(sound, vqvae.config.sampling_rate, duration=duration) for sound in sounds)
        write_file(path, json.dumps(reconstruction_metrics(vqvae, recordings)))
    return {name: _single(value, len(sounds)) for name, value in read_json(path).items()}


def _single(value: float, songs: int) -> Estimate:
    return Estimate(value, math.nan, math.nan, torch.empty(0, dtype=torch.float64), songs)


def _add_bits(result: SetResult, found: Mapping[str, Sequence[SongBits]], settings: EvaluationSettings) -> None:
    """Add the bits that the priors (named by the empty text) and other models need for the held-out songs, by level."""
    for name, levels in found.items():
        for level, own in enumerate(levels):
            key = "_".join([*([name] if name else []), "bits_per_code", str(level)])
            result.numbers[key] = own.estimate(settings.resamples, settings.seed)
    result.predicted = tuple(len(own.bits) for own in found[""])
    for level, own in enumerate(found[""]):
        result.numbers[f"accuracy_{level}"] = own.accuracy(settings.resamples, settings.seed)


def _codes(
    model: FastJukeboxModel, vqvae: str, songs: RealSongs, settings: EvaluationSettings, workers: Workers
) -> DatasetDict:
    """Codes of at most `max_songs` of each split, of complete songs read where they are, or else made or finished;
    without a folder of them those of the first seconds of the held-out songs.
    """
    from datasets import DatasetDict

    def first(data: DatasetDict) -> DatasetDict:
        return DatasetDict({name: rows.select(range(len(rows))[: settings.max_songs]) for name, rows in data.items()})

    folder = settings.codes
    if folder is None:
        held_out = first(DatasetDict(test=songs.rows["test"]))
        folder = settings.output / f"codes-{vqvae[:12]}-{songs_digest(songs.held_out, settings.duration)}"
        return encode_songs(held_out, model.vqvae, folder, duration=settings.duration, workers=workers)
    if is_complete(folder):
        return first(require_splits(load_codes(folder, vqvae=model.vqvae), f"`codes` {folder}"))
    rows = first(require_splits(songs.rows, f"`songs` {settings.songs}"))
    return encode_songs(rows, model.vqvae, folder, workers=workers)


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
        each.result.numbers["pitch_distance"] = _single(distance_within(each.clips), each.result.songs)


def _report_sampled(progress: Progress, name: str, count: int, done: int) -> None:
    progress(f"{name}: {done} of {count} songs sampled")
