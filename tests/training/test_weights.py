"""Weights of a prior go into a file and from it into another prior, labelled or not."""

import copy

import pytest
import torch

from fast_jukebox import FastJukeboxPrior
from fast_jukebox.data.labels import labelled_config
from fast_jukebox.processing import LabelVocabulary
from fast_jukebox.training.weights import copy_weights, save_weights, take_weights


@pytest.fixture
def prior(tiny_config):
    torch.manual_seed(0)
    return FastJukeboxPrior(tiny_config.prior_configs[2]).eval()


def test_a_prior_takes_the_weights_of_another(prior, tmp_path):
    prior.save_pretrained(tmp_path / "prior")
    save_weights(tmp_path / "prior", tmp_path / "weights.safetensors")
    torch.manual_seed(1)
    other = FastJukeboxPrior(prior.config)
    assert take_weights(other, tmp_path / "weights.safetensors") == []
    for name, tensor in prior.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor.half().float()), name


def test_a_labelled_prior_begins_as_the_one_without_labels(prior, tmp_path):
    prior.half().float().save_pretrained(tmp_path / "prior")
    save_weights(tmp_path / "prior", tmp_path / "weights.safetensors")
    vocabulary = LabelVocabulary({"ann": 1}, {"jig": 1})
    labelled = FastJukeboxPrior(labelled_config(copy.deepcopy(prior.config), vocabulary)).eval()
    drawn = take_weights(labelled, tmp_path / "weights.safetensors")
    assert drawn and all(name.startswith("label_conditioner") for name in drawn)
    codes = torch.randint(prior.config.codebook_size, (2, prior.config.n_ctx))
    metadata = torch.tensor([[100000, 0, 5000, 1, 1]] * 2)
    assert torch.allclose(labelled(codes, metadata=metadata).logits, prior(codes).logits, atol=1e-5)


def test_a_longer_window_begins_with_the_positions_of_a_shorter_one(prior):
    config = copy.deepcopy(prior.config)
    short = prior.config.n_ctx
    config.n_ctx, config.num_rows = 5 * short // 2, 5 * prior.config.num_rows // 2
    longer = FastJukeboxPrior(config)
    assert copy_weights(longer, prior.state_dict()) == []
    positions = longer.position_embedding
    assert torch.equal(positions[:short], prior.position_embedding)
    for begin in range(short, len(positions), short // 2):
        assert torch.equal(positions[begin : begin + short // 2], prior.position_embedding[short // 2 :])
    codes = torch.randint(config.codebook_size, (2, short))
    assert torch.allclose(longer(codes).logits, prior.eval()(codes).logits, atol=1e-5)


def test_a_file_that_does_not_fit_is_refused(prior, tiny_config, tmp_path):
    prior.save_pretrained(tmp_path / "prior")
    save_weights(tmp_path / "prior", tmp_path / "weights.safetensors")
    config = tiny_config.prior_configs[2]
    config.hidden_size, config.num_hidden_layers = 4 * config.hidden_size, 1
    with pytest.raises(ValueError, match="no tensor with the name and shape"):
        take_weights(FastJukeboxPrior(config), tmp_path / "weights.safetensors")
