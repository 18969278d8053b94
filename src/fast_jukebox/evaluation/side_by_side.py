"""Several models judged in the same way on one folder of songs, with intervals, floors and differences."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from fast_jukebox.audio.io import audio_info, save_audio
from fast_jukebox.data.songs import SongLimits, load_songs
from fast_jukebox.data.splits import DEFAULT_TEST_FRACTION
from fast_jukebox.evaluation.clap import Clap, mean_cosine
from fast_jukebox.evaluation.comparison import Comparison, compare_sets
from fast_jukebox.evaluation.controls import white_noise
from fast_jukebox.evaluation.distance import Estimate, bootstrap_mean, median_distance
from fast_jukebox.evaluation.embeddings import AudioEmbedding, EmbeddingSet, Sound, read_sound, sound_name
from fast_jukebox.evaluation.shards import embed_in_shards, encode_in_shards, measure_songs, predict_in_shards
from fast_jukebox.evaluation.song_likelihood import SongBits, windows_of_songs
from fast_jukebox.evaluation.song_metrics import METRICS, measure_song
from fast_jukebox.evaluation.systems import (
    System,
    load_system,
    reconstruct_songs,
    sample_paths,
    sample_system,
    system_loader,
    vqvae_loader,
)
from fast_jukebox.models.fast_jukebox import FastJukeboxConfig, FastJukeboxModel
from fast_jukebox.sessions.fingerprint import model_facts
from fast_jukebox.utils.files import clear_temporary
from fast_jukebox.utils.workers import Workers

LOWEST_RATE = 8000
"""Samples a second that the song metrics need; sound of a lower rate has none."""

SHORTEST_SECONDS = 0.6
"""Length of a song that they need."""

SONGS, NOISE = "songs", "white noise"
"""Names of the rows that are no systems; the reconstructions of a system are called after it."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation, the same for all systems.

    Attributes:
        songs: folder of real songs, or the Hub's name of a dataset.
        output: folder of everything that is made; what stands there is gone on with.
        num_samples: songs of each system.
        duration: seconds of each, and of each real song from its start.
        seed: of the samples, the bootstrap and the floors.
        max_songs: real songs that the samples are held against, at most.
        max_windows: held-out windows that each prior predicts.
        batch_size: songs sampled at once, windows predicted at once.
        resamples: of the bootstrap.
        test_fraction: fraction of the songs held out where none are marked.
        text: what the samples should sound like, for the CLAP score.
        reconstruct: songs through each VQ-VAE's codes, as a separate row; 0 for none.
        device: where models and embeddings compute.
    """

    songs: str
    output: Path
    num_samples: int = 12
    duration: float = 10.0
    seed: int = 0
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
        if self.duration < SHORTEST_SECONDS:
            raise ValueError(f"`duration` must be at least {SHORTEST_SECONDS} s, got {self.duration:g}")
        if self.resamples < 20:
            raise ValueError(f"`resamples` must be at least 20, got {self.resamples}")
        if self.num_samples < 2 or self.max_songs < 2:
            raise ValueError("`num_samples` and `max_songs` must be at least 2: one song has no interval")


@dataclass
class SetResult:
    """Metrics of one set of songs.

    Attributes:
        name: of the system, or of what else it is.
        songs: how many.
        numbers: estimates by name.
        floors: what real songs get, for those that have a floor: mean and standard deviation.
        vqvae: fingerprint of a system's VQ-VAE: bits per code are compared where it is the same.
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


def evaluate_systems(
    systems: Sequence[System],
    settings: EvaluationSettings,
    judges: Judges,
    songs: tuple[Sequence[Sound], Sequence[Sound]],
    progress: Progress = print,
    workers: Workers | None = None,
) -> list[SetResult]:
    """Sample each system in the same way, and measure samples, real songs, reconstructions and noise.

    Samples, embeddings and what was measured of each song are kept in `settings.output` as they are made. Called again,
    it goes on where it was.

    Args:
        systems: the models.
        settings: how.
        judges: the networks.
        songs: real songs and those of them that are held out, as [`real_songs`] gives them.
        progress: called with one line on what is done.
        workers: processes that reconstruct songs, sample, measure and embed, and predict the held-out songs; the
            calling one by default.

    Returns:
        The real songs, each VQ-VAE's reconstructions of them, each system, and white noise.

    Raises:
        ValueError: an output that holds songs that were sampled otherwise, a system with the name of another row, or
            songs too short for a system's priors.
    """
    _check_systems(systems, settings)
    reference, held_out = songs
    workers = workers or Workers()
    settings.output.mkdir(parents=True, exist_ok=True)
    clear_temporary(settings.output)
    measured_of = partial(_measured, settings=settings, judges=judges, progress=progress, workers=workers)
    progress(f"{len(reference)} real songs to compare with, {len(held_out)} of them held out")
    songs_key = songs_digest(reference, settings.duration)
    real = measured_of(SONGS, reference, f"songs-{songs_key}")
    for heard in real.embeddings:
        median_distance(heard.windows)  # refuses songs that sound all alike before anything is sampled
    results, reconstructed, sets = [real.result], {}, [real]
    for system in systems:
        progress(f"{system.name}: loading {system.source}")
        model = load_system(system.source, settings.device)
        facts = model_facts(model, "")
        if settings.reconstruct and facts.vqvae not in reconstructed:
            folder = settings.output / f"reconstructions-{facts.vqvae[:12]}-{songs_key}"
            load = vqvae_loader(model, system.source, workers)
            paths = reconstruct_songs(load, reference[: settings.reconstruct], folder, settings.duration, workers)
            name = f"songs through the codes of {system.name}"
            reconstructed[facts.vqvae] = measured_of(name, paths, folder.name)
            sets.append(reconstructed[facts.vqvae])
        folder = settings.output / "samples" / system.name
        done = partial(_report_sampled, progress, system.name, settings.num_samples)
        paths = sample_system(
            model, folder, settings.num_samples, settings.duration, settings.seed,
            batch_size=settings.batch_size, after=done, workers=workers, source=system.source,
        )  # fmt: skip
        measured = measured_of(system.name, paths, f"samples/{system.name}")
        measured.result.vqvae = facts.vqvae
        measured.result.parameters = sum(value.numel() for value in model.priors.parameters())
        bits = _predict(model, facts.vqvae, system, held_out, settings, workers)
        measured.result.predicted = tuple(len(own.bits) for own in bits)
        for level, own in enumerate(bits):
            measured.result.numbers[f"bits_per_code_{level}"] = own.estimate(settings.resamples, settings.seed)
        progress(f"{system.name}: predicted the held-out songs")
        sets.append(measured)
        del model
    noise = _noise(settings)
    sets.append(measured_of(NOISE, noise, noise[0].parent.name))
    for each in sets[1:]:
        _compare(each, real, settings)
    results += [each.result for each in sets[1:]]
    return results


def differences(results: Sequence[SetResult], baseline: str, systems: Sequence[str]) -> dict[str, dict[str, Estimate]]:
    """Each system's numbers less the baseline's, with intervals; bits per code only where the VQ-VAE is the same."""
    by_name = {result.name: result for result in results}
    base = by_name[baseline]
    found: dict[str, dict[str, Estimate]] = {}
    for name in systems:
        own = by_name[name]
        if name == baseline:
            continue
        found[name] = {
            number: estimate.minus(base.numbers[number])
            for number, estimate in own.numbers.items()
            if number in base.numbers
            and len(estimate.resamples) == len(base.numbers[number].resamples)
            and (own.vqvae == base.vqvae or not number.startswith("bits_per_code"))
        }
    return found


def real_songs(settings: EvaluationSettings, judges: Judges) -> tuple[list[Sound], list[Sound]]:
    """Songs that samples are held against, and those of them that are held out: files of the folder.

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
    held_out = [_source(song) for song in songs["test"]["audio"]] if "test" in songs else []
    others = [_source(song) for song in songs["train"]["audio"]] if "train" in songs else []
    reference = [*held_out, *others][: settings.max_songs]
    held_out = held_out[: settings.max_songs]
    if len(reference) < 2 or not held_out:
        raise ValueError(
            f"`songs` {settings.songs} must hold at least 2 songs of {settings.duration:g} s, one of them held out, "
            f"got {len(reference)} and {len(held_out)}"
        )
    return reference, held_out


def songs_digest(sounds: Sequence[Sound], duration: float) -> str:
    """Eight hexadecimal digits that change with the files, their order or the seconds that are used."""
    digest = hashlib.sha256(f"{duration}".encode())
    for number, sound in enumerate(sounds):
        info = audio_info(sound)
        name = sound_name(sound, number)
        size = Path(name).stat().st_size if Path(name).is_file() else info.frames
        digest.update(f"{Path(name).name} {size} {info.frames} {info.sampling_rate}".encode())
    return digest.hexdigest()[:8]


def _check_systems(systems: Sequence[System], settings: EvaluationSettings) -> None:
    """Refuse what would be found out only after songs are sampled."""
    for system in systems:
        if system.name in (SONGS, NOISE):
            raise ValueError(f"a model must not be called {system.name!r}, as another row of the report is: NAME=MODEL")
        config = FastJukeboxConfig.from_pretrained(system.source)
        hop = config.vqvae_config.hop_lengths[-1]
        samples = math.ceil(settings.duration * config.vqvae_config.sampling_rate) // hop * hop
        longest = max(prior.n_ctx * prior.hop_length for prior in config.prior_configs)
        if samples < longest:
            raise ValueError(
                f"`duration` must be at least {longest / config.vqvae_config.sampling_rate:.3g} s, the longest context "
                f"of the priors of {system.name}, which predict the held-out songs; got {settings.duration:g}"
            )


@dataclass
class _Measured:
    result: SetResult
    embeddings: list[EmbeddingSet]


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
    result = SetResult(name, len(sounds))
    measure = partial(_metrics, duration=settings.duration)
    rows = measure_songs(measure, sounds, folder / f"metrics-{len(sounds)}.json", workers)
    scorer = judges.scorer
    if scorer is not None:
        path = folder / f"scores-{scorer.version}-{len(sounds)}.json"
        scores = measure_songs(partial(scorer, duration=settings.duration), sounds, path, workers)
        rows = [row | score for row, score in zip(rows, scores, strict=True)]
    for number in dict.fromkeys(number for row in rows for number in row):  # of a low rate a song has fewer
        values = torch.tensor([row.get(number, math.nan) for row in rows], dtype=torch.float64)
        result.numbers[number] = mean_of(values, settings.resamples, settings.seed)

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
    return _Measured(result, embeddings)


def _metrics(sound: Sound, duration: float) -> dict[str, float]:
    rate = audio_info(sound).sampling_rate
    if rate < LOWEST_RATE:
        return {}
    metrics = asdict(measure_song(read_sound(sound, rate, duration=duration), rate))
    return {name: float(metrics[name]) for name in METRICS}


def mean_of(values: torch.Tensor, resamples: int, seed: int) -> Estimate:
    """Mean of the finite values (n,) with its interval; NaN where there is none."""
    kept = values[values.isfinite()]
    if not len(kept):
        return Estimate(math.nan, math.nan, math.nan, torch.empty(0, dtype=torch.float64), 0)
    return bootstrap_mean(kept, resamples, seed)


def _predict(
    model: FastJukeboxModel,
    vqvae: str,
    system: System,
    sounds: Sequence[Sound],
    settings: EvaluationSettings,
    workers: Workers,
) -> list[SongBits]:
    """Bits of each prior for the held-out songs; codes are kept for all systems of a VQ-VAE, and bits for each."""
    key = songs_digest(sounds, settings.duration)
    path = settings.output / f"codes-{vqvae[:12]}-{key}.safetensors"
    load = vqvae_loader(model, system.source, workers)
    codes = encode_in_shards(load, sounds, path, settings.duration, workers)
    songs = list(windows_of_songs(codes, [prior.config for prior in model.priors], settings.max_windows))
    path = settings.output / "samples" / system.name / f"song-bits-{key}-{settings.max_windows}.json"
    return predict_in_shards(system_loader(model, system.source, workers), songs, path, settings.batch_size, workers)


def _noise(settings: EvaluationSettings) -> list[Path]:
    folder = settings.output / f"noise-{settings.duration:g}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = sample_paths(folder, min(4, settings.num_samples))
    for seed, path in enumerate(paths):
        if not path.is_file():
            save_audio(path, white_noise(settings.duration, 44100, seed).clamp(-1, 1), 44100)
    return paths


def _compare(each: _Measured, real: _Measured, settings: EvaluationSettings) -> None:
    """Add the distances from the real songs."""
    for own, reference in zip(each.embeddings, real.embeddings, strict=True):
        found: dict[str, Comparison] = compare_sets(own, reference, resamples=settings.resamples, seed=settings.seed)
        for name, comparison in found.items():
            each.result.numbers[name] = comparison.estimate
            each.result.floors[name] = (comparison.floor.value, comparison.floor.deviation)


def _report_sampled(progress: Progress, name: str, count: int, done: int) -> None:
    progress(f"{name}: {done} of {count} songs sampled")


def _source(audio: Mapping[str, object]) -> Sound:
    return str(audio["path"]) if audio.get("bytes") is None else dict(audio)
