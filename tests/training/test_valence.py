import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import EvalPrediction, TrainerCallback, set_seed

from fast_jukebox.models.valence import ValenceConfig, ValenceModel
from fast_jukebox.training.valence import ValenceTrainer, ValenceTrainingArguments, valence_metrics


class Clips(torch.utils.data.Dataset):
    """Clips whose quadrant is the loudest quarter of their bands."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        clip = torch.randn(32, 64, generator=torch.Generator().manual_seed(index))
        clip[8 * (index % 4) : 8 * (index % 4) + 8] += 2
        return {"input_features": clip, "labels": torch.eye(4)[index % 4]}


@pytest.fixture
def trainer(tmp_path):
    config = ValenceConfig(
        num_slices=2, slice_frames=32, num_mel_bins=32, depth_multiplier=0.1, hidden_size=8, num_attention_heads=2,
        intermediate_size=8, labels_from="a test",
    )  # fmt: skip
    args = ValenceTrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=3, per_device_train_batch_size=8, report_to="none", use_cpu=True,
        disable_tqdm=True, save_strategy="no", hub_license="apache-2.0",
    )  # fmt: skip
    return ValenceTrainer(model=ValenceModel(config), args=args, train_dataset=Clips(16), eval_dataset=Clips(8))


def test_it_trains_evaluates_and_writes_a_card(trainer, tmp_path):
    figures = trainer.train_and_save()
    assert {"eval_roc_auc", "eval_pr_auc_AP", "eval_pleasantness_auc", "eval_calibration_error"} <= set(figures)
    trainer.create_model_card()
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "Its labels: a test." in card
    assert "pipeline_tag: audio-classification" in card
    assert "ValenceJudge.from_pretrained" in card
    assert "not what a listener feels" in card
    trainer.model.config.held_out = {"roc_auc": 0.625, "songs": 7, "held_out_by": "artist"}
    trainer.create_model_card()
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| roc auc |  | 0.625 |" in card
    assert "7 held-out songs, apart by artist" in card


def test_clips_and_labels_are_mixed_in_training_alone(trainer, monkeypatch):
    seen = []
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self, *args: torch.tensor(0.25), raising=True)
    monkeypatch.setattr(torch, "randperm", lambda count, device=None: torch.arange(count).flip(0))

    class Model(torch.nn.Module):
        def forward(self, input_features, labels):
            seen.append((input_features, labels))
            return type("Output", (), {"loss": input_features.sum()})()

    inputs = {"input_features": torch.tensor([[1.0], [3.0]]), "labels": torch.eye(4)[:2]}
    model = Model()
    trainer.compute_loss(model.train(), dict(inputs))
    trainer.compute_loss(model.eval(), dict(inputs))
    assert seen[0][0].flatten().tolist() == [2.5, 1.5]
    assert seen[0][1].tolist() == [[0.25, 0.75, 0, 0], [0.75, 0.25, 0, 0]]
    assert seen[1][0].flatten().tolist() == [1.0, 3.0]


def test_metrics_take_the_attention_heads_probabilities():
    labels = np.eye(4, dtype=np.float32)
    found = valence_metrics(EvalPrediction(predictions=(labels, 1 - labels), label_ids=labels))
    assert found["roc_auc"] == 1.0
    assert found["accuracy"] == 1.0


def test_the_model_compiles_in_one_graph(trainer):
    batch = {name: torch.stack([Clips(4)[index][name] for index in range(4)]) for name in Clips(1)[0]}
    torch.compiler.reset()
    compiled = torch.compile(trainer.model, backend="eager", fullgraph=True)
    compiled(**batch).loss.backward()
    trainer.model.eval()
    torch.testing.assert_close(compiled(**batch).loss, trainer.model(**batch).loss)


class Record(TrainerCallback):
    """Optimizer and rate of each step, and the weights before it and the best checkpoint's at that time."""

    def __init__(self):
        self.steps, self.weights, self.best = [], {}, {}

    def on_step_begin(self, args, state, control, model, optimizer, **kwargs):
        self.weights[state.global_step] = {name: value.clone() for name, value in model.state_dict().items()}
        if state.best_model_checkpoint:
            self.best[state.global_step] = load_file(f"{state.best_model_checkpoint}/model.safetensors")

    def on_pre_optimizer_step(self, args, state, control, optimizer, **kwargs):
        inner = optimizer.optimizer
        self.steps.append((type(inner).__name__, inner.param_groups[0]["lr"]))
        if isinstance(inner, torch.optim.SGD):
            group = inner.param_groups[0]
            assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 1e-4, True)


def recipe(folder, **settings):
    """A trainer of 12 epochs of 1 step whose figures fall from the second evaluation on, and what it records."""
    set_seed(3)
    config = ValenceConfig(
        num_slices=2, slice_frames=32, num_mel_bins=32, depth_multiplier=0.1, hidden_size=8, num_attention_heads=2,
        intermediate_size=8,
    )  # fmt: skip
    args = ValenceTrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=8, report_to="none", use_cpu=True, disable_tqdm=True,
        seed=3, **{"num_train_epochs": 12, "save_total_limit": 20} | settings,
    )  # fmt: skip
    record = Record()
    trainer = ValenceTrainer(
        model=ValenceModel(config), args=args, train_dataset=Clips(8), eval_dataset=Clips(4), callbacks=[],
        compute_metrics=lambda _: {"roc_auc": 0.9 if trainer.state.global_step == 2 else 0.5},
    )  # fmt: skip
    trainer.add_callback(record)
    return trainer, record


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training in one piece: its folder, the trainer, what it recorded."""
    folder = tmp_path_factory.mktemp("whole")
    trainer, record = recipe(folder)
    trainer.train()
    return folder, trainer, record


def test_adam_is_followed_by_sgd_at_three_rates_from_the_best_weights_each_time(whole):
    folder, trainer, record = whole
    assert record.steps == [("AdamW", 1e-4)] * 6 + [("SGD", rate) for rate in (1e-3, 1e-4, 1e-5) for _ in range(2)]
    best = load_file(folder / "checkpoint-2" / "model.safetensors")
    assert {step for step in range(3, 12) if same(record.weights[step], best)} == {6, 8, 10}
    assert same(trainer.model.state_dict(), best)
    assert trainer.optimizer.optimizer is trainer.accelerator._optimizers[0].optimizer
    assert len(trainer.accelerator._optimizers) == 1


@pytest.mark.parametrize("step", [4, 6, 7, 8])
def test_a_resumed_training_gives_the_weights_of_one_run(whole, tmp_path, step):
    folder, _, one = whole
    again, two = recipe(tmp_path)
    again.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
    assert two.steps == one.steps[step:]
    assert sorted(two.weights) == list(range(step, 12))
    assert all(same(two.weights[number], one.weights[number]) for number in two.weights)


def test_the_schedule_is_kept_to_fractions_of_the_steps(tmp_path):
    trainer, record = recipe(
        tmp_path, max_steps=5, adam_fraction=0.6, sgd_learning_rates=[0.5, 0.25], learning_rate=0.125
    )
    trainer.train()
    assert record.steps == [("AdamW", 0.125)] * 3 + [("SGD", 0.5), ("SGD", 0.25)]


def test_training_stops_early_by_the_macro_roc_auc(tmp_path):
    trainer, record = recipe(tmp_path, early_stopping_patience=5)
    trainer.train()
    assert trainer.args.metric_for_best_model == "roc_auc"
    assert trainer.args.greater_is_better
    assert len(record.steps) == 7
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-2")


def test_one_optimizer_keeps_the_trainers_schedule(tmp_path):
    trainer, record = recipe(tmp_path, adam_fraction=1, max_steps=2, lr_scheduler_type="linear", save_strategy="no")
    trainer.train()
    assert record.steps == [("AdamW", 1e-4), ("AdamW", 5e-5)]
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_switch_says_that_the_best_weights_are_gone(tmp_path):
    trainer, _ = recipe(tmp_path)
    trainer.create_optimizer()
    trainer.create_scheduler(12)
    trainer.state.best_model_checkpoint = str(tmp_path / "checkpoint-2")
    with pytest.raises(ValueError, match="checkpoint-2 must be there: it has the best weights, which step 6"):
        trainer.switch(6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adam_fraction": 0.0}, "`adam_fraction` must be above 0 and at most 1, got 0.0"),
        ({"sgd_learning_rates": []}, "`sgd_learning_rates` must be numbers of at least 0"),
        ({"sgd_learning_rates": [-1.0]}, "`sgd_learning_rates` must be numbers of at least 0"),
        ({"max_minutes": 1.0}, "`adam_fraction` must be 1 where `max_minutes` or `stop_at` is set, got 0.5"),
    ],
)
def test_settings_that_make_no_schedule_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        ValenceTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **settings)
