"""The recipe of the embedded default at toy budgets."""

import json
import subprocess
import sys
import tarfile

import pytest

pytest.importorskip("pretty_midi", reason="the songs need the extra [songs]")
pytest.importorskip("tinysoundfont", reason="the songs need their synthesiser: pip install --no-deps tinysoundfont")

from fast_jukebox import FastJukeboxModel
from fast_jukebox.data.tunes.scores import Score, ScoreNote, choose_splits, save_scores

TOY = [
    "--device", "cpu", "--max_minutes", "4", "--reserve_seconds", "20", "--song_fraction", "0.8", "--songs", "6",
    "--longest", "6", "--processes", "1", "--top_width", "32", "--top_layers", "3", "--top_context", "1024",
    "--top_rows", "32",
    "--top_batch_size", "1", "--batch_size", "1", "--eval_windows", "1", "--warmup_steps", "1", "--evaluate", "false",
]  # fmt: skip


@pytest.fixture
def scores(tmp_path):
    """Jigs and airs of nine seconds or so, of which some are held out."""
    made = []
    for number in range(40):
        pitches = [60 + (number * 7 + 5 * step) % 13 for step in range(60)]
        notes = tuple(ScoreNote(step / 2, 0.5, pitch) for step, pitch in enumerate(pitches))
        genre, metre = (("jig", (6, 8)), ("air", (3, 4)))[number % 2]
        made.append(Score(f"tune-{number}", f"Tune {number}", genre, "A book", 0, "major", metre, notes))
    assert set(choose_splits(made).values()) == {"train", "test"}
    save_scores(tmp_path / "scores.jsonl.gz", made)
    return tmp_path / "scores.jsonl.gz"


def test_songs_that_are_no_window_long_are_refused_before_any_is_played(scripts, scores, tmp_path):
    arguments = ["--output_dir", str(tmp_path / "run"), "--scores", str(scores), "--longest", "6"]
    with pytest.raises(ValueError, match=r"`--longest` must be at least 17.9 seconds, .* `--top_context` 6144"):
        scripts["run_pretrained"].main(arguments)
    assert not (tmp_path / "run" / "codes").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--temperatures", "0.9", "0.8"], "`temperatures` must be one value or a list of 3"),
        (["--temperatures", "0.9", "0.8", "0"], "`temperature` must be .*, got 0"),
        (["--top_rows", "50"], "`num_rows`"),
        (["--top_batch_size", "0"], "`top_batch_size` must be an integer of at least 1, got 0"),
        (["--max_minutes", "0.5"], "`--max_minutes` must be more than the 30 seconds"),
        (["--top_fraction", "0", "--start_from", "embedded"], "`--top_fraction` must be above 0"),
        (["--middle_fraction", "0"], "`--middle_fraction` must be above 0, or `--start_from`"),
        (["--top_window_parts", "1", "3"], "`--top_window_parts` must be divisors of 64"),
        (["--code_noise", "1.5"], "`--code_noise` must be from 0 to 1, got 1.5"),
        (["--evaluation_samples", "1"], "`num_samples` .* must be at least 2"),
    ],
)
def test_what_would_be_found_out_after_the_training_is_refused_before(scripts, scores, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        scripts["run_pretrained"].main(["--output_dir", str(tmp_path / "run"), "--scores", str(scores), *options])
    assert not (tmp_path / "run").exists()


def test_an_installation_that_ends_early_leaves_the_model_before_it(scripts, tmp_path, monkeypatch):
    script = scripts["run_pretrained"]
    model, embedded = tmp_path / "model", tmp_path / "embedded"
    for folder, text, shards in ((model, "new", 2), (embedded, "old", 3)):
        folder.mkdir()
        (folder / "config.json").write_text(text)
        for shard in range(1, shards + 1):
            (folder / f"model-{shard:05d}-of-{shards:05d}.safetensors").write_text(text)
    monkeypatch.setattr(script, "EMBEDDED", embedded)
    before = {path: path.read_text() for path in embedded.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(script.shutil, "copy2", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            script.install(model)
    assert {path: path.read_text() for path in embedded.iterdir()} == before
    script.install(model)
    assert {path.name: path.read_text() for path in embedded.iterdir()} == {
        path.name: "new" for path in model.iterdir()
    }


@pytest.mark.slow
def test_one_command_makes_a_labelled_model_and_goes_on_where_it_was(repository_root, scores, tmp_path):
    output = tmp_path / "run"
    script = repository_root / "examples" / "run_pretrained.py"
    command = [sys.executable, str(script), "--output_dir", str(output), "--scores", str(scores)]
    subprocess.run([*command, *TOY, "--start_from", "embedded"], check=True)

    model = FastJukeboxModel.from_pretrained(output / "model")
    assert all(prior.config.has_labels for prior in model.priors)
    assert ("fiddle", "jig") in model.processor.pairs and ("reed organ", "air") in model.processor.pairs
    made = model.float().generate(duration=0.1, seed=0, metadata={"genre": "jig", "artist": "fiddle"})
    assert made.audio.isfinite().all()
    assert all(file.stat().st_size < 15.5e6 for file in (output / "model").iterdir())
    facts = json.loads((output / "training.json").read_text(encoding="utf-8"))
    assert all(facts[f"prior-{level}"]["steps"] >= 1 for level in range(3))
    with tarfile.open(output / "weights" / "run.tar.gz") as archive:
        assert {"training.json", "prior-top.log", "configs/top/vocabulary.json"} <= set(archive.getnames())

    shards = {path: path.stat().st_mtime_ns for path in (output / "codes" / "melodies").glob("*.parquet")}
    weights = (output / "prior-bottom" / "model.safetensors").stat().st_mtime_ns
    subprocess.run([*command, *TOY], check=True)
    assert (output / "prior-bottom" / "model.safetensors").stat().st_mtime_ns == weights
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
