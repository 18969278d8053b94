import pytest

from fast_jukebox import FastJukeboxVQVAEConfig


def test_the_defaults_are_the_published_size():
    config = FastJukeboxVQVAEConfig()
    assert config.hop_lengths == [8, 32, 128]
    assert config.num_levels == 3
    assert (config.width, config.depth, config.codebook_size, config.embed_dim) == (32, 4, 2048, 64)


def test_hop_lengths_are_cumulative_products():
    assert FastJukeboxVQVAEConfig(downs=[1, 2], strides=[4, 2], multipliers=[1, 1]).hop_lengths == [4, 16]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0),
        ("width", 2.5),
        ("downs", []),
        ("downs", [0, 1, 1]),
        ("strides", [2, 2]),
        ("strides", [3, 2, 2]),
        ("multipliers", [1]),
        ("codebook_decay", 1.5),
        ("codebook_size", True),
        ("revival_threshold", -1.0),
        ("commit_weight", float("nan")),
        ("bandwidth_l2", 0.0),
        ("multispectral_hop_length", [1]),
        ("reverse_decoder_dilation", "yes"),
        ("dilation_cycle", 0),
    ],
)
def test_bad_values_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"`{field}` must be"):
        FastJukeboxVQVAEConfig(**{field: value})


def test_a_bad_value_set_later_is_refused_when_saving(tmp_path):
    config = FastJukeboxVQVAEConfig()
    config.width = -1
    with pytest.raises(ValueError, match="`width` must be"):
        config.save_pretrained(tmp_path)


def test_unknown_keys_name_the_nearest():
    with pytest.raises(ValueError, match="no field `widht`; did you mean `width`"):
        FastJukeboxVQVAEConfig(widht=3)
