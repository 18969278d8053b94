"""run_prior.py on a model that is there already: bits before and after, runs that add up, an early end."""

import json
import logging

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard

from fast_jukebox import FastJukeboxModel, FastJukeboxPrior, FastJukeboxProcessor, FastJukeboxVQVAE
from fast_jukebox.data.codes import CodeWindows, encode_songs, load_codes
from fast_jukebox.data.songs import load_songs
from fast_jukebox.processing import LabelVocabulary
from fast_jukebox.training.prior import PriorTrainer
from fast_jukebox_cli.merge import merge


@pytest.fixture
def further(scripts, songs, tiny_config, tmp_path, training_options):
    """Runs the script on a base model and six songs; returns its metrics."""
    torch.manual_seed(3)
    vqvae = FastJukeboxVQVAE(tiny_config.vqvae_config)
    vqvae.save_pretrained(tmp_path / "vqvae")
    encode_songs(load_songs(songs, test_fraction=0.3), vqvae, tmp_path / "codes", progress=False)
    FastJukeboxPrior(tiny_config.prior_configs[2]).save_pretrained(tmp_path / "base")

    def run(output, *more, base="base", codes="codes"):
        return scripts["run_prior"].main(
            [
                "--codes", str(tmp_path / codes), "--model_name_or_path", str(tmp_path / base), "--output_dir",
                str(tmp_path / output), "--seed", "7", *training_options, *map(str, more),
            ]
        )  # fmt: skip

    return run


def weights(folder):
    return FastJukeboxPrior.from_pretrained(folder).state_dict()


def test_bits_are_measured_before_and_after_on_new_songs_and_old(further, songs, tmp_path, caplog, tiny_config):
    old = tmp_path / "old"
    old.mkdir()
    for index in range(3):
        sound = 0.3 * np.random.default_rng(index).standard_normal(3200).astype(np.float32)
        soundfile.write(old / f"{index}.wav", sound, 1600)
    vqvae = FastJukeboxVQVAE.from_pretrained(tmp_path / "vqvae")
    encode_songs(load_songs(old, test_fraction=0.3), vqvae, tmp_path / "old-codes", progress=False)
    options = ["--max_steps", 30, "--learning_rate", 0.02, "--hub_license", "cc0-1.0", "--eval_strategy", "steps"]
    with caplog.at_level(logging.INFO):
        figures = further(
            "out", *options, "--eval_steps", 10, "--logging_steps", 5, "--old_codes", tmp_path / "old-codes"
        )
    run = json.loads((tmp_path / "out" / "fine_tuning.json").read_text())["runs"][0]
    assert run["steps"] == 30 and run["minutes"] > 0 and run["learning_rate"] == 0.02
    assert run["songs"] == len(load_codes(tmp_path / "codes")["train"]) and run["hours"] == pytest.approx(
        run["songs"] * 1.5 / 3600
    )
    # The numbers, from the models alone.
    for when, folder in (("before", "base"), ("after", "out")):
        prior = FastJukeboxPrior.from_pretrained(tmp_path / folder).eval()
        for name, codes in (("new songs", "codes"), ("old songs", "old-codes")):
            windows = CodeWindows(load_codes(tmp_path / codes)["test"], tiny_config.prior_configs[2], max_windows=64)
            batch = torch.stack([windows[index]["codes"] for index in range(len(windows))])
            with torch.no_grad():
                nats = prior(batch, labels=batch).loss
            assert run[when][name] == pytest.approx(float(nats) / np.log(2), abs=1e-4)
    assert run["after"]["new songs"] == pytest.approx(figures["eval_bits_per_code"])
    assert run["after"]["new songs"] < run["before"]["new songs"]
    log = caplog.text
    assert "| new songs |" in log and "| old songs |" in log and "bits per code: . trained on, o held out" in log
    assert (tmp_path / "out" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    card = ModelCard.load(tmp_path / "out" / "README.md").text
    change = run["after"]["old songs"] - run["before"]["old songs"]
    assert f"| old songs | {run['before']['old songs']:.3f} | {run['after']['old songs']:.3f} | {change:+.3f} |" in card
    assert "Trained further in 1 run:" in card and "](curves.png)" in card


def test_short_runs_add_up_to_a_long_one(further, tmp_path):
    constant = ["--lr_scheduler_type", "constant", "--learning_rate", "0.01"]
    further("whole", "--max_steps", 5, *constant)
    further("first", "--max_steps", 2, *constant)
    further("second", "--max_steps", 3, *constant, "--continue_run", "true", "--hub_license", "mit", base="first")
    whole, second = weights(tmp_path / "whole"), weights(tmp_path / "second")
    for name, tensor in whole.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=1e-6)
    name = "blocks.0.mlp.expand.weight"
    assert not torch.equal(whole[name], weights(tmp_path / "first")[name])
    runs = json.loads((tmp_path / "second" / "fine_tuning.json").read_text())["runs"]
    assert [run["steps"] for run in runs] == [2, 3]
    assert runs[1]["before"] == pytest.approx(runs[0]["after"])
    card = (tmp_path / "second" / "README.md").read_text()
    assert "Trained further in 2 runs:" in card and "| all |  |  | 5 |" in card
    # Run again, it is finished; a third run with another learning rate has that one.
    further(
        "second",
        "--max_steps",
        3,
        *constant,
        "--continue_run",
        "true",
        "--resume_from_checkpoint",
        "true",
        base="first",
    )
    assert torch.equal(weights(tmp_path / "second")["blocks.0.mlp.expand.weight"], second["blocks.0.mlp.expand.weight"])
    still = ["--lr_scheduler_type", "constant", "--learning_rate", "0"]
    further("third", "--max_steps", 1, *still, "--continue_run", "true", base="second")
    for name, tensor in weights(tmp_path / "third").items():
        assert torch.equal(tensor, second[name]), name


def test_a_run_that_cannot_go_on_exactly_begins_with_the_weights(further, tmp_path, caplog):
    further("first", "--max_steps", 2, "--save_strategy", "no")
    with caplog.at_level(logging.INFO):
        further("second", "--max_steps", 1, "--continue_run", "true", base="first")
    assert "goes on with its weights, and not with its optimizer: it has no checkpoint" in caplog.text
    runs = json.loads((tmp_path / "second" / "fine_tuning.json").read_text())["runs"]
    assert [run["steps"] for run in runs] == [2, 1]
    with caplog.at_level(logging.INFO):
        further("third", "--max_steps", 1, "--continue_run", "true", "--labels", "true", base="second")
    assert "not with its optimizer: the model has grown since" in caplog.text
    assert FastJukeboxPrior.from_pretrained(tmp_path / "third").config.has_labels


def test_an_interrupted_run_keeps_what_it_measured_before(further, tmp_path, monkeypatch):
    options = ["--max_steps", 4, "--save_steps", 2, "--learning_rate", "0.01"]
    with monkeypatch.context() as patch:
        step = PriorTrainer.training_step

        def stop(self, *args, **kwargs):
            if self.state.global_step == 3:
                raise KeyboardInterrupt
            return step(self, *args, **kwargs)

        patch.setattr(PriorTrainer, "training_step", stop)
        with pytest.raises(KeyboardInterrupt):
            further("out", *options)
    kept = json.loads((tmp_path / "out" / "fine_tuning.json").read_text())["runs"][0]
    assert kept["steps"] == 2 and not kept["after"]
    further("out", *options, "--resume_from_checkpoint", "true")
    (run,) = json.loads((tmp_path / "out" / "fine_tuning.json").read_text())["runs"]
    assert run["before"] == kept["before"] and run["steps"] == 4 and run["after"]
    further("whole", *options)
    assert weights(tmp_path / "whole").keys() == weights(tmp_path / "out").keys()
    for name, tensor in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(tmp_path / "out")[name], tensor, rtol=0, atol=1e-6)


def test_a_training_stops_early_and_keeps_its_best(further, tmp_path, caplog):
    options = [
        "--max_steps",
        40,
        "--learning_rate",
        "2",
        "--lr_scheduler_type",
        "constant",
        "--early_stopping_patience",
        2,
        "--eval_strategy",
        "steps",
        "--eval_steps",
        2,
    ]
    figures = further("out", *options)
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    evaluations = {entry["step"]: entry["eval_loss"] for entry in state["log_history"][:-1] if "eval_loss" in entry}
    best = min(evaluations, key=evaluations.__getitem__)
    assert state["global_step"] == best + 4 < 40
    assert figures["eval_loss"] == pytest.approx(evaluations[best], abs=1e-5)
    saved = weights(tmp_path / "out")
    assert further("out", *options, "--resume_from_checkpoint", "true") == figures  # finished: nothing is trained
    assert torch.equal(weights(tmp_path / "out")["blocks.0.mlp.expand.weight"], saved["blocks.0.mlp.expand.weight"])
    # Killed between the last checkpoint and the end: the best is saved all the same.
    for name in ("model.safetensors", "eval_results.json", "trainer_state.json"):
        (tmp_path / "out" / name).unlink()
    again = further("out", *options, "--resume_from_checkpoint", "true")
    assert again["eval_loss"] == pytest.approx(figures["eval_loss"], abs=1e-6)
    with caplog.at_level(logging.INFO):
        further("more", "--max_steps", 1, "--continue_run", "true", base="out")
    assert "it was stopped early" in caplog.text


def test_one_song_alone_can_be_trained_on(further, songs, tmp_path, caplog):
    for path in sorted(songs.iterdir())[1:]:
        path.unlink()
    with caplog.at_level(logging.INFO):
        figures = further(
            "out", "--songs", songs, "--vqvae", tmp_path / "vqvae", "--max_steps", 2, codes="codes-of-one"
        )
    assert "1 songs or clips, held out by time" in caplog.text and figures["eval_bits_per_code"] > 0
    assert "learning rate 0.0001, as no `--learning_rate` is given" in caplog.text
    assert json.loads((tmp_path / "out" / "fine_tuning.json").read_text())["runs"][0]["learning_rate"] == 1e-4
    with pytest.raises(ValueError, match="`--device_codes` must be false where songs are held out by time"):
        further("out", "--device_codes", "true", codes="codes-of-one")


def test_options_about_another_model_need_one(scripts, tmp_path):
    with pytest.raises(ValueError, match="`--model_name_or_path` must name the model"):
        scripts["run_prior"].main(
            [
                "--codes",
                str(tmp_path),
                "--output_dir",
                str(tmp_path / "out"),
                "--old_codes",
                str(tmp_path),
                "--use_cpu",
                "true",
            ]
        )


def test_adapters_learn_the_names_of_new_songs(scripts, songs, tiny_config, tmp_path, training_options, monkeypatch):
    (songs / "metadata.jsonl").write_text(
        "\n".join(json.dumps({"file_name": f"{index}.wav", "artist": ["Cleo", "Ann"][index % 2]}) for index in range(6))
    )
    for config in tiny_config.prior_configs[1:]:
        config.num_artists = config.num_genres = 2
    torch.manual_seed(5)
    base = FastJukeboxModel(tiny_config).eval()
    base.processor = FastJukeboxProcessor.from_vocabulary(LabelVocabulary({"ann": 1}, {"pop": 1}), tiny_config)
    base.save_pretrained(tmp_path / "base")
    arguments = [
        "--songs", str(songs), "--vqvae", str(tmp_path / "base"), "--codes", str(tmp_path / "codes"),
        "--model_name_or_path", str(tmp_path / "base"), "--level", "2", "--lora_rank", "2", "--learning_rate", "0.1",
        "--max_steps", "6", "--output_dir", str(tmp_path / "lora"), *training_options,
    ]  # fmt: skip
    trained = {}
    save = PriorTrainer.save_model

    def keep(self, *args, **kwargs):
        trained["prior"] = self.trained_model()
        save(self, *args, **kwargs)

    monkeypatch.setattr(PriorTrainer, "save_model", keep)
    scripts["run_prior"].main(arguments)
    model = FastJukeboxModel.from_pretrained(tmp_path / "base", adapters={2: tmp_path / "lora"}).eval()
    assert model.config.prior_configs[2].num_artists == model.priors[2].config.num_artists == 3
    assert model.config.prior_configs[1].num_artists == 2
    assert model.processor.vocabularies[model.processor.levels[2].vocabulary].artists["cleo"] == 2
    labels = model.processor({"artist": "Cleo", "unknown": True}).metadata
    assert labels[2][0, 3] == 2 and labels[1][0, 3] == 0
    codes = torch.randint(16, (1, 24))
    metadata = labels[2]
    metadata[:, 0] = 16000
    with torch.no_grad():
        wanted = trained["prior"].eval()(codes, metadata=metadata).logits
    torch.testing.assert_close(model.priors[2](codes, metadata=metadata).logits, wanted, rtol=0, atol=1e-5)
    rows = model.priors[2].label_conditioner.artist_embedding.weight
    old = base.priors[2].label_conditioner.artist_embedding.weight
    assert torch.equal(rows[0], old[0]) and not torch.equal(rows[1], old[1]) and not torch.equal(rows[2], old[1])
    # Merged, saved and loaded it is a model like any other.
    model.save_pretrained(tmp_path / "merged")
    again = FastJukeboxModel.from_pretrained(tmp_path / "merged")
    assert again.generate(duration=0.2, seed=0, metadata={"artist": "Cleo", "unknown": True}).audio.isfinite().all()
    alone = FastJukeboxPrior.from_pretrained(tmp_path / "base", level=2)
    alone.save_pretrained(tmp_path / "alone")
    base.processor.only(2).save_pretrained(tmp_path / "alone")
    merge(str(tmp_path / "alone"), tmp_path / "one", {2: str(tmp_path / "lora")})
    found = FastJukeboxProcessor.find(tmp_path / "one", FastJukeboxPrior.from_pretrained(tmp_path / "one").config)
    assert found.vocabularies[0].artists["cleo"] == 2


def test_adapters_stop_early_too_and_are_measured(further, tmp_path):
    options = ["--max_steps", 30, "--learning_rate", "3", "--lr_scheduler_type", "constant", "--lora_rank", 2]
    figures = further("out", *options, "--early_stopping_patience", 1, "--eval_strategy", "steps", "--eval_steps", 1)
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    evaluations = [entry["eval_loss"] for entry in state["log_history"][:-1] if "eval_loss" in entry]
    assert state["global_step"] < 30 and min(evaluations) < evaluations[-1]
    assert figures["eval_loss"] == pytest.approx(min(evaluations), abs=1e-5)
    (run,) = json.loads((tmp_path / "out" / "fine_tuning.json").read_text())["runs"]
    assert run["after"]["new songs"] == pytest.approx(figures["eval_bits_per_code"])
