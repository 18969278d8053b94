import json

import pytest
import torch
from safetensors.torch import load_file

from fast_jukebox import FastJukeboxVQVAE
from fast_jukebox.conversion.openai_vqvae import key_map, vqvae_config
from fast_jukebox.conversion.parts import vqvae_part
from fast_jukebox.conversion.state_dict import strip_prefix

HPARAMS = {
    "downs_t": [2, 1],
    "strides_t": [2, 2],
    "emb_width": 4,
    "l_bins": 8,
    "width": 4,
    "depth": 1,
    "hvqvae_multipliers": [2, 1],
    "dilation_growth_rate": 3,
}


BANDWIDTH = {"l1": "l1", "l2": "l2", "spectral": "spec"}


def convert_vqvae(state, hparams, bandwidth=None):
    """The VQ-VAE of published tensors in memory."""
    config = vqvae_config(hparams)
    config.update({f"bandwidth_{own}": (bandwidth or {}).get(theirs, 1.0) for own, theirs in BANDWIDTH.items()})
    part = vqvae_part(config)
    tensors = strip_prefix(state)
    part.check(tensors, "state_dict")
    vqvae = FastJukeboxVQVAE(part.config)
    vqvae.load_state_dict(dict(part.tensors(tensors)))
    return vqvae.eval()


@pytest.fixture
def golden(golden_dir):
    tensors = load_file(golden_dir / "vqvae.safetensors")
    facts = json.loads((golden_dir / "vqvae.json").read_text())
    state = {name.removeprefix("state/"): value for name, value in tensors.items() if name.startswith("state/")}
    return convert_vqvae(state, facts["hps"], facts["bandwidth"]), tensors


def test_codes_and_decodings_agree_with_the_published_architecture(golden):
    vqvae, tensors = golden
    codes = vqvae.encode(tensors["in/x"][..., 0])
    for level in range(3):
        assert torch.equal(codes[level], tensors[f"out/codes_{level}"])
        decoded = vqvae.decode(codes[level:], start_level=level)
        torch.testing.assert_close(decoded, tensors[f"out/decoded_from_{level}"][..., 0], atol=1e-4, rtol=0)


def test_losses_agree_with_the_published_architecture(golden):
    vqvae, tensors = golden
    output = vqvae.eval()(tensors["in/x"][..., 0])
    torch.testing.assert_close(output.loss, tensors["out/eval_loss"], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(output.commitment_losses.sum(), tensors["out/eval_commit_loss"], atol=1e-4, rtol=1e-5)
    for level in range(3):
        for ours, theirs in (("reconstruction_losses", "recons"), ("multispectral_losses", "multispectral")):
            expected = tensors[f"out/eval_{theirs}_loss_l{level + 1}"]
            torch.testing.assert_close(getattr(output, ours)[level], expected, atol=1e-4, rtol=1e-5)


def test_a_training_step_moves_the_codebooks_as_published(golden):
    vqvae, tensors = golden
    output = vqvae.train()(tensors["in/x"][..., 0])
    torch.testing.assert_close(output.loss, tensors["out/train_loss"], atol=1e-4, rtol=1e-5)
    for level, module in enumerate(vqvae.levels):
        expected = tensors[f"out/codebook_after_update_{level}"]
        torch.testing.assert_close(module.codebook.vectors, expected, atol=1e-4, rtol=0)


def published(hparams):
    """Random tensors under published names for `hparams`."""
    config = vqvae_config(hparams)
    ours = FastJukeboxVQVAE(config).state_dict()
    return {theirs: torch.randn_like(ours[mine]) for mine, theirs in key_map(config).items()}


def test_every_tensor_finds_its_place_whatever_the_prefix():
    state = published(HPARAMS)
    vqvae = convert_vqvae({f"module.{name}": value for name, value in state.items()}, HPARAMS)
    ours = vqvae.state_dict()
    names = key_map(vqvae.config)
    assert all(torch.equal(ours[mine], state[theirs]) for mine, theirs in names.items())
    assert set(ours) - set(names) == {
        f"levels.{level}.codebook.{kind}" for level in range(2) for kind in ("counts", "initialized")
    }
    assert "decoders.1.level_blocks.0.model.1.0.model.0.model.3.weight" in state


def test_tensors_that_do_not_fit_are_named():
    state = published(HPARAMS)
    state["stranger"] = torch.zeros(1)
    del state["decoders.0.out.bias"]
    with pytest.raises(ValueError, match=r"(?s)decoders\.0\.out\.bias.*stranger"):
        convert_vqvae(state, HPARAMS)


@pytest.mark.parametrize("name", ["downs_t", "strides_t", "emb_width", "l_bins", "width", "depth"])
def test_a_missing_hyperparameter_is_named(name):
    with pytest.raises(ValueError, match=f"`hparams` must hold `{name}`"):
        convert_vqvae({}, {key: value for key, value in HPARAMS.items() if key != name})
