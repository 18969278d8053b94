"""A model of random weights measured from songs to card, at toy size."""

import json

import pytest
import soundfile
from huggingface_hub import ModelCard

from fast_jukebox import FastJukeboxConfig, FastJukeboxModel
from fast_jukebox.data.codes import MANIFEST
from fast_jukebox.evaluation.controls import random_notes, white_noise
from fast_jukebox.evaluation.pitch import SCALES
from fast_jukebox.evaluation.report import TEACHER_METRICS
from fast_jukebox.hub import write_model_card

RATE = 8000


@pytest.fixture
def script(scripts):
    return scripts["run_evaluation"]


@pytest.fixture
def model_folder(audible_settings, tmp_path):
    FastJukeboxModel(FastJukeboxConfig.from_dict(audible_settings)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def notes(write_notes, tmp_path):
    write_notes(tmp_path / "songs")
    return tmp_path / "songs"


def options(model, songs, output, *more):
    return ["--model", str(model), "--songs", str(songs), "--output_dir", str(output), "--max_windows", "3",
            "--num_samples", "2", "--duration", "0.55", "--device", "cpu", *more]  # fmt: skip


def test_everything_is_measured_and_written(script, model_folder, notes, tmp_path):
    training = tmp_path / "training.json"
    training.write_text(json.dumps({"text": "On chorales.", "prior-0": {"steps": 7, "batch_size": 2, "seconds": 30}}))
    output = tmp_path / "evaluation"
    more = ["--card", "embedded", "--card_license", "apache-2.0", "--training", str(training)]
    metrics = script.main(options(model_folder, notes, output, *more))

    assert metrics == json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["train_songs"], metrics["test_songs"]) == (4, 2)
    for level in range(3):
        assert metrics[f"bits_per_code_{level}"] == pytest.approx(4.0, abs=0.5)  # random weights, 16 codes
        assert metrics[f"unigram_bits_per_code_{level}"] < 4.5
        assert metrics[f"windows_{level}"] <= 3
        assert metrics[f"spectral_convergence_{level}"] > 0
    assert metrics["songs_in_key_fraction"] > 0.97 > metrics["chromatic_in_key_fraction"]
    assert metrics["training_songs_in_key_fraction"] > 0.97
    assert (metrics["songs_quiet_fraction"], metrics["songs_long_silence"]) == (0, 0)
    assert metrics["noise_noted_fraction"] < 0.6 < 0.9 < metrics["songs_noted_fraction"]
    assert metrics["samples_noted_fraction_low"] <= metrics["samples_noted_fraction"]
    assert (metrics["samples_songs"], metrics["samples_clips"]) == (2, 2)
    assert metrics["songs_distance"] >= 0
    for value in metrics.values():
        assert not isinstance(value, str) or str(tmp_path) not in value
    assert sum(line.startswith("| ") for line in (output / "metrics.md").read_text().splitlines()) > 20
    for name in ("spectrograms.png", "notes.png"):
        assert (output / name).stat().st_size > 1000
    for index in range(2):
        info = soundfile.info(output / f"sample-{index}.flac")
        assert (info.frames, info.samplerate) == (round(0.55 * RATE), RATE)

    card = ModelCard.load(model_folder / "README.md")
    assert card.data.license == "apache-2.0"
    assert 'pipeline("fast-jukebox")(' in card.text
    assert "On chorales." in card.text
    assert "| prior, level 0 | 7 | 2 | 30 s |" in card.text
    assert "bits per code of the prior" in card.text
    assert "| songs | samples of the model (2) | training songs (2) | held-out songs (2) |" in card.text
    assert (model_folder / "spectrograms.png").is_file()


STUDENT_CARD = {
    "name": "ann/student", "description": "Distilled.", "training": "### The top level\n\n| row | 0 | 2 |",
    "license": "mit", "base_model": "ann/teacher", "tags": ["knowledge-distillation"], "datasets": ["ann/songs"],
    "metrics": {TEACHER_METRICS["kl_to_teacher"]: {"top level (2)": 0.25}, "bits per code of the prior": {"top": 987}},
}  # fmt: skip


def test_a_students_card_keeps_what_it_tells_and_has_the_new_figures(script, tmp_path):
    folder, picture = tmp_path / "model", tmp_path / "out" / "spectrograms.png"
    write_model_card(folder, **STUDENT_CARD)
    picture.parent.mkdir()
    picture.write_bytes(b"new")
    metrics = {**{f"snr_{level}": 5.0 for level in range(3)}, "bits_per_code_2": 4.25}
    metrics |= {"command": "python examples/run_evaluation.py", "versions": "Python 3"}

    def renew(**options):
        args = script.EvaluationArguments(model=str(folder), songs="songs", card="model", **options)
        script.check_arguments(args)
        return script.write_card(args, metrics, picture).read_text(encoding="utf-8")

    first = renew()
    card = ModelCard(first)
    assert (card.data.base_model, card.data.license, card.data.datasets) == ("ann/teacher", "mit", ["ann/songs"])
    assert "knowledge-distillation" in card.data.tags
    assert "# ann/student\n\nDistilled." in card.text and STUDENT_CARD["training"] in card.text
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results["KL divergence to the teacher, bits, top level (2)"] == 0.25
    assert results["bits per code of the prior, top"] == 4.25
    assert card.text.count("| bits per code of the prior | top |") == 1 and "| 987 |" not in first
    assert "measured at the end of the distillation" in card.text
    assert (folder / "spectrograms.png").read_bytes() == b"new"

    assert renew(card_license="mit", card_name="ann/student") == first  # nothing is added twice
    # A story of the training that is given replaces the card's.
    (tmp_path / "training.json").write_text(json.dumps({"prior-0": {"steps": 7, "batch_size": 2, "seconds": 30}}))
    text = renew(training=str(tmp_path / "training.json"))
    assert "| prior, level 0 | 7 | 2 | 30 s |" in text and "| row | 0 | 2 |" not in text


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (["--card_license", "apache-2.0"], "`--card_license` must be left out .* 'mit' .* 'apache-2.0'"),
        (["--card_name", "another"], "`--card_name` must be left out .* 'ann/student' .* 'another'"),
    ],
)
def test_a_card_that_says_otherwise_is_not_overruled(script, tmp_path, wrong, match):
    write_model_card(tmp_path, **STUDENT_CARD)
    with pytest.raises(ValueError, match=match):
        script.main(["--model", str(tmp_path), "--songs", str(tmp_path / "missing"), "--card", "model", *wrong])


def test_samples_and_figures_of_a_seed_come_again_and_codes_are_kept(script, model_folder, notes, tmp_path):
    codes = tmp_path / "codes"
    first = script.main(options(model_folder, notes, tmp_path / "first", "--codes", str(codes)))
    written = (codes / MANIFEST).stat().st_mtime_ns
    second = script.main(options(model_folder, notes, tmp_path / "second", "--codes", str(codes), "--max_songs", "2"))
    assert (codes / MANIFEST).stat().st_mtime_ns == written
    sounds = [soundfile.read(tmp_path / name / "sample-1.flac")[0] for name in ("first", "second")]
    assert (sounds[0] == sounds[1]).all()
    assert second["bits_per_code_2"] == first["bits_per_code_2"]
    assert second["train_songs"] == 2


def test_songs_sampled_before_are_measured_in_the_order_of_their_numbers(script, model_folder, notes, tmp_path):
    folder = tmp_path / "sampled"
    folder.mkdir()
    for index, name in enumerate(("sample-2", "sample-10", "sample-0")):
        sound = random_notes(2.0, RATE, index, pitch_classes=SCALES["major"]) if index != 1 else white_noise(2.0, RATE)
        soundfile.write(folder / f"{name}.wav", sound.numpy(), RATE)
    more = ["--samples", str(folder), "--duration", "2"]
    metrics = script.main([*options(model_folder, notes, tmp_path / "out"), *more])
    assert metrics["samples_songs"] == 2
    assert metrics["samples_in_key_fraction"] > 0.97  # the noise is the third
    assert not list((tmp_path / "out").glob("sample-*"))
    with pytest.raises(ValueError, match="`--samples` must be a folder with at least 4 .* with 3"):
        script.main([*options(model_folder, notes, tmp_path / "out"), *more, "--num_samples", "4"])


def test_codes_of_another_model_are_refused(script, model_folder, notes, tmp_path):
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes" / MANIFEST).write_text(json.dumps({"vqvae": "another"}), encoding="utf-8")
    with pytest.raises(ValueError, match="codes"):
        script.main(options(model_folder, notes, tmp_path / "out", "--codes", str(tmp_path / "codes")))


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (["--max_windows", "0"], "max_windows"),
        (["--duration", "-1"], "duration"),
        (["--card", "model"], "card_license"),
        (["--training", "nowhere.json"], "training"),
    ],
)
def test_what_cannot_work_is_said_first(script, tmp_path, wrong, name):
    with pytest.raises(ValueError, match=name):
        script.main(["--model", str(tmp_path), "--songs", str(tmp_path / "missing"), *wrong])


def test_short_samples_and_low_rates_have_no_pitch_figures(script, model_folder, notes, tmp_path, capsys):
    metrics = script.main([*options(model_folder, notes, tmp_path / "out"), "--duration", "0.1"])
    assert "samples_in_key_fraction" not in metrics
    assert "songs_in_key_fraction" in metrics
    assert "No metrics of the samples" in capsys.readouterr().out
