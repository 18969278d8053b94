import pytest
import torch

from fast_jukebox.conversion import openai_prior, openai_vqvae
from fast_jukebox.conversion.parts import prior_part, vqvae_part


@pytest.fixture
def parts(hyperparameters, published_parts):
    """Models, their published tensors, and the parts that stand for them, by file name."""
    models, states = published_parts(hyperparameters)
    made = {}
    for name, model in models.items():
        if name.startswith("vqvae"):
            made[name] = vqvae_part(openai_vqvae.vqvae_config(hyperparameters["vqvae"]))
        else:
            made[name] = prior_part(model.config)
    return models, states, made


def test_a_part_makes_the_tensors_of_its_model(parts):
    models, states, made = parts
    assert {part.name for part in made.values()} == {"vqvae", "priors.0", "priors.1", "priors.2"}
    for name, part in made.items():
        part.check(states[name], name)
        wanted = models[name].state_dict()
        got = dict(part.tensors(states[name]))
        assert list(got) == list(part.shapes) == list(wanted)
        for ours, tensor in got.items():
            assert tuple(tensor.shape) == part.shapes[ours]
            assert ours in part.constants or torch.equal(tensor, wanted[ours])


def test_a_vqvae_without_counts_knows_its_codes(parts):
    part = parts[2]["vqvae.pth.tar"]
    constants = {name: tensor for name, tensor in part.constants.items() if name.startswith("levels.1.")}
    assert not constants["levels.1.codebook.counts"].any()
    assert constants["levels.1.codebook.initialized"]


def test_tensors_are_views_where_they_can_be(parts):
    _, states, made = parts
    name = "prior_level_0.pth.tar"
    storages = {tensor.untyped_storage().data_ptr() for tensor in states[name].values()}
    assert all(tensor.untyped_storage().data_ptr() in storages for _, tensor in made[name].tensors(states[name]))


def test_other_names_are_asked_for(hyperparameters):
    config = openai_prior.prior_config({"level": 2, **hyperparameters["priors"][2]}, hyperparameters["vqvae"])
    part = prior_part(config, lambda name: f"there.{name}")
    with pytest.raises(ValueError, match=r"`file` does not fit.*missing: there\.prior\.x_emb\.weight, there\."):
        part.check({}, "file")
    assert ("there.prior.transformer._attn_mods.3.attn.c_enc_kv.w", 2) in part.key_map["blocks.3.attention.qkv.weight"]


def test_a_model_that_cannot_be_made_is_refused(hyperparameters):
    # Dilations of astronomical size.
    hyperparameters["vqvae"] |= {"depth": 64, "hvqvae_multipliers": [1, 1, 1], "dilation_growth_rate": 2**24}
    with pytest.raises(ValueError, match="`dilation_growth_rate` must give dilations"):
        vqvae_part(openai_vqvae.vqvae_config(hyperparameters["vqvae"]))
