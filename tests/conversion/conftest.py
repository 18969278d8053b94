"""Tiny stand-ins for the published checkpoints: three levels, random weights, the published names."""

import copy

import pytest
import torch

from fast_jukebox.conversion import openai_prior, openai_vqvae
from fast_jukebox.models.prior import FastJukeboxPrior
from fast_jukebox.models.vqvae import FastJukeboxVQVAE

VQVAE = {
    "l_bins": 11,
    "downs_t": [3, 2, 2],
    "strides_t": [2, 2, 2],
    "emb_width": 4,
    "width": 4,
    "depth": 1,
    "hvqvae_multipliers": [2, 1, 1],
    "dilation_growth_rate": 3,
}
UPSAMPLER = {
    "n_ctx": 24,
    "blocks": 4,
    "prior_width": 16,
    "prior_depth": 3,
    "heads": 1,
    "cond_width": 8,
    "cond_depth": 2,
    "cond_dilation_growth_rate": 3,
    "cond_dilation_cycle": 2,
    "labels": True,
    "y_bins": [5, 7],
    "max_bow_genre_size": 2,
}
TOP = {
    "n_ctx": 24,
    "blocks": 4,
    "prior_width": 16,
    "prior_depth": 4,
    "heads": 2,
    "labels": True,
    "y_bins": [5, 7],
    "max_bow_genre_size": 2,
    "t_bins": 8,
    "min_duration": 1.0,
    "max_duration": 600.0,
    "use_tokens": True,
    "n_tokens": 8,
    "n_vocab": 10,
    "attn_order": 6,
    "merged_decoder": True,
    "single_enc_dec": False,
    "prime_width": 8,
    "prime_depth": 2,
    "prime_heads": 1,
    "prime_blocks": 4,
}
HYPERPARAMETERS = {
    "vqvae": VQVAE,
    "priors": [UPSAMPLER, {**UPSAMPLER, "cond_res_scale": True}, TOP],
}


def published_names(model, key_map, transposed=()):
    """A model's tensors under the published names."""
    tensors, state = model.state_dict(), {}
    for ours, theirs in key_map.items():
        parts = ((theirs, 1),) if isinstance(theirs, str) else theirs
        share = tensors[ours].shape[0] // sum(count for _, count in parts) if len(parts) > 1 else 0
        pieces = tensors[ours].split([share * count for _, count in parts]) if len(parts) > 1 else [tensors[ours]]
        for (name, _), piece in zip(parts, pieces, strict=True):
            state[name] = (piece.T if ours in transposed else piece).clone()
    return state


@pytest.fixture
def hyperparameters():
    """Of a tiny model with a lyric encoder, under their published names; a new object for each test."""
    return copy.deepcopy(HYPERPARAMETERS)


@pytest.fixture
def published_parts():
    """A function from hyperparameters to models of random weights by file name, and their published state dicts."""

    def make(hyperparameters):
        vqvae = FastJukeboxVQVAE(openai_vqvae.vqvae_config(hyperparameters["vqvae"]))
        models = {"vqvae.pth.tar": vqvae}
        states = {"vqvae.pth.tar": published_names(vqvae, openai_vqvae.key_map(vqvae.config))}
        for level, prior in enumerate(hyperparameters["priors"]):
            config = openai_prior.prior_config({"level": level, **prior}, hyperparameters["vqvae"])
            name = f"prior_level_{level}.pth.tar"
            models[name] = FastJukeboxPrior(config)
            names, transposed = openai_prior.key_map(config), openai_prior.transposed_keys(config)
            states[name] = published_names(models[name], names, transposed)
        return models, states

    return make


@pytest.fixture
def write_openai(published_parts):
    """A function that writes a folder of published files and returns the models in them."""

    def write(folder, hyperparameters, dtype=torch.float16, zipped=False):
        folder.mkdir(parents=True, exist_ok=True)
        models, states = published_parts(hyperparameters)
        for name, state in states.items():
            content = {"model": {f"module.{key}": tensor.to(dtype) for key, tensor in state.items()}, "step": 7}
            torch.save(content, folder / name, _use_new_zipfile_serialization=zipped)
        return models

    return write


@pytest.fixture
def tiny_published(monkeypatch, hyperparameters):
    """The three published models at tiny sizes, each with a top prior of its own kind, told apart by the same signs."""
    from fast_jukebox.conversion import published

    lyrics = hyperparameters["priors"][2]
    plain = {name: value for name, value in lyrics.items() if name.split("_")[0] not in ("prime", "n", "use", "single")}
    plain |= {"n_ctx": 24, "attn_order": 2}
    prefix = {**plain, "prior_width": 32, "use_tokens": True, "single_enc_dec": True, "n_tokens": 8, "n_vocab": 10}
    prefix |= {"attn_order": 12, "prior_depth": 16, "merged_decoder": False}
    monkeypatch.setattr(published, "VQVAE", hyperparameters["vqvae"])
    for name, top in (("1b_lyrics", prefix), ("5b", plain), ("5b_lyrics", lyrics)):
        priors = [{**prior, "level": level} for level, prior in enumerate([*hyperparameters["priors"][:2], top])]
        monkeypatch.setitem(published.MODELS, name, priors)
    return {name: {"vqvae": hyperparameters["vqvae"], "priors": priors} for name, priors in published.MODELS.items()}
