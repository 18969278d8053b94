import pytest

from fast_jukebox.models.prior import FastJukeboxPriorConfig


def test_defaults_are_the_papers_top_prior():
    config = FastJukeboxPriorConfig()
    assert (config.row_length, config.attention_size, config.mlp_size) == (96, 512, 2048)
    assert config.layer_types == ["row", "column", "previous_row"] * 24
    assert not config.has_upper_level
    assert config.upper_ratio == 1
    assert not config.has_labels
    assert config.metadata_length == 0


def test_layer_types_are_one_a_layer(tiny_config):
    config = tiny_config(layer_types=["dense", "row"], num_hidden_layers=5)
    assert config.layer_types == ["dense", "row", "dense", "row", "dense"] and config.layer_period == 2
    config.num_hidden_layers = 2
    config.validate()
    assert config.layer_types == ["dense", "row"]
    assert tiny_config(layer_types=["row", "dense", "row"], num_hidden_layers=6).layer_period == 3
    assert tiny_config(layer_types=("row", "dense", "dense"), num_hidden_layers=1).layer_types == ["row"]


def test_derived_sizes(tiny_config):
    config = tiny_config(upsampling_strides=[2, 2], num_artists=2, num_genres=3, max_genres=5)
    assert config.upper_ratio == 4
    assert config.metadata_length == 9


def test_save_and_load_are_equal(tiny_config, tmp_path):
    config = tiny_config(upsampling_strides=[2], layer_types=["row", "dense"], residual_scale=True)
    config.save_pretrained(tmp_path)
    loaded = FastJukeboxPriorConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.layer_types == config.layer_types


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
        ("num_rows", 0),
        ("num_hidden_layers", 0),
        ("num_attention_heads", 3),
        ("mlp_ratio", 0.001),
        ("attention_ratio", 0.0),
        ("layer_types", []),
        ("layer_types", ["row", "diagonal"]),
        ("initializer_range", 0.0),
        ("upsampling_strides", []),
        ("upsampling_strides", 2),
        ("upsampling_strides", [2] * 17),
        ("upsampling_strides", [66]),
        ("num_genres", 3),
        ("use_timing", True),
        ("genre_period", 8),
        ("genre_period", -1),
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
        ("upsampling_strides", [3]),
        ("upsampling_strides", [2, 2, 2, 2]),
        ("upper_codebook_size", 0),
        ("conditioner_width", 0),
        ("conditioner_depth", 0),
        ("conditioner_dilation_cycle", 0),
        ("conditioner_conv_multiplier", 0.0),
    ],
)
def test_bad_values_of_an_upsampler_are_named(tiny_config, field, value):
    with pytest.raises(ValueError, match=field):
        tiny_config(**{"upsampling_strides": [2, 2], field: value})


LABELS = {"num_artists": 5, "num_genres": 4, "max_genres": 2}
HEADS = {"lyric_encoder_num_rows": 4, "lyric_encoder_heads": 7}


def test_lyrics_before_the_codes_lengthen_sequence_and_vocabulary(tiny_config, lyric_kind):
    config = tiny_config(**lyric_kind)
    assert (config.label_length, config.metadata_length) == (6, 14)
    if config.has_lyric_encoder:
        assert (config.sequence_length, config.row_length, config.vocab_size, config.code_offset) == (24, 6, 13, 0)
        encoder = config.lyric_encoder_config
        assert (encoder.n_ctx, encoder.codebook_size, encoder.hidden_size, encoder.row_length) == (8, 10, 12, 2)
        return
    assert (config.sequence_length, config.row_length, config.vocab_size, config.code_offset) == (32, 8, 23, 10)
    assert config.lyric_prefix_keys == 12
    with pytest.raises(ValueError, match=r"lyric_encoder_layers.*None"):
        _ = config.lyric_encoder_config


def test_a_configuration_with_lyrics_is_saved_whole(tiny_config, lyric_kind, tmp_path):
    config = tiny_config(**lyric_kind, alignment_layer=1, alignment_head=0)
    config.save_pretrained(tmp_path)
    assert FastJukeboxPriorConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lyric_length": 8}, r"lyric_length.*num_artists.*8"),
        ({**LABELS, "lyric_length": -1}, "lyric_length.*-1"),
        ({**LABELS, "lyric_length": 8, "lyric_vocab_size": 0}, "lyric_vocab_size.*0"),
        ({**LABELS, "lyric_length": 8, "lyric_loss_weight": -0.1}, "lyric_loss_weight.*-0.1"),
        ({**LABELS, "lyric_length": 7}, r"n_ctx.*lyric_length.*\(7\).*num_rows.*24"),
        ({**LABELS, "layer_types": ["row", "lyric_prefix"]}, "lyric_prefix without `lyric_length`"),
        ({**LABELS, "lyric_length": 8, "layer_types": ["lyric_cross"]}, "lyric_cross without"),
        ({**LABELS, "lyric_encoder_layers": 3}, "lyric_encoder_layers.*None.*3"),
        ({**LABELS, "lyric_length": 8, "lyric_encoder_layers": 3, "lyric_encoder_num_rows": 4}, "lyric_cross"),
        ({**LABELS, "lyric_length": 8, "lyric_encoder_layers": 0}, "lyric_encoder_layers.*0"),
        (
            {**LABELS, "lyric_length": 8, "lyric_encoder_layers": 3, "lyric_encoder_num_rows": 3},
            "lyric_encoder.*num_rows",
        ),
        ({**LABELS, "lyric_length": 8, "lyric_encoder_layers": 3, **HEADS}, "lyric_encoder.*heads"),
        ({"alignment_layer": -1}, "alignment_layer.*-1"),
    ],
)
def test_bad_values_of_lyrics_are_named(tiny_config, fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**fields)
