import math

import pytest
import torch
from torch.utils.data import Dataset

from fast_jukebox import FastJukeboxVQVAE
from fast_jukebox.data.windows import stack_items
from fast_jukebox.training.vqvae import VQVAETrainer, VQVAETrainingArguments, measure_bandwidth, merge_levels


class Tones(Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, index):
        return {"audio": 0.5 * torch.sin(torch.arange(320) * (0.05 + 0.02 * index))}


@pytest.fixture
def trainer(tiny_config, tmp_path):
    def make(name="run", steps=6, **kwargs):
        torch.manual_seed(0)
        args = VQVAETrainingArguments(
            output_dir=str(tmp_path / name), max_steps=steps, save_steps=3, logging_steps=1, learning_rate=3e-3,
            per_device_train_batch_size=4, per_device_eval_batch_size=4, use_cpu=True, disable_tqdm=True,
            save_strategy="steps", seed=0, **kwargs,
        )  # fmt: skip
        model = FastJukeboxVQVAE(tiny_config.vqvae_config)
        return VQVAETrainer(
            model=model, args=args, train_dataset=Tones(), eval_dataset=Tones(), data_collator=stack_items
        )

    return make


def test_every_term_of_every_level_is_logged_and_falls(trainer):
    run = trainer(steps=60, lr_scheduler_type="constant")
    run.model.config.update(measure_bandwidth(run.train_dataset, run.model.config))
    run.train()
    logs = [entry for entry in run.state.log_history if "loss" in entry]
    for level in range(3):
        assert f"commitment_loss_{level}" in logs[0]
        assert f"multispectral_loss_{level}" in logs[0]
    assert logs[-1]["loss"] < 0.85 * logs[0]["loss"]
    parts = sum(
        logs[-1][f"reconstruction_loss_{level}"]
        + logs[-1][f"multispectral_loss_{level}"]
        + 0.02 * logs[-1][f"commitment_loss_{level}"]
        for level in range(3)
    )
    assert logs[-1]["loss"] == pytest.approx(parts, abs=1e-3)


def test_evaluation_reports_what_the_codes_keep(trainer):
    run = trainer()
    run.train()
    figures = run.evaluate()
    audio = torch.stack([Tones()[index]["audio"] for index in range(16)])
    with torch.no_grad():
        output = run.model.eval()(audio)
    for level in range(3):
        noise = (audio - output.reconstructions[level]).square().sum()
        expected = 10 * math.log10(audio.square().sum() / noise)
        assert figures[f"eval_snr_{level}"] == pytest.approx(expected, abs=1e-3)
        assert figures[f"eval_codebook_used_{level}"] == len(output.codes[level].unique()) / 16
        assert figures[f"eval_spectral_convergence_{level}"] > 0
        assert 1 <= figures[f"eval_codebook_perplexity_{level}"] <= 16


def test_a_resumed_run_is_the_uninterrupted_one(trainer):
    whole = trainer("whole")
    whole.train()
    trainer("parts", steps=3, lr_scheduler_type="constant").train()
    resumed = trainer("parts", lr_scheduler_type="constant")
    resumed.train(resume_from_checkpoint=True)
    constant = trainer("constant", lr_scheduler_type="constant")
    constant.train()
    theirs = constant.model.state_dict()
    for name, value in resumed.model.state_dict().items():
        torch.testing.assert_close(value, theirs[name], atol=1e-6, rtol=0)
    assert not torch.equal(whole.model.levels[0].out.weight, resumed.model.levels[0].out.weight)


def test_levels_trained_apart_are_the_levels_trained_together(trainer, tiny_config):
    models = []
    for level in range(3):
        run = trainer(f"level-{level}", levels=[level], max_grad_norm=0.0)
        run.train()
        assert all(key.endswith(str(level)) for key in run.evaluate() if key.startswith("eval_snr"))
        models.append(run.model)
    merged = merge_levels(models)
    for level, model in enumerate(models):
        theirs = model.levels[level].state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in merged.levels[level].state_dict().items())


def test_what_the_trainer_saves_is_what_loads(trainer, tmp_path):
    run = trainer(steps=3)
    run.train()
    run.save_model(str(tmp_path / "saved"))
    loaded = FastJukeboxVQVAE.from_pretrained(tmp_path / "saved")
    theirs = run.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in loaded.state_dict().items())
    assert "use_cache" not in (tmp_path / "saved" / "config.json").read_text()


def test_only_matching_levels_are_merged(tiny_config):
    model = FastJukeboxVQVAE(tiny_config.vqvae_config)
    with pytest.raises(ValueError, match="one VQ-VAE a level, 3, got 2"):
        merge_levels([model, model])
    other = FastJukeboxVQVAE(type(model.config)(**{**model.config.to_diff_dict(), "width": 6}))
    with pytest.raises(ValueError, match=r"`models\[1\]` differs .* width"):
        merge_levels([model, other, model])


def test_the_bandwidth_is_that_of_the_sound(tiny_config):
    tones = Tones()
    bandwidth = measure_bandwidth(tones, tiny_config.vqvae_config, count=99)
    audio = torch.stack([tones[index]["audio"] for index in range(16)])
    assert bandwidth["bandwidth_l1"] == pytest.approx(audio.abs().mean().item())
    assert bandwidth["bandwidth_l2"] == pytest.approx(audio.square().mean().item())
    assert bandwidth["bandwidth_spectral"] > 0


def test_silence_has_no_bandwidth(tiny_config):
    class Silence(Tones):
        def __getitem__(self, index):
            return {"audio": torch.zeros(320)}

    with pytest.raises(ValueError, match="silent"):
        measure_bandwidth(Silence(), tiny_config.vqvae_config)
