import json

import pytest
from transformers import AutoConfig

from fast_jukebox import FastJukeboxConfig, FastJukeboxPriorConfig, FastJukeboxVQVAEConfig

PRESETS = ["fastjukebox-72", "fastjukebox-24", "fastjukebox-18"]
MINI_PRESETS = ["fastjukebox-mini-36", "fastjukebox-mini-12", "fastjukebox-mini-9"]


@pytest.mark.parametrize("name", PRESETS)
def test_the_paper_s_sizes(name):
    config = FastJukeboxConfig.preset(name)
    bottom, middle, top = config.prior_configs
    assert {prior.num_hidden_layers for prior in config.prior_configs} == {int(name.split("-")[-1])}
    assert (top.hidden_size, top.num_attention_heads, top.n_ctx, top.num_rows) == (2048, 2, 6144, 64)
    for upsampler in (bottom, middle):
        sizes = (upsampler.hidden_size, upsampler.num_attention_heads, upsampler.n_ctx, upsampler.num_rows)
        assert sizes == (1920, 1, 8192, 128)
        conditioner = (upsampler.conditioner_width, upsampler.conditioner_depth)
        assert conditioner == (1024, 16)
        assert (upsampler.conditioner_dilation_growth_rate, upsampler.conditioner_dilation_cycle) == (3, 8)
        assert upsampler.upper_ratio == 4
    assert [prior.conditioner_residual_scale for prior in (bottom, middle)] == [False, True]
    assert config.hop_lengths == [8, 32, 128]
    assert config.sampling_rate == 44100
    # 18 s, 6 s and 1.5 s of sound, as the paper says of its training windows
    seconds = [prior.n_ctx * prior.hop_length / prior.sampling_rate for prior in config.prior_configs]
    assert seconds == pytest.approx([1.5, 6, 18], rel=0.02)
    assert all(set(prior.layer_types) == {"row", "column", "previous_row"} for prior in config.prior_configs)
    assert not any(prior.num_artists or prior.num_genres or prior.use_timing for prior in config.prior_configs)


@pytest.mark.parametrize(("name", "depth"), list(zip(MINI_PRESETS, [36, 12, 9], strict=True)))
def test_the_mini_family_has_the_paper_s_proportions(name, depth):
    mini, paper = FastJukeboxConfig.preset(name), FastJukeboxConfig.preset("fastjukebox-72")
    assert mini.hop_lengths == paper.hop_lengths
    for small, large in zip(mini.prior_configs, paper.prior_configs, strict=True):
        assert small.num_hidden_layers == depth
        assert large.hidden_size / small.hidden_size == pytest.approx(10.67, rel=0.01)
        assert large.n_ctx / small.n_ctx == 4
        assert large.num_rows / small.num_rows == 2
        assert small.num_attention_heads == large.num_attention_heads
        assert small.upsampling_strides == large.upsampling_strides


def test_presets_are_fresh_objects():
    first, second = FastJukeboxConfig.preset("fastjukebox-mini-9"), FastJukeboxConfig.preset("fastjukebox-mini-9")
    assert first.to_diff_dict() == second.to_diff_dict()
    first.prior_configs[0].hidden_size = 4
    assert second.prior_configs[0].hidden_size == 180


@pytest.mark.parametrize(("wrong", "nearest"), [("fastjukebox-19", "fastjukebox-18"), ("mini-9", "fastjukebox-mini-9")])
def test_an_unknown_preset_names_the_nearest(wrong, nearest):
    with pytest.raises(ValueError, match=f"did you mean `{nearest}`"):
        FastJukeboxConfig.preset(wrong)


def test_parts_are_configurations_whatever_they_were_given_as(tiny_config):
    again = FastJukeboxConfig(
        vqvae_config=tiny_config.vqvae_config.to_dict(),
        prior_configs=[prior.to_dict() for prior in tiny_config.prior_configs],
    )
    assert isinstance(again.vqvae_config, FastJukeboxVQVAEConfig)
    assert all(isinstance(prior, FastJukeboxPriorConfig) for prior in again.prior_configs)
    assert again.to_diff_dict() == tiny_config.to_diff_dict()


@pytest.mark.parametrize("loader", [FastJukeboxConfig, AutoConfig])
def test_what_is_saved_is_loaded(tiny_config, tmp_path, loader):
    tiny_config.save_pretrained(tmp_path)
    again = loader.from_pretrained(tmp_path)
    assert type(again) is FastJukeboxConfig
    assert again.to_diff_dict() == tiny_config.to_diff_dict()
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_text() == (tmp_path / "config.json").read_text()


def test_config_json_is_nested_and_holds_no_sampling_setting(tiny_config, tmp_path):
    tiny_config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "fast_jukebox"
    assert saved["vqvae_config"]["model_type"] == "fast_jukebox_vqvae"
    assert [prior["level"] for prior in saved["prior_configs"]] == [0, 1, 2]
    everything = {*saved, *saved["vqvae_config"], *(key for prior in saved["prior_configs"] for key in prior)}
    assert not everything & {"temperature", "top_k", "top_p", "do_sample", "hop_fractions", "duration"}
    assert "auto_map" not in saved


def test_every_preset_survives_json(tmp_path):
    for name in PRESETS + MINI_PRESETS:
        config = FastJukeboxConfig.preset(name)
        config.save_pretrained(tmp_path)
        assert FastJukeboxConfig.from_pretrained(tmp_path).to_diff_dict() == config.to_diff_dict()


@pytest.mark.parametrize(
    ("level", "field", "value"),
    [
        (0, "level", 1),
        (2, "level", 0),
        (1, "codebook_size", 15),
        (1, "upper_codebook_size", 15),
        (0, "hop_length", 8),
        (2, "sampling_rate", 8000),
        (0, "upsampling_strides", [2, 2]),
        (1, "upsampling_strides", [4]),
        (1, "upsampling_strides", None),
        (2, "upsampling_strides", [2]),
    ],
)
def test_a_prior_that_does_not_fit_is_refused(tiny_config, level, field, value):
    parts = tiny_config.to_dict()
    parts["prior_configs"][level][field] = value
    with pytest.raises(ValueError, match=rf"prior_configs\[{level}\].{field}"):
        FastJukeboxConfig(vqvae_config=parts["vqvae_config"], prior_configs=parts["prior_configs"])


def test_the_number_of_priors_is_that_of_the_levels(tiny_config):
    with pytest.raises(ValueError, match=r"prior_configs.*3 levels.*got 2: bottom level \(0\), middle level \(1\)"):
        FastJukeboxConfig(vqvae_config=tiny_config.vqvae_config, prior_configs=tiny_config.prior_configs[:2])


def test_a_prior_that_is_no_configuration_is_refused(tiny_config):
    with pytest.raises(ValueError, match=r"prior_configs\[0\].*str"):
        FastJukeboxConfig(vqvae_config=tiny_config.vqvae_config, prior_configs=["a", "b", "c"])


@pytest.mark.parametrize(("field", "value"), [("vqvae_config", "published"), ("prior_configs", 3)])
def test_parts_that_are_no_configurations_are_refused(tiny_config, field, value):
    parts = {"vqvae_config": tiny_config.vqvae_config, "prior_configs": tiny_config.prior_configs, field: value}
    with pytest.raises(ValueError, match=f"{field}.*{type(value).__name__}"):
        FastJukeboxConfig(**parts)
    with pytest.raises(ValueError, match="vqvae_config.*FastJukeboxPriorConfig"):
        FastJukeboxConfig(vqvae_config=tiny_config.prior_configs[0], prior_configs=tiny_config.prior_configs)


def test_unknown_fields_are_refused_at_every_depth(tiny_config):
    parts = tiny_config.to_dict()
    with pytest.raises(ValueError, match="did you mean `prior_configs`"):
        FastJukeboxConfig(prior_config=[])
    parts["prior_configs"][0]["hiden_size"] = 3
    with pytest.raises(ValueError, match="did you mean `hidden_size`"):
        FastJukeboxConfig(vqvae_config=parts["vqvae_config"], prior_configs=parts["prior_configs"])


@pytest.mark.parametrize("field", ["vqvae_config", "prior_configs"])
def test_a_saved_configuration_without_a_part_is_refused(tiny_config, tmp_path, field):
    tiny_config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved[field]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=field):
        FastJukeboxConfig.from_pretrained(tmp_path)


def test_any_number_of_levels():
    vqvae = FastJukeboxVQVAEConfig(downs=[2], strides=[2], multipliers=[1], width=4, depth=1, embed_dim=4)
    only = FastJukeboxPriorConfig(level=0, hop_length=4, n_ctx=24, num_rows=4, hidden_size=16, num_hidden_layers=3)
    config = FastJukeboxConfig(vqvae_config=vqvae, prior_configs=[only])
    assert config.num_levels == 1


def test_the_attention_implementation_reaches_every_part(tiny_config):
    tiny_config._attn_implementation = "eager"
    parts = [tiny_config.vqvae_config, *tiny_config.prior_configs]
    assert {part._attn_implementation for part in parts} == {"eager"}
    tiny_config._attn_implementation = {"": "sdpa", "prior_configs.1": "sdpa"}
    assert [part._attn_implementation for part in parts] == ["eager", "eager", "sdpa", "eager"]
