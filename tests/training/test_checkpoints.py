"""Runs go on from the last complete checkpoint, whatever a kill left, and finished ones do nothing."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments

from fast_jukebox import FastJukeboxPrior, FastJukeboxVQVAE
from fast_jukebox.data.codes import CodeWindows, encode_songs
from fast_jukebox.data.songs import load_songs
from fast_jukebox.data.windows import SoundWindows, stack_items
from fast_jukebox.distillation import DistillationArguments, DistillationTrainer
from fast_jukebox.training.arguments import FastJukeboxTrainingArguments
from fast_jukebox.training.checkpoints import checkpoint_problem, checkpoint_to_resume, last_checkpoint, read_state
from fast_jukebox.training.prior import PriorTrainer
from fast_jukebox.training.vqvae import VQVAETrainer, VQVAETrainingArguments

COMMON = {
    "max_steps": 6, "save_steps": 2, "per_device_train_batch_size": 2, "use_cpu": True, "report_to": [],
    "disable_tqdm": True, "seed": 3, "learning_rate": 1e-2,
}  # fmt: skip


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    import numpy as np
    import soundfile

    folder = tmp_path_factory.mktemp("songs")
    for index in range(6):
        tone = 0.5 * np.sin(2 * np.pi * (110 + 20 * index) * np.arange(4800) / 1600)
        soundfile.write(folder / f"{index}.wav", tone.astype(np.float32), 1600)
    return folder


@pytest.fixture
def prior(tiny_config, codes, tmp_path):
    """A training of a prior: called with the folder and options, gives the trainer when all is done."""
    vqvae = FastJukeboxVQVAE(tiny_config.vqvae_config).eval()
    data = encode_songs(load_songs(codes, 0.3), vqvae, tmp_path / "codes", progress=False)

    def run(folder, **options):
        torch.manual_seed(0)
        args = FastJukeboxTrainingArguments(output_dir=str(folder), **{**COMMON, **options})
        config = tiny_config.prior_configs[2]
        trainer = PriorTrainer(
            model=FastJukeboxPrior(config),
            args=args,
            train_dataset=CodeWindows(data["train"], config, seed=0),
            eval_dataset=CodeWindows(data["test"], config, max_windows=2),
            data_collator=stack_items,
        )
        trainer.train_and_save()
        return trainer

    return run


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first.keys() | second.keys())


def tear(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "killed before the state": lambda folder: [(folder / n).unlink() for n in ("trainer_state.json", "rng_state.pth")],
    "killed after the configuration": lambda folder: [p.unlink() for p in folder.iterdir() if p.name != "config.json"],
    "killed at once": lambda folder: [p.unlink() for p in folder.iterdir()],
    "torn weights": lambda folder: tear(folder / "model.safetensors"),
    "torn optimizer": lambda folder: tear(folder / "optimizer.pt"),
    "torn state": lambda folder: tear(folder / "trainer_state.json"),
    "empty state": lambda folder: (folder / "trainer_state.json").write_bytes(b""),
    "no configuration": lambda folder: (folder / "config.json").unlink(),
    "torn configuration": lambda folder: (folder / "config.json").write_text("{"),
    "a state that is a list": lambda folder: (folder / "trainer_state.json").write_text("[]"),
    "half of the weights' header": lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 6),
}


def test_a_run_goes_on_from_the_last_complete_checkpoint(prior, tmp_path, caplog):
    whole = prior(tmp_path / "whole")
    wanted = weights(tmp_path / "whole")
    for number, (what, damage) in enumerate(DAMAGES.items()):
        folder = tmp_path / f"run-{number}"
        shutil.copytree(tmp_path / "whole", folder)
        shutil.rmtree(folder / "checkpoint-6")
        for name in ("eval_results.json", "trainer_state.json", "model.safetensors"):
            (folder / name).unlink()
        damage(folder / "checkpoint-4")
        assert last_checkpoint(folder) == folder / "checkpoint-2", what
        assert "checkpoint-4 is incomplete" in caplog.text
        caplog.clear()
        if number < 3:
            again = prior(folder, resume_from_checkpoint="true")
            assert same(weights(folder), wanted), what
            assert again.state.global_step == whole.state.global_step == 6


def test_every_whole_checkpoint_is_taken_for_whole_and_every_lack_is_named(prior, tmp_path):
    prior(tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint-6"
    assert checkpoint_problem(checkpoint) is None
    for name, reason in {"optimizer.pt": "lacks optimizer.pt", "model.safetensors": "lacks model.safetensors"}.items():
        copy = tmp_path / f"without {name}"
        shutil.copytree(checkpoint, copy)
        (copy / name).unlink()
        assert reason in checkpoint_problem(copy)
    assert checkpoint_problem(tmp_path / "without optimizer.pt", only_model=True) is None
    assert "no such folder" in checkpoint_problem(tmp_path / "nowhere")
    assert last_checkpoint(tmp_path / "nowhere") is None
    assert read_state(checkpoint)["global_step"] == 6
    assert read_state(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_a_finished_run_does_nothing(prior, tmp_path, schedule, caplog):
    options = {"lr_scheduler_type": schedule, "resume_from_checkpoint": "true"}
    first = prior(tmp_path / "run", **options)
    wanted, written = weights(tmp_path / "run"), (tmp_path / "run" / "eval_results.json").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        again = prior(tmp_path / "run", **options)
    assert "is finished, with 6 steps: nothing is done" in caplog.text
    assert again.state.global_step == first.state.global_step == 6
    assert same(weights(tmp_path / "run"), wanted)
    assert same(dict(again.model.state_dict()), wanted)
    assert (tmp_path / "run" / "eval_results.json").stat().st_mtime_ns == written
    more = prior(tmp_path / "run", **options, max_steps=8)
    assert more.state.global_step == 8
    assert not same(weights(tmp_path / "run"), wanted)


def test_a_run_that_was_killed_after_its_last_step_is_saved_and_evaluated(prior, tmp_path):
    prior(tmp_path / "run")
    wanted = weights(tmp_path / "run" / "checkpoint-6")
    for name in ("eval_results.json", "trainer_state.json"):
        (tmp_path / "run" / name).unlink()
    tear(tmp_path / "run" / "model.safetensors")
    again = prior(tmp_path / "run", resume_from_checkpoint="true")
    assert again.state.global_step == 6
    assert same(weights(tmp_path / "run"), wanted)
    assert "eval_loss" in json.loads((tmp_path / "run" / "eval_results.json").read_text())


@pytest.mark.parametrize("name", ["all_results.json", "train_results.json", "eval_results.json", "trainer_state.json"])
def test_half_a_file_of_metrics_does_not_stop_the_next_run(prior, tmp_path, name):
    prior(tmp_path / "run")
    wanted = weights(tmp_path / "run")
    tear(tmp_path / "run" / name)
    if name != "eval_results.json":
        (tmp_path / "run" / "eval_results.json").unlink()
    prior(tmp_path / "run", resume_from_checkpoint="true")
    assert same(weights(tmp_path / "run"), wanted)
    together = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert together["eval_loss"] == json.loads((tmp_path / "run" / "eval_results.json").read_text())["eval_loss"]
    assert ("train_loss" in together) == (name != "all_results.json")


def test_old_checkpoints_go_when_the_new_one_stands(prior, tmp_path):
    trainer = prior(tmp_path / "run", save_total_limit=1)
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-6"]
    assert trainer.args.save_total_limit == 1


def test_a_finished_vqvae_keeps_its_codebooks(tiny_config, codes, tmp_path):
    songs = load_songs(codes, 0.3)

    def run():
        torch.manual_seed(0)
        args = VQVAETrainingArguments(output_dir=str(tmp_path / "run"), resume_from_checkpoint="true", **COMMON)
        VQVAETrainer(
            model=FastJukeboxVQVAE(tiny_config.vqvae_config),
            args=args,
            train_dataset=SoundWindows(songs["train"], 160, 1600, seed=0),
            eval_dataset=SoundWindows(songs["test"], 160, 1600),
            data_collator=stack_items,
        ).train_and_save()
        return weights(tmp_path / "run")

    assert same(run(), run())


def test_a_finished_distillation_does_nothing(tiny_config, prior, codes, tmp_path):
    config = tiny_config.prior_configs[2]
    vqvae = FastJukeboxVQVAE(tiny_config.vqvae_config).eval()
    data = encode_songs(load_songs(codes, 0.3), vqvae, tmp_path / "more-codes", progress=False)

    def run():
        torch.manual_seed(0)
        args = DistillationArguments(
            output_dir=str(tmp_path / "run"),
            resume_from_checkpoint="true",
            stages=[{"loss": "prediction", "steps": 6}],
            **{name: value for name, value in COMMON.items() if name != "max_steps"},
        )
        trainer = DistillationTrainer(
            model=FastJukeboxPrior(config),
            teacher=FastJukeboxPrior(config),
            args=args,
            train_dataset=CodeWindows(data["train"], config, seed=0),
            eval_dataset=CodeWindows(data["test"], config, max_windows=2),
            data_collator=stack_items,
        )
        assert " parameters" in trainer.announcement() and "6 steps" in trainer.announcement()
        trainer.train_and_save()
        return trainer.state.global_step, weights(tmp_path / "run")

    (steps, first), (again, second) = run(), run()
    assert steps == again == 6
    assert same(first, second)


def test_a_run_against_the_clock_that_is_finished_does_nothing(prior, tmp_path):
    options = {"max_minutes": 0.01, "max_steps": -1, "resume_from_checkpoint": "true", "save_steps": 1000}
    first = prior(tmp_path / "run", **options)
    wanted = weights(tmp_path / "run")
    again = prior(tmp_path / "run", **options)
    assert again.state.global_step == first.state.global_step > 0
    assert same(weights(tmp_path / "run"), wanted)


@pytest.mark.parametrize("wanted", [None, "false", "true"])
def test_a_first_run_has_nothing_to_resume(tmp_path, wanted):
    args = TrainingArguments(output_dir=str(tmp_path), resume_from_checkpoint=wanted, use_cpu=True)
    assert checkpoint_to_resume(args) is None


def test_a_checkpoint_that_is_named_must_be_whole(prior, tmp_path):
    prior(tmp_path / "run")
    named = str(tmp_path / "run" / "checkpoint-4")
    args = TrainingArguments(output_dir=str(tmp_path), resume_from_checkpoint=named, use_cpu=True)
    assert checkpoint_to_resume(args) == named
    (tmp_path / "run" / "checkpoint-4" / "scheduler.pt").unlink()
    with pytest.raises(ValueError, match=r"`--resume_from_checkpoint`.*lacks scheduler\.pt"):
        checkpoint_to_resume(args)


def test_what_is_trained_is_said(prior, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        prior(tmp_path / "run")
    line = next(line for line in caplog.messages if "Result in" in line)
    for part in ("level 2", " parameters", "on cpu", "batches of 2", "6 steps", str(tmp_path / "run")):
        assert part in line
