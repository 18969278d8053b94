"""Tiny priors: 4 rows of 6 positions, width 32."""

import pytest
import torch

from fast_jukebox.models.prior import FastJukeboxPrior, FastJukeboxPriorConfig

TINY = {
    "codebook_size": 13,
    "n_ctx": 24,
    "num_rows": 4,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "conditioner_width": 8,
    "conditioner_depth": 2,
    "conditioner_dilation_cycle": 2,
}
UPPER = {"level": 0, "upsampling_strides": [2, 2], "upper_codebook_size": 7}
LABELS = {"num_artists": 5, "num_genres": 4, "max_genres": 2}
TIMING = {**LABELS, "use_timing": True, "timing_bins": 8, "min_duration": 1.0, "max_duration": 9.0}
LYRICS = {**TIMING, "lyric_length": 8, "lyric_vocab_size": 10}
LYRIC_PREFIX = {
    **LYRICS,
    "layer_types": ["row", "column", "previous_row", "lyric_prefix", "dense"],
    "num_hidden_layers": 5,
}
LYRIC_ENCODER = {
    **LYRICS,
    "layer_types": ["row", "lyric_cross", "column", "previous_row"],
    "num_hidden_layers": 6,
    "lyric_encoder_layers": 3,
    "lyric_encoder_hidden_size": 12,
    "lyric_encoder_heads": 1,
    "lyric_encoder_num_rows": 4,
    "tie_word_embeddings": False,
    "add_conditioning_after": False,
}


def randomise(prior, scale=0.2):
    """Weights of a size at which every part matters, biases and norms too."""
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return prior.eval()


@pytest.fixture
def tiny_config():
    def make(**fields):
        return FastJukeboxPriorConfig(**{**TINY, **fields})

    return make


@pytest.fixture
def make_prior(tiny_config):
    def make(**fields):
        return randomise(FastJukeboxPrior(tiny_config(**fields)))

    return make


@pytest.fixture
def make_inputs():
    """Random inputs that a prior of a config takes: codes and, where it has them, upper codes and metadata."""

    def make(config, songs=2, length=None):
        length = config.n_ctx if length is None else length
        inputs = {"codes": torch.randint(0, config.codebook_size, (songs, length))}
        if config.has_upper_level:
            size = config.upper_codebook_size or config.codebook_size
            inputs["upper_codes"] = torch.randint(0, size, (songs, length // config.upper_ratio))
        if config.has_labels:
            times = torch.tensor([[4 * 44100, 44100, config.n_ctx * config.hop_length]]).expand(songs, 3)
            artists = torch.randint(0, config.num_artists, (songs, 1))
            genres = torch.randint(-1, config.num_genres, (songs, config.max_genres))
            lyrics = torch.randint(0, config.lyric_vocab_size, (songs, config.lyric_length))
            inputs["metadata"] = torch.cat([times, artists, genres, lyrics], dim=1)
        return inputs

    return make


@pytest.fixture(
    params=[
        {},
        {"layer_types": ["row", "column", "previous_row", "dense"], "num_hidden_layers": 5},
        {"residual_scale": True},
        UPPER,
        {**UPPER, **LABELS, "conditioner_residual_scale": True},
        {**TIMING, "tie_word_embeddings": False, "add_conditioning_after": False},
        {**UPPER, **TIMING},
        {**TIMING, "genre_period": 10},
    ],
    ids=[
        "plain",
        "dense",
        "residual_scale",
        "upsampler",
        "labelled_upsampler",
        "merged_timing",
        "everything",
        "rhythm",
    ],
)
def kind(request):
    """Fields of each kind of prior."""
    return request.param


@pytest.fixture(params=[LYRIC_PREFIX, LYRIC_ENCODER], ids=["lyric_prefix", "lyric_encoder"])
def lyric_kind(request):
    """Fields of each kind of prior with lyrics: 8 characters of 10."""
    return request.param
