"""The recipe of the embedded default at toy budgets."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("music21", reason="the chorales need the extra [songs]")
pytest.importorskip("tinysoundfont", reason="the chorales need their synthesiser: pip install --no-deps tinysoundfont")

TOY = [
    "--limit", "14", "--prior_limit", "14",
    "--vqvae_steps", "1", "1", "1", "--vqvae_batch_size", "1", "--vqvae_window", "4096",
    "--prior_steps", "1", "1", "1", "--prior_batch_sizes", "1", "1", "1", "--eval_windows", "2",
    "--evaluation_windows", "2", "--evaluation_songs", "1", "--evaluation_samples", "1", "--evaluation_duration", "0.3",
]  # fmt: skip


@pytest.mark.slow
def test_one_command_makes_a_model_and_its_card(repository_root, tmp_path):
    command = [sys.executable, str(repository_root / "examples" / "run_pretrained.py"), "--output_dir", str(tmp_path)]
    subprocess.run([*command, *TOY], check=True)
    from fast_jukebox import FastJukeboxModel

    model = FastJukeboxModel.from_pretrained(tmp_path / "model")
    assert model.generate(duration=0.1, seed=0).audio.isfinite().all()
    assert "bits per code" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8").lower()
    facts = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))
    assert facts["prior-2"]["steps"] == 1

    weights = (tmp_path / "prior-0" / "model.safetensors").stat().st_mtime_ns
    subprocess.run([*command, *TOY], check=True)
    assert (tmp_path / "prior-0" / "model.safetensors").stat().st_mtime_ns == weights


def test_the_card_of_anyone_elses_songs_is_not_the_defaults(scripts):
    script = scripts["run_pretrained"]

    def options(**given):
        return script.card_options(script.RecipeArguments(output_dir="x", **given))

    assert options() == options(start_from=["embedded"]) == {"card": "embedded", "card_license": "apache-2.0"}
    for given in ({"scores": "mine.jsonl"}, {"soundfont": "mine.sf2"}, {"vqvae": "ann/vqvae"}, {"start_from": ["w"]}):
        assert options(**given) == {"card": "none"}
        assert options(**given, license="cc-by-4.0") == {"card": "model", "card_license": "cc-by-4.0"}
        assert options(**given, license="mit", install=True) == {"card": "embedded", "card_license": "mit"}
