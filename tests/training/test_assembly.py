"""Priors trained side by side begin with weights that fit and become a whole model."""

import copy
import json
import tarfile

import pytest
import torch

from fast_jukebox import FastJukeboxModel, FastJukeboxPrior, FastJukeboxPriorConfig, FastJukeboxVQVAE
from fast_jukebox.training.assembly import RESULTS, assemble_model, pack_logs, starting_weights, training_facts
from fast_jukebox.training.weights import save_weights, take_weights


def test_a_prior_begins_with_a_file_or_with_a_model_of_its_size(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_model.priors[1].save_pretrained(tmp_path / "prior")
    files = tmp_path / "files"
    files.mkdir()
    save_weights(tmp_path / "prior", files / "middle.safetensors")
    config = copy.deepcopy(tiny_model.priors[1].config)
    kept = tmp_path / "kept"

    assert starting_weights([files, tmp_path / "model"], ["middle"], config, kept) == files / "middle.safetensors"
    assert starting_weights([files], ["another"], config, kept) is None
    found = starting_weights([files, tmp_path / "model"], ["another", "more"], config, kept)
    assert found == kept / "another.safetensors"
    prior = FastJukeboxPrior(config)
    assert take_weights(prior, found) == []
    theirs = tiny_model.priors[1].state_dict()
    for name, tensor in prior.state_dict().items():
        assert torch.equal(tensor, theirs[name].half().float())

    config.num_hidden_layers *= 2
    assert starting_weights([tmp_path / "model"], ["another"], config, kept) is None
    with pytest.raises(ValueError, match="`start_from` must name folders"):
        starting_weights([tmp_path / "nowhere"], ["middle"], config, kept)


def test_untrained_levels_are_those_of_the_model_begun_with(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    vqvae = FastJukeboxVQVAE.from_pretrained(tmp_path / "model")
    trained = [tmp_path / f"prior-{level}" for level in range(3)]
    new = FastJukeboxPrior(copy.deepcopy(tiny_model.priors[2].config))
    new.save_pretrained(trained[2])
    arguments = (vqvae, trained, tmp_path / "model", [0.5, 0.6, 0.7])
    assert not assemble_model(tmp_path / "made", *arguments)  # not finished
    (trained[2] / RESULTS).write_text("{}")
    assert not assemble_model(tmp_path / "made", vqvae, trained)  # two are missing

    assert assemble_model(tmp_path / "made", *arguments)
    made = FastJukeboxModel.from_pretrained(tmp_path / "made")
    assert {parameter.dtype for parameter in made.parameters()} == {torch.float32}
    assert made.generation_config.temperature == [0.5, 0.6, 0.7]
    for ours, theirs in zip(made.priors, [*tiny_model.priors[:2], new], strict=True):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name].half().float())
    for name, tensor in made.vqvae.state_dict().items():
        assert torch.equal(tensor, vqvae.state_dict()[name])


def test_the_rhythm_of_genres_is_multiplied_where_it_was_trained(tiny_model, tmp_path):
    vqvae, trained = tiny_model.vqvae, [tmp_path / f"prior-{level}" for level in range(3)]
    fields = {"num_artists": 2, "num_genres": 2, "use_timing": True, "genre_period": 10}
    new = FastJukeboxPrior(FastJukeboxPriorConfig(**{**tiny_model.priors[2].config.to_dict(), **fields}))
    torch.nn.init.normal_(new.label_conditioner.rhythm_embedding)
    new.save_pretrained(trained[2])
    tiny_model.save_pretrained(tmp_path / "model")
    (trained[2] / RESULTS).write_text("{}")
    assert assemble_model(tmp_path / "made", vqvae, trained, tmp_path / "model", rhythm_scale=3.0)
    made = FastJukeboxModel.from_pretrained(tmp_path / "made").priors[2].state_dict()
    for name, tensor in new.state_dict().items():
        scale = 3.0 if name == "label_conditioner.rhythm_embedding" else 1.0
        assert torch.equal(made[name], (scale * tensor).half().float()), name


def test_a_run_is_told_from_its_logs(tmp_path):
    folder = tmp_path / "prior-top"
    folder.mkdir()
    assert training_facts({"prior-2": folder}, {"prior-2": 8}) == {}
    for file, content in (
        ("trainer_state.json", {"global_step": 40}),
        ("train_results.json", {"train_runtime": 12.6}),
        (RESULTS, {"eval_bits_per_code": 1.23456}),
    ):
        (folder / file).write_text(json.dumps(content))
    facts = training_facts({"prior-2": folder}, {"prior-2": 8})
    assert facts == {"prior-2": {"steps": 40, "batch_size": 8, "seconds": 13, "bits_per_code": 1.2346}}
    (tmp_path / "prior-top.log").write_text("text")
    pack_logs(tmp_path, tmp_path / "run.tar.gz")
    with tarfile.open(tmp_path / "run.tar.gz") as archive:
        assert {"prior-top.log", f"prior-top/{RESULTS}"} <= set(archive.getnames())
