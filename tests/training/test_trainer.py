import pytest
import torch
from huggingface_hub import ModelCard
from torch.utils.data import Dataset

from fast_jukebox import FastJukeboxPrior
from fast_jukebox.data.windows import stack_items
from fast_jukebox.distillation.trainer import DistillationArguments
from fast_jukebox.training import cards as cards_module
from fast_jukebox.training.arguments import FastJukeboxTrainingArguments
from fast_jukebox.training.prior import PriorTrainer
from fast_jukebox.training.valence import ValenceTrainingArguments
from fast_jukebox.training.vqvae import VQVAETrainingArguments


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


def same(loaded, trained):
    theirs = trained.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in loaded.state_dict().items())


def test_a_push_sends_the_saved_model_with_its_card(hub, run, tmp_path):
    trained = run(hub_license="apache-2.0", hub_model_id="band/my-prior", hub_private_repo=True)
    assert "/band/my-prior/commit/" in trained.push_to_hub(commit_message="Finished")
    repository = hub.repository("band/my-prior")
    assert repository.private and repository.titles[repository.resolve("main")] == "Finished"
    assert {"README.md", "config.json", "model.safetensors"} <= set(hub.files("band/my-prior"))
    assert not {"training_args.bin", "trainer_state.json"} & set(hub.files("band/my-prior"))
    assert ModelCard.load("band/my-prior").data.license == "apache-2.0"
    for source in ("band/my-prior", tmp_path / "my-prior"):
        assert same(FastJukeboxPrior.from_pretrained(source), trained.model)
    trained.push_to_hub(revision="louder", token="token-of-ann")
    assert same(FastJukeboxPrior.from_pretrained("band/my-prior", revision="louder"), trained.model)


def test_a_push_goes_where_and_as_whom_the_arguments_say(run, monkeypatch):
    asked = []
    monkeypatch.setattr(cards_module, "push_folder", lambda folder, name, **more: asked.append((name, more)))
    trained = run(hub_license="mit", hub_model_id="ann/prior", hub_revision="draft", hub_token="secret")
    trained.push_to_hub(commit_message="Finished")
    trained.push_to_hub(revision="main", token="other")
    first, second = asked
    expected = {"private": None, "token": "secret", "revision": "draft", "commit_message": "Finished"}
    assert first == ("ann/prior", expected)
    assert (second[1]["token"], second[1]["revision"]) == ("other", "main")


@pytest.mark.parametrize("strategy", ["end", "every_save"])
def test_a_training_pushes_when_it_is_told_to(hub, run, strategy):
    trained = run(hub_license="mit", push_to_hub=True, hub_strategy=strategy, save_strategy="steps", save_steps=1)
    assert trained.hub_name() == "ann/my-prior"  # the name of the folder, with that of who is logged in
    repository = hub.repository("ann/my-prior")
    titles = [title for title in repository.titles.values() if title != "initial commit"]
    if strategy == "end":
        assert titles == []
        trained.save_model()  # as transformers does, the finished model is pushed when it is saved
        assert same(FastJukeboxPrior.from_pretrained("ann/my-prior"), trained.model)
    else:
        assert titles == ["Training in progress, step 1", "Training in progress, step 2"]
        assert not {"optimizer.pt", "training_args.bin"} & set(hub.files("ann/my-prior"))
        assert same(FastJukeboxPrior.from_pretrained("ann/my-prior"), trained.model)
    assert ModelCard.load("ann/my-prior").data.license == "mit"


def test_checkpoints_are_not_pushed_whole(tmp_path):
    with pytest.raises(ValueError, match="`hub_strategy` must be 'end' or 'every_save', got 'all_checkpoints'"):
        FastJukeboxTrainingArguments(
            output_dir=str(tmp_path), push_to_hub=True, hub_license="mit", hub_strategy="all_checkpoints"
        )


@pytest.mark.parametrize(
    "kind", [FastJukeboxTrainingArguments, VQVAETrainingArguments, ValenceTrainingArguments, DistillationArguments]
)
def test_no_token_is_shown(tmp_path, kind):
    args = kind(output_dir=str(tmp_path), report_to="none", use_cpu=True, hub_token="hf_secret")
    assert "hf_secret" not in f"{args!r} {args} {[args]}"
    assert args.hub_token == "hf_secret"
    assert "learning_rate" in repr(args)


def test_sums_of_every_batch_make_the_metrics_of_an_evaluation(tiny_config, tmp_path):
    """Whatever the batch size; an evaluation that fails leaves nothing behind for the next."""

    class Counting(PriorTrainer):
        def metrics_of(self, inputs, outputs):
            if self.fail:
                raise RuntimeError("stopped")
            codes = inputs["codes"].float()
            return {"codes": codes.sum(), "columns": codes.sum(dim=0), "windows": torch.tensor(float(len(codes)))}

        def metrics_from(self, sums, loss):
            return {"mean": float(sums["codes"] / sums["windows"]), "first": float(sums["columns"][0]), "again": loss}

    found = {}
    for size in (1, 3, 8):
        args = FastJukeboxTrainingArguments(
            output_dir=str(tmp_path / "out"), use_cpu=True, disable_tqdm=True, per_device_eval_batch_size=size
        )
        trainer = Counting(
            model=FastJukeboxPrior(tiny_config.prior_configs[2]),
            args=args,
            eval_dataset=Codes(),
            data_collator=stack_items,
        )
        trainer.fail = True
        with pytest.raises(RuntimeError, match="stopped"):
            trainer.evaluate()
        trainer.fail = False
        found[size] = trainer.evaluate(metric_key_prefix="test")
        assert found[size]["test_mean"] == 16 * 7.5
        assert found[size]["test_first"] == sum(range(8))
        assert found[size]["test_again"] == found[size]["test_loss"]
