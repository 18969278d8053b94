import pytest
import torch
from huggingface_hub import ModelCard
from torch.utils.data import Dataset

from fast_jukebox import FastJukeboxPrior
from fast_jukebox.data.windows import stack_items
from fast_jukebox.training import trainer as trainer_module
from fast_jukebox.training.prior import PriorTrainer
from fast_jukebox.training.trainer import FastJukeboxTrainingArguments


class Codes(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        codes = (torch.arange(16) + index) % 16
        return {"codes": codes, "labels": codes}


@pytest.fixture
def run(tiny_config, tmp_path):
    def make(**kwargs):
        args = FastJukeboxTrainingArguments(
            output_dir=str(tmp_path / "my-prior"), max_steps=2, use_cpu=True, disable_tqdm=True, **kwargs
        )
        model = FastJukeboxPrior(tiny_config.prior_configs[2])
        run = PriorTrainer(
            model=model, args=args, train_dataset=Codes(), eval_dataset=Codes(), data_collator=stack_items
        )
        run.train()
        return run

    return make


def test_the_card_states_license_settings_and_the_last_evaluation(run, tmp_path):
    trained = run(hub_license="apache-2.0", hub_datasets=["someone/songs"])
    figures = trained.evaluate()
    trained.create_model_card()
    card = ModelCard.load(tmp_path / "my-prior" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "fast-jukebox"
    assert card.data.datasets == ["someone/songs"]
    assert "| steps | 2 |" in card.text
    measured = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert measured["bits per code"] == pytest.approx(figures["eval_bits_per_code"])
    assert not any("runtime" in name for name in measured)


def test_no_card_without_a_license(run):
    with pytest.raises(ValueError, match="`hub_license` must name"):
        run().create_model_card()


def test_no_push_is_begun_without_a_license(tmp_path):
    with pytest.raises(ValueError, match="`hub_license` must name"):
        FastJukeboxTrainingArguments(output_dir=str(tmp_path), push_to_hub=True)


def test_a_push_sends_the_saved_model_with_its_card(run, tmp_path, monkeypatch):
    pushed = {}

    def fake(directory, repo_id, **kwargs):
        pushed.update(directory=directory, repo_id=repo_id, **kwargs)
        return "address"

    monkeypatch.setattr(trainer_module, "push_folder", fake)
    trained = run(hub_license="apache-2.0", hub_model_id="someone/my-prior", hub_private_repo=True)
    assert trained.push_to_hub(commit_message="Finished") == "address"
    assert pushed["repo_id"] == "someone/my-prior"
    assert pushed["private"] is True
    assert pushed["commit_message"] == "Finished"
    folder = tmp_path / "my-prior"
    assert {"config.json", "model.safetensors", "README.md"} <= {path.name for path in folder.iterdir()}
    assert FastJukeboxPrior.from_pretrained(folder).config.level == 2
