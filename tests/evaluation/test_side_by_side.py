import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fast_jukebox.audio import save_audio
from fast_jukebox.audio.io import audio_info
from fast_jukebox.data.codes import CodeWindows, load_codes
from fast_jukebox.evaluation import side_by_side
from fast_jukebox.evaluation.controls import random_notes, white_noise
from fast_jukebox.evaluation.distance import Estimate
from fast_jukebox.evaluation.embeddings import cut_windows, read_sound
from fast_jukebox.evaluation.likelihood import BigramModel, count_likelihood, prior_likelihood
from fast_jukebox.evaluation.pitch import SCALES
from fast_jukebox.evaluation.reconstruction import reconstruction_metrics
from fast_jukebox.evaluation.report import differences
from fast_jukebox.evaluation.settings import EvaluationSettings, Judges, real_songs
from fast_jukebox.evaluation.side_by_side import (
    HELD_OUT,
    NOISE,
    NOTES,
    SONGS,
    TRAINING,
    SetResult,
    evaluate_systems,
)
from fast_jukebox.evaluation.systems import System
from fast_jukebox.models.fast_jukebox import FastJukeboxConfig, FastJukeboxModel
from fast_jukebox.utils.files import temporary_path
from fast_jukebox.utils.workers import Workers

RATE = 8000


class Loudness:
    """Mean, peak and brightness of windows of 0.1 s."""

    name, version, sampling_rate, dimensions, window_samples = "loudness", "1", RATE, 3, 800
    calls, deaf = 0, False

    def __call__(self, audio):
        type(self).calls += 1
        windows = cut_windows(audio, self.window_samples)
        bright = windows.diff(dim=2).abs().mean(dim=2)
        found = torch.stack([windows.abs().mean(dim=2), windows.abs().amax(dim=2), bright], dim=2)
        return found * 0 if self.deaf else found


class Scorer:
    version, value = "1", 0.5

    def __call__(self, sound, duration=None):
        assert duration == 0.8
        return {"valence_AP": self.value}


@pytest.fixture
def model_dirs(tiny_config, tmp_path):
    """Two whole models of 8 kHz with the same VQ-VAE."""
    config = tiny_config
    config.vqvae_config.sampling_rate = RATE
    for prior in config.prior_configs:
        prior.sampling_rate = RATE
    folders = []
    for seed, name in enumerate(("teacher", "student")):
        torch.manual_seed(0)
        model = FastJukeboxModel(config).eval()
        with torch.no_grad():
            for value in model.priors[0].parameters():
                value.add_(0.3 * seed * torch.randn_like(value))
        model.save_pretrained(tmp_path / name)
        folders.append(System(name, str(tmp_path / name)))
    return folders


@pytest.fixture
def settings(tmp_path):
    songs = tmp_path / "songs"
    songs.mkdir()
    for number in range(8):
        tone = 0.3 * torch.sin(2 * torch.pi * (200 + 30 * number) * torch.arange(RATE) / RATE)
        save_audio(songs / f"{number}.wav", tone + 0.01 * torch.randn(RATE), RATE)
    return EvaluationSettings(
        str(songs), tmp_path / "out", num_samples=3, duration=0.8, max_windows=4, resamples=20, reconstruct=2,
        test_fraction=0.4,
    )  # fmt: skip


@pytest.mark.parametrize("rates", [(4000, RATE), (RATE, 4000)])
def test_a_song_of_a_low_rate_does_not_count_in_what_it_lacks(settings, rates):
    paths = [settings.output.parent / f"{number}.wav" for number in range(2)]
    for path, rate in zip(paths, rates, strict=True):
        save_audio(path, 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(rate) / rate), rate)
    found = side_by_side._Evaluation(settings, Judges([]), None, print, Workers()).measure("songs", paths, "songs")
    assert found.result.numbers["noted_fraction"].value > 0.9 and found.result.songs == 2


def test_systems_songs_reconstructions_and_noise_stand_side_by_side(model_dirs, settings):
    told = []
    judges = Judges([Loudness()], scorer=Scorer())
    songs = real_songs(settings, judges)
    results = evaluate_systems(model_dirs, settings, judges, songs, told.append)
    assert [each.name for each in results] == [
        SONGS, HELD_OUT, TRAINING, "songs through the codes of teacher", "teacher", "student", NOTES, NOISE,
    ]  # fmt: skip
    by_name = {each.name: each for each in results}
    teacher = by_name["teacher"].numbers
    assert {"frechet_distance_loudness", "kernel_distance_loudness", "quiet_fraction", "bits_per_code_2"} <= set(
        teacher
    )
    assert teacher["valence_AP"].value == 0.5
    assert "kernel_distance_loudness" not in by_name[SONGS].numbers
    assert by_name[NOISE].numbers["kernel_distance_loudness"].value > 0
    assert by_name[NOTES].numbers["pitch_distance"].value > 0
    assert (by_name[HELD_OUT].songs, by_name[TRAINING].songs) == (len(songs.held_out), 3)
    assert not {"kernel_distance_loudness", "valence_AP"} & by_name[TRAINING].numbers.keys()
    through = by_name["songs through the codes of teacher"]
    kept = reconstruction_metrics(
        FastJukeboxModel.from_pretrained(model_dirs[0].source).vqvae,
        [read_sound(sound, RATE, duration=0.8) for sound in songs.reference[:2]],
    )
    assert {name: through.numbers[name].value for name in kept} == pytest.approx(kept)
    assert through.vqvae == by_name["teacher"].vqvae and 0 <= teacher["accuracy_0"].value <= 1
    assert by_name["teacher"].vqvae == by_name["student"].vqvae
    assert by_name["teacher"].predicted == (4, 4, 4) and by_name[SONGS].predicted == ()
    gaps = differences(results, "teacher", ["teacher", "student"])
    assert set(gaps) == {"student"}
    own = gaps["student"]["bits_per_code_0"]
    assert own.value == pytest.approx(
        by_name["student"].numbers["bits_per_code_0"].value - teacher["bits_per_code_0"].value
    )
    assert any("3 of 3 songs sampled" in line for line in told)

    calls = Loudness.calls
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    left = temporary_path(settings.output / "samples" / "teacher" / "system.json")
    left = left.with_name(left.name.replace(f".{os.getpid()}-", f".{process.pid}-"))
    left.write_text("{")
    again = evaluate_systems(model_dirs, settings, judges, songs, told.append)
    assert Loudness.calls == calls  # everything was kept
    assert not left.exists()
    judges.scorer.version, judges.scorer.value = "2", 0.75
    other = evaluate_systems(model_dirs, settings, judges, songs, told.append)
    assert {each.name: each for each in other}["teacher"].numbers["valence_AP"].value == 0.75
    for one, other in zip(results, again, strict=True):
        assert one.name == other.name
        for name, estimate in one.numbers.items():
            assert estimate.value == pytest.approx(other.numbers[name].value, nan_ok=True)


def test_songs_of_unlike_rates_have_the_numbers_that_they_can_have(model_dirs, settings):
    slow = save_audio(Path(settings.songs) / "0.wav", 0.1 * torch.randn(6000), 6000)  # too slow for the song metrics
    judges = Judges([Loudness()])
    songs = real_songs(settings, judges)
    assert str(slow) in songs.reference
    real = evaluate_systems(model_dirs[:1], settings, judges, songs, lambda line: None)[0]
    assert real.songs == 8
    assert real.numbers["quiet_fraction"].songs == 7
    assert math.isfinite(real.numbers["tonal_clarity"].value)


def test_noise_of_another_duration_is_made_anew(model_dirs, settings):
    judges = Judges([Loudness()])
    for model, duration in zip(model_dirs, (0.8, 0.6), strict=True):
        own = replace(settings, duration=duration)
        evaluate_systems([model], own, judges, real_songs(own, judges), lambda line: None)
        assert audio_info(settings.output / f"white-noise-{duration:g}" / "sample-0.flac").duration == duration


def test_what_cannot_be_judged_is_refused_before_anything_is_sampled(model_dirs, settings):
    judges = Judges([Loudness()])
    songs = real_songs(settings, judges)
    with pytest.raises(ValueError, match="must not be called 'white noise'"):
        evaluate_systems([System(NOISE, model_dirs[0].source)], settings, judges, songs)
    through = System("songs through the codes of teacher", model_dirs[1].source)
    with pytest.raises(ValueError, match="must not be called 'songs through the codes of teacher'"):
        evaluate_systems([model_dirs[0], through], settings, judges, songs)
    config = FastJukeboxConfig.from_pretrained(model_dirs[1].source)
    config.prior_configs[2].n_ctx *= 256
    config.prior_configs[2].num_rows *= 256
    config.save_pretrained(model_dirs[1].source)
    with pytest.raises(ValueError, match=r"`duration` must be at least .* s, the longest context of .* of student"):
        evaluate_systems(model_dirs, settings, judges, songs)
    judges.embeddings[0].deaf = True
    with pytest.raises(ValueError, match="`reference` must hold windows that differ, got 64"):
        evaluate_systems(model_dirs[:1], settings, judges, songs)
    assert not (settings.output / "samples").exists()


def test_what_is_predicted_of_codes_of_another_vqvae_is_not_compared():
    def some(value):
        return Estimate(value, value - 1, value + 1, torch.tensor([value, value + 1]), 2)

    of_codes = ("bits_per_code_0", "bigram_bits_per_code_0", "unigram_bits_per_code_0", "accuracy_0")
    results = [
        SetResult(name, 2, {key: some(value) for key in of_codes} | {"repetition": some(2 * value - 1)}, vqvae=name)
        for name, value in (("a", 1.0), ("b", 2.0))
    ]
    gaps = differences(results, "a", ["a", "b"])
    assert set(gaps["b"]) == {"repetition"}
    assert gaps["b"]["repetition"].value == 2.0
    results[1].vqvae = "a"
    assert set(differences(results, "a", ["a", "b"])["b"]) == {"repetition", *of_codes}


def test_too_few_or_too_short_songs_are_refused(settings):
    judges = Judges([Loudness()])
    judges.embeddings[0].window_samples = 2 * RATE
    with pytest.raises(ValueError, match="`duration` must be at least 2 s, the window of loudness"):
        real_songs(settings, judges)
    judges.embeddings[0].window_samples = 800
    with pytest.raises(ValueError, match="song"):
        real_songs(EvaluationSettings(settings.songs, settings.output, duration=5.0), judges)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("num_samples", 1), ("duration", 0), ("duration", 0.3), ("resamples", 3), ("max_songs", 1)],
        *[("max_windows", 0), ("reconstruct", -1), ("seed", -1), ("seed", 2**63), ("duration", 1e9)],
    ],
)
def test_settings_that_measure_nothing_are_refused(field, value, tmp_path):
    with pytest.raises(ValueError, match=f"`{field}`"):
        EvaluationSettings("songs", tmp_path, **{field: value})


def test_files_and_folders_of_something_else_are_not_written_into(settings, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`output` must be a folder, got the file"):
        replace(settings, output=tmp_path / "file")
    with pytest.raises(ValueError, match="codes must be kept in a folder, got the file"):
        replace(settings, codes=tmp_path / "file")
    with pytest.raises(ValueError, match="codes must be kept in a new or empty folder, .* which holds '0.wav'"):
        replace(settings, codes=Path(settings.songs))


def test_bits_of_complete_songs_with_their_names_stand_beside_counts(paired_model, settings, tmp_path):
    paired_model.save_pretrained(tmp_path / "model")
    for number in range(8):
        audio = 0.3 * torch.randn(1600 + 16 * number).clamp(-3, 3)
        save_audio(Path(settings.songs) / f"{number}.wav", audio, 1600)
    rows = [
        {"file_name": f"{number}.wav", "split": "test" if number < 3 else "train", "artist": "harp", "genre": "air"}
        for number in range(8)
    ]
    (Path(settings.songs) / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    system, codes = System("model", str(tmp_path / "model")), tmp_path / "codes"
    settings = replace(settings, codes=codes, max_windows=6)
    songs = real_songs(settings, Judges([]))

    def evaluate():
        results = evaluate_systems([system], settings, Judges([]), songs, lambda line: None)
        return {each.name: each.numbers for each in results}["model"]

    numbers = evaluate()
    model, found = paired_model, load_codes(codes)
    for level, prior in enumerate(model.priors):
        windows = CodeWindows(found["test"], prior.config, max_windows=6, processor=model.processor)
        bits = prior_likelihood(prior, [windows[index] for index in range(len(windows))]).bits_per_code
        assert numbers[f"bits_per_code_{level}"].value == pytest.approx(bits)
        training = [torch.tensor(song[f"codes_{level}"]) for song in found["train"]]
        bigram = BigramModel.fit(training, prior.config.codebook_size)
        for name, counts in (("bigram", bigram), ("unigram", bigram.unigram)):
            bits = count_likelihood(counts, [windows[index] for index in range(len(windows))]).bits_per_code
            assert numbers[f"{name}_bits_per_code_{level}"].value == pytest.approx(bits)
    # Names that are corrected are taken: what is kept is of the windows that were predicted.
    rows = [row | {"artist": "fiddle", "genre": "jig"} for row in rows]
    (Path(settings.songs) / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (codes / "test-00000.parquet").unlink()  # as where the encoding was stopped, which resumes
    songs = real_songs(settings, Judges([]))
    other = evaluate()
    assert other["bits_per_code_2"].value != numbers["bits_per_code_2"].value
    assert other["bits_per_code_0"].value == numbers["bits_per_code_0"].value


def test_songs_sampled_before_are_measured_in_the_order_of_their_numbers(model_dirs, settings, tmp_path, monkeypatch):
    folder = tmp_path / "sampled"
    folder.mkdir()
    for index, name in enumerate(("sample-2", "sample-10", "sample-0")):
        notes = random_notes(1.0, RATE, index, pitch_classes=SCALES["major"])
        save_audio(folder / f"{name}.wav", white_noise(1.0, RATE) if index == 1 else notes, RATE)
    temporary_path(folder / "sample-1.flac").write_bytes(b"fLaC")  # of a program that was killed
    settings = replace(settings, samples=folder, num_samples=2)
    songs = real_songs(settings, Judges([]))
    results = evaluate_systems(model_dirs[:1], settings, Judges([]), songs, lambda line: None)
    own = {each.name: each for each in results}["teacher"]
    assert own.songs == 2 and own.numbers["in_key_fraction"].value > 0.97  # the noise is the third
    assert not list((settings.output / "samples").rglob("*.flac"))
    monkeypatch.chdir(tmp_path)
    again = evaluate_systems(model_dirs[:1], replace(settings, samples=Path("sampled")), Judges([]), songs)
    assert {each.name: each for each in again}["teacher"].songs == 2
    with pytest.raises(ValueError, match="`samples` must be of one model, got 2 models"):
        evaluate_systems(model_dirs, settings, Judges([]), songs)
    with pytest.raises(ValueError, match="`samples` must be a folder with at least 4 .* with 3"):
        replace(settings, num_samples=4)
