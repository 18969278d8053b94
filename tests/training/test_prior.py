import math

import pytest
import torch
from torch.utils.data import Dataset
from transformers import TrainingArguments

from fast_jukebox import FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.data.windows import stack_items
from fast_jukebox.training.prior import PriorTrainer


class Scales(Dataset):
    """Codes that climb by one, with the codes of the level above climbing half as fast."""

    def __init__(self, config):
        self.config = config

    def __len__(self):
        return 16

    def __getitem__(self, index):
        codes = (torch.arange(self.config.n_ctx) + index) % 16
        item = {"codes": codes, "labels": codes}
        if self.config.has_upper_level:
            item["upper_codes"] = codes[:: self.config.upper_ratio].clone()
        return item


@pytest.fixture
def trainer(tiny_config, tmp_path):
    def make(name="run", level=1, steps=6, **kwargs):
        torch.manual_seed(0)
        args = TrainingArguments(
            output_dir=str(tmp_path / name), max_steps=steps, save_steps=3, logging_steps=1, learning_rate=1e-2,
            per_device_train_batch_size=4, per_device_eval_batch_size=5, use_cpu=True, disable_tqdm=True,
            lr_scheduler_type="constant", seed=0, **kwargs,
        )  # fmt: skip
        model = FastJukeboxPrior(tiny_config.prior_configs[level])
        data = Scales(model.config)
        return PriorTrainer(model=model, args=args, train_dataset=data, eval_dataset=data, data_collator=stack_items)

    return make


@pytest.mark.parametrize("level", [0, 2])
def test_training_lowers_the_loss_which_is_logged_in_bits_too(trainer, level):
    run = trainer(level=level, steps=40)
    run.train()
    logs = [entry for entry in run.state.log_history if "bits_per_code" in entry]
    assert logs[0]["bits_per_code"] == pytest.approx(logs[0]["loss"] / math.log(2), abs=1e-4)
    assert logs[0]["bits_per_code"] == pytest.approx(4.0, abs=0.8)
    assert logs[-1]["bits_per_code"] < 0.6 * logs[0]["bits_per_code"]


def test_evaluation_adds_bits_perplexity_and_accuracy(trainer):
    run = trainer()
    run.train()
    figures = run.evaluate()
    batch = stack_items([run.eval_dataset[index] for index in range(16)])
    with torch.no_grad():
        output = run.model.eval()(**batch)
    assert figures["eval_bits_per_code"] == pytest.approx(output.loss.item() / math.log(2), rel=1e-3)
    assert figures["eval_perplexity"] == pytest.approx(math.exp(output.loss.item()), rel=1e-3)
    hits = (output.logits.argmax(-1) == batch["labels"]).float().mean().item()
    assert figures["eval_accuracy"] == pytest.approx(hits, abs=1e-6)


def test_a_resumed_run_is_the_uninterrupted_one(trainer):
    whole = trainer("whole")
    whole.train()
    trainer("parts", steps=3).train()
    resumed = trainer("parts")
    resumed.train(resume_from_checkpoint=True)
    theirs = whole.model.state_dict()
    for name, value in resumed.model.state_dict().items():
        torch.testing.assert_close(value, theirs[name], atol=1e-6, rtol=0)


def test_what_the_trainer_saves_is_what_loads(trainer, tmp_path):
    run = trainer(steps=3)
    run.train()
    run.save_model(str(tmp_path / "saved"))
    loaded = FastJukeboxPrior.from_pretrained(tmp_path / "saved").eval()
    item = stack_items([run.eval_dataset[0]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(**item).logits, run.model.eval()(**item).logits, atol=0, rtol=0)


def test_accumulated_gradients_are_those_of_the_whole_batch(trainer):
    whole = trainer("whole", steps=3)
    whole.train()
    parts = trainer("parts", steps=3, gradient_accumulation_steps=2)
    parts.args.per_device_train_batch_size = 2
    parts._train_batch_size = 2
    parts.train()
    theirs = whole.model.state_dict()
    for name, value in parts.model.state_dict().items():
        torch.testing.assert_close(value, theirs[name], atol=1e-4, rtol=1e-3)


def test_the_rhythm_of_genres_learns_faster(tiny_config, tmp_path):
    fields = {"num_artists": 2, "num_genres": 3, "use_timing": True, "genre_period": 10}
    config = FastJukeboxPriorConfig(**{**tiny_config.prior_configs[2].to_dict(), **fields})
    args = TrainingArguments(output_dir=str(tmp_path), learning_rate=1e-3, weight_decay=0.1, use_cpu=True)
    prior = FastJukeboxPrior(config)
    optimizer = PriorTrainer(model=prior, args=args).create_optimizer()
    rates = {
        id(each): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for each in group["params"]
    }
    assert len(rates) == len(list(prior.parameters()))
    assert rates.pop(id(prior.label_conditioner.rhythm_embedding)) == (1e-2, 0.0)
    assert {rate for rate, _ in rates.values()} == {1e-3}


def test_lyrics_are_told_apart_from_codes(words_config, tmp_path):
    config = words_config.prior_configs[2]
    config.initializer_range = 0.02

    class Songs(Scales):
        def __getitem__(self, index):
            lyrics = torch.full((12,), 1 + index % 3)
            return {**super().__getitem__(index), "metadata": torch.cat([torch.tensor([9600, 0, 384, 1, 1]), lyrics])}

    def run(name, **kwargs):
        torch.manual_seed(0)
        args = TrainingArguments(
            output_dir=str(tmp_path / name), max_steps=3, logging_steps=1, use_cpu=True, disable_tqdm=True, seed=0,
            per_device_eval_batch_size=5, **kwargs,
        )  # fmt: skip
        data = Songs(config)
        model = FastJukeboxPrior(config)
        made = PriorTrainer(model=model, args=args, train_dataset=data, eval_dataset=data, data_collator=stack_items)
        made.train()
        return made, [entry for entry in made.state.log_history if "bits_per_character" in entry]

    trainer, logs = run("whole", per_device_train_batch_size=4)
    assert logs[0]["bits_per_code"] == pytest.approx(math.log2(16), abs=1.0)
    assert logs[0]["bits_per_character"] == pytest.approx(math.log2(79), abs=1.0)
    _, parts = run("parts", per_device_train_batch_size=2, gradient_accumulation_steps=2)
    for ours, theirs in zip(parts, logs, strict=True):
        assert ours["bits_per_code"] == pytest.approx(theirs["bits_per_code"], rel=1e-3)
        assert ours["bits_per_character"] == pytest.approx(theirs["bits_per_character"], rel=1e-3)
    figures = trainer.evaluate()
    with torch.no_grad():
        output = trainer.model.eval()(**stack_items([trainer.eval_dataset[index] for index in range(16)]))
    assert figures["eval_bits_per_code"] == pytest.approx(output.code_loss.item() / math.log(2), rel=1e-3)
    assert figures["eval_bits_per_character"] == pytest.approx(output.lyric_loss.item() / math.log(2), rel=1e-3)
    assert figures["eval_loss"] == pytest.approx(output.loss.item(), rel=1e-3)


# The option's new name is not known to every release of transformers that the package allows.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_checkpointed_gradients_train_alike(trainer):
    plain = trainer("plain", steps=2)
    plain.train()
    saving = trainer("saving", steps=2, gradient_checkpointing=True)
    saving.train()
    theirs = plain.model.state_dict()
    for name, value in saving.model.state_dict().items():
        torch.testing.assert_close(value, theirs[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"bf16": True}], ids=["float32", "bfloat16"])
def test_an_evaluation_before_the_training_leaves_no_trace(trainer, options):
    """Accelerate prepares no model twice: one that it prepared to be evaluated would not be distributed then."""
    run = trainer(**options)
    forward = run.model.forward
    before = run.evaluate()["eval_loss"]
    assert run.accelerator._models == [] and run.model.forward == forward
    assert not hasattr(run.model, "_is_accelerate_prepared")
    run.train()
    assert run.model._is_accelerate_prepared
    other = trainer("other", **options)
    other.train()
    assert all(torch.equal(value, other.model.state_dict()[name]) for name, value in run.model.state_dict().items())
    assert run.evaluate()["eval_loss"] < before
    assert run.accelerator._models  # within and after a training nothing is forgotten


@pytest.mark.parametrize("options", [{}, {"bf16": True}], ids=["float32", "bfloat16"])
def test_attention_of_a_training_in_bfloat16_on_a_cpu_is_not_fused(trainer, options):
    run, seen = trainer(steps=1, **options), []
    run.model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cuda.flash_sdp_enabled()))
    run.train()
    assert seen == [not options]
    assert torch.backends.cuda.flash_sdp_enabled()
