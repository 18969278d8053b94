import pytest

from fast_jukebox.models.prior import FastJukeboxPriorConfig


def test_defaults_are_the_papers_top_prior():
    config = FastJukeboxPriorConfig()
    assert (config.block_ctx, config.attention_size, config.mlp_size) == (96, 512, 2048)
    assert config.layer_patterns == ["row", "column", "previous_row"] * 24
    assert not config.has_upper_level
    assert config.upper_ratio == 1
    assert not config.has_labels
    assert config.metadata_length == 0


def test_layer_patterns_cycle_over_the_depth(tiny_config):
    config = tiny_config(attention_patterns=["dense", "row"], num_hidden_layers=5)
    assert config.layer_patterns == ["dense", "row", "dense", "row", "dense"]


def test_derived_sizes(tiny_config):
    config = tiny_config(upper_downs=2, upper_stride=2, num_artists=2, num_genres=3, max_genres=5)
    assert config.upper_ratio == 4
    assert config.metadata_length == 9


def test_save_and_load_are_equal(tiny_config, tmp_path):
    config = tiny_config(upper_downs=1, attention_patterns=["row", "dense"], residual_scale=True)
    config.save_pretrained(tmp_path)
    loaded = FastJukeboxPriorConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.layer_patterns == config.layer_patterns


def test_an_unknown_key_is_refused(tiny_config):
    with pytest.raises(ValueError, match=r"hiden_size.*hidden_size"):
        tiny_config(hiden_size=32)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("level", -1),
        ("codebook_size", 0),
        ("n_ctx", 25),
        ("n_ctx", 0),
        ("blocks", 0),
        ("num_hidden_layers", 0),
        ("num_attention_heads", 3),
        ("mlp_ratio", 0.001),
        ("attention_ratio", 0.0),
        ("attention_patterns", []),
        ("attention_patterns", ["row", "diagonal"]),
        ("initializer_range", 0.0),
        ("upper_downs", 0),
        ("num_genres", 3),
        ("use_timing", True),
        ("max_duration", 1.0),
        ("min_duration", -1.0),
        ("timing_bins", 0),
        ("hop_length", 0),
    ],
)
def test_bad_values_are_named(tiny_config, field, value):
    with pytest.raises(ValueError, match=field):
        tiny_config(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("upper_stride", 3),
        ("upper_downs", 4),
        ("upper_codebook_size", 0),
        ("conditioner_width", 0),
        ("conditioner_depth", 0),
        ("conditioner_dilation_cycle", 0),
        ("conditioner_conv_multiplier", 0.0),
    ],
)
def test_bad_values_of_an_upsampler_are_named(tiny_config, field, value):
    with pytest.raises(ValueError, match=field if field != "upper_downs" else "upper_stride"):
        tiny_config(**{"upper_downs": 2, field: value})
