import numpy as np
import pytest
import torch
from transformers import EvalPrediction

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
