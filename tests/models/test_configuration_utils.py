import contextlib
import json
import math
import os
import resource
import time
from dataclasses import fields

import pytest
import torch
from transformers import AutoConfig

from fast_jukebox import FastJukeboxConfig, FastJukeboxPriorConfig, FastJukeboxVQVAE, FastJukeboxVQVAEConfig
from fast_jukebox.models.configuration_utils import (
    MOST_ENTRIES,
    FastJukeboxBaseConfig,
    check_bool,
    check_dilations,
    check_float,
    check_int,
    check_int_list,
    shown,
)


class Config(FastJukeboxBaseConfig):
    model_type = "fast_jukebox_test"
    width: int = 3

    def validate(self) -> None:
        check_int("width", self.width)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None])
def test_only_integers_in_range_pass(value):
    with pytest.raises(ValueError, match="`n` must be an integer at least 1, got"):
        check_int("n", value)
    check_int("n", 1)
    with pytest.raises(ValueError, match="from 0 to 3, got 4"):
        check_int("n", 4, 0, 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1, True, "0.5"])
def test_only_finite_numbers_in_range_pass(value):
    with pytest.raises(ValueError, match=r"`x` must be a finite number in \[0.0, 1.0\]"):
        check_float("x", value, 0.0, 1.0)
    check_float("x", 0, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"in \(0.0, "):
        check_float("x", 0.0, 0.0, open_minimum=True)


def test_only_truth_values_pass():
    check_bool("flag", False)
    with pytest.raises(ValueError, match="`flag` must be True or False, got 1"):
        check_bool("flag", 1)


@pytest.mark.parametrize("value", [[], [0], [1.0], 3, "12", [1, True]])
def test_only_lists_of_integers_pass(value):
    with pytest.raises(ValueError, match="`sizes` must be a list of one or more integers"):
        check_int_list("sizes", value)
    check_int_list("sizes", (1, 2), length=2)
    with pytest.raises(ValueError, match="a list of 3 integers"):
        check_int_list("sizes", [1, 2], length=3)


def test_configurations_survive_saving_with_what_transformers_adds(tmp_path):
    config = Config(width=7, attn_implementation="sdpa", name_or_path="somewhere", dtype="float16")
    config.use_cache = False
    config.save_pretrained(tmp_path)
    assert "use_cache" not in (tmp_path / "config.json").read_text()
    assert Config.from_pretrained(tmp_path).width == 7
    assert Config(width=7, use_cache=False).width == 7


@pytest.mark.parametrize("key", ["widht", "temperature", "auto_map"])
def test_unknown_keys_are_refused(key):
    with pytest.raises(ValueError, match=f"Config has no field `{key}`; did you mean"):
        Config(**{key: 1})


def test_bad_values_are_refused_when_made_and_when_saved(tmp_path):
    with pytest.raises(ValueError, match="`width`"):
        Config(width=0)
    config = Config()
    config.width = 0
    with pytest.raises(ValueError, match="`width`"):
        config.save_pretrained(tmp_path)


def test_unknown_keys_are_refused_while_loading(tmp_path):
    FastJukeboxPriorConfig(hidden_size=64).save_pretrained(tmp_path)
    for load in (FastJukeboxPriorConfig.from_pretrained, AutoConfig.from_pretrained):
        with pytest.raises(
            ValueError, match="FastJukeboxPriorConfig has no field `hiden_size`; did you mean `hidden_size`"
        ):
            load(tmp_path, hiden_size=1)
        assert load(tmp_path, hidden_size=128).hidden_size == 128
    with pytest.raises(ValueError, match="no field `widht`; did you mean `width`"):
        Config.from_dict({"width": 3}, widht=4)


@pytest.mark.parametrize("key", ["validate", "to_dict", "row_length"])
def test_a_method_or_property_is_no_field(tmp_path, key):
    FastJukeboxPriorConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"FastJukeboxPriorConfig has no field `{key}`"):
        FastJukeboxPriorConfig.from_pretrained(tmp_path, **{key: 1})
    assert FastJukeboxPriorConfig.from_pretrained(tmp_path, return_unused_kwargs=True, **{key: 1})[1] == {key: 1}


def test_who_asks_for_unused_keys_gets_them(tmp_path):
    Config(width=5).save_pretrained(tmp_path)
    config, unused = Config.from_pretrained(tmp_path, return_unused_kwargs=True, width=7, device_map="cpu")
    assert config.width == 7 and unused == {"device_map": "cpu"}
    config, unused = Config.from_dict({"width": 5}, return_unused_kwargs=True, temperature=1.0)
    assert config.width == 5 and unused == {"temperature": 1.0}


def test_what_transformers_passes_is_let_through(tmp_path):
    FastJukeboxVQVAEConfig().save_pretrained(tmp_path)
    arguments = {
        "cache_dir": tmp_path / "cache", "force_download": False, "local_files_only": True, "token": None,
        "revision": "main", "proxies": None, "subfolder": "", "trust_remote_code": False, "_from_auto": True,
        "_from_pipeline": "fast-jukebox", "_commit_hash": None, "gguf_file": None, "attn_implementation": "eager",
        "dtype": "float16", "output_attentions": True, "name_or_path": "here",
    }  # fmt: skip
    config = FastJukeboxVQVAEConfig.from_pretrained(tmp_path, **arguments)
    assert config.output_attentions and config._attn_implementation == "eager" and str(config.dtype).endswith("float16")


def test_changes_are_checked_while_loading(tmp_path):
    Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="^`width` must be an integer"):
        Config.from_pretrained(tmp_path, width=0)


def test_a_value_that_cannot_be_is_named_with_its_file_and_prior(tmp_path, tiny_config):
    written = tiny_config.to_dict()
    written["prior_configs"][1]["num_rows"] = 7
    (tmp_path / "config.json").write_text(json.dumps(written))
    message = r"`config\.json` of `.*` cannot be used, .*: `prior_configs\[1\]`: `n_ctx` must be a multiple"
    with pytest.raises(ValueError, match=message):
        FastJukeboxConfig.from_pretrained(tmp_path)


def test_another_configuration_is_refused_and_a_part_of_a_whole_one_found(tmp_path, tiny_config):
    tiny_config.save_pretrained(tmp_path / "whole")
    assert FastJukeboxVQVAEConfig.from_pretrained(tmp_path / "whole").width == 4
    with pytest.raises(ValueError, match=r"`model_type` of .* must be 'fast_jukebox_prior'.*`prior_configs\[level\]`"):
        FastJukeboxPriorConfig.from_pretrained(tmp_path / "whole")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 3, "task": {"a": 1}}))
    with pytest.raises(ValueError, match="`model_type` of .* must be 'fast_jukebox', got 'bert'"):
        FastJukeboxConfig.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(OSError, match="has no config.json, so it holds no FastJukeboxConfig"):
        FastJukeboxConfig.from_pretrained(tmp_path)
    with pytest.raises(OSError, match=f"`{tmp_path / 'other'}`: there is no such folder here"):
        FastJukeboxConfig.from_pretrained(tmp_path / "other")


# A configuration of a few bytes must not fill the memory or take hours, whatever its numbers.

HUGE = [10**9, 10**18, 10**40, 10**5000]
EVERYTHING = {
    "level": 0,
    "upsampling_strides": [2, 2],
    "num_artists": 2,
    "num_genres": 2,
    "lyric_length": 64,
    "lyric_encoder_layers": 1,
    "layer_types": ["row", "lyric_cross"],
    "alignment_layer": 1,
    "alignment_head": 0,
}


def numbers_of(kind, made):
    """The fields of a configuration that hold numbers or lists of them."""
    for field in fields(kind):
        value = getattr(made, field.name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if field.name in kind.__annotations__ and (number or field.name.startswith(("downs", "strides", "multi"))):
            yield field.name, value


PRIOR_FIELDS = list(numbers_of(FastJukeboxPriorConfig, FastJukeboxPriorConfig(**EVERYTHING)))
VQVAE_FIELDS = list(numbers_of(FastJukeboxVQVAEConfig, FastJukeboxVQVAEConfig()))


def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize(
    ("kind", "given", "name", "value"),
    [pytest.param(FastJukeboxPriorConfig, EVERYTHING, *each, id=each[0]) for each in PRIOR_FIELDS]
    + [pytest.param(FastJukeboxVQVAEConfig, {}, *each, id=f"vqvae.{each[0]}") for each in VQVAE_FIELDS],
)
def test_no_number_fills_the_memory(kind, given, name, value):
    for huge in HUGE:
        before, start = memory(), time.process_time()
        entry = [huge, *value[1:]] if isinstance(value, list | tuple) else huge
        wanted = (
            contextlib.suppress(ValueError) if isinstance(value, float) else pytest.raises(ValueError, match="must")
        )
        with wanted as caught:
            kind(**{**given, name: entry})
        assert len(str(caught and caught.value)) < 1000
        assert time.process_time() - start < 5  # what grows with the number takes minutes
        assert memory() - before < 2**16  # KiB


@pytest.mark.parametrize("field", ["downs", "strides", "multipliers", "multispectral_n_fft"])
def test_no_list_is_longer_than_levels_can_be(field):
    with pytest.raises(ValueError, match=field):
        FastJukeboxVQVAEConfig(**{"downs": [1], "strides": [2], "multipliers": [1], field: [2] * 100_000})


def test_an_encoder_has_no_more_blocks_than_can_be_built():
    with pytest.raises(ValueError, match=r"at most 4096 residual blocks"):
        FastJukeboxVQVAEConfig(depth=64, multipliers=[64, 1, 1], dilation_cycle=2)
    with pytest.raises(ValueError, match=r"`strides` \*\* `downs`"):
        FastJukeboxVQVAEConfig(downs=[16, 16, 16])


def test_dilations_stay_within_what_a_tensor_can_be_padded_with():
    check_dilations("rate", 3, 8, 16)
    check_dilations("rate", 1, None, 10**9)
    for rate, cycle, depth in ((3, None, 17), (1024, 8, 16), (2, 26, 256)):
        with pytest.raises(ValueError, match=f"`rate` must give dilations.*{rate} "):
            check_dilations("rate", rate, cycle, depth)


def test_a_stack_as_deep_as_published_ones_passes():
    for name in ("fastjukebox-72", "fastjukebox-mini-9"):
        FastJukeboxConfig.preset(name).validate()
    FastJukeboxPriorConfig(n_ctx=8192, num_rows=128, hidden_size=4800, num_attention_heads=8, num_hidden_layers=79)


def test_a_model_has_no_more_priors_than_levels_can_be():
    with pytest.raises(ValueError, match=f"`prior_configs` must list at most {MOST_ENTRIES}"):
        FastJukeboxConfig(prior_configs=[{"level": 0}] * 100_000)


@pytest.mark.parametrize("change", [{"num_labels": 10**9}, {"num_hidden_layers": 3 * 10**8}, {"lyric_length": 400_000}])
def test_a_file_is_refused_as_fast(tmp_path, change):
    config = FastJukeboxPriorConfig(num_artists=2, num_genres=2).to_dict() | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    before = memory()
    with pytest.raises(ValueError, match=f"`{next(iter(change))}`"):
        AutoConfig.from_pretrained(tmp_path)
    assert memory() - before < 2**16


@pytest.mark.parametrize("words", [10**30, [[1]], [None], "row", {"row": 1}])
def test_layer_types_that_are_no_words_are_named(words):
    with pytest.raises(ValueError, match="`layer_types` must be a list of words"):
        FastJukeboxPriorConfig(layer_types=words)


@pytest.mark.parametrize("model_type", [[0], None, "gpt2", 3])
def test_a_part_of_another_type_is_refused(model_type):
    with pytest.raises(ValueError, match="`model_type` of a FastJukeboxVQVAEConfig must be 'fast_jukebox_vqvae'"):
        FastJukeboxConfig(vqvae_config={**FastJukeboxVQVAEConfig().to_dict(), "model_type": model_type})


def test_what_errors_quote_is_short():
    assert shown([1, 2]) == "[1, 2]"
    assert shown("\x1b[31m") == repr("\x1b[31m")
    assert len(shown("a" * 10_000)) < 250
    assert shown(10**5000) == "an integer of too many digits"


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"[]", b"{}", b"null", b"7"])
def test_a_file_that_holds_no_names_is_refused_with_its_name(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"`config\.json` of .* must hold names with their values, fetch or save it"):
        FastJukeboxConfig.from_pretrained(tmp_path)


def test_a_model_saved_over_another_is_one_or_the_other(tiny_config, tmp_path, monkeypatch):
    """The process is killed at each rename in turn; whatever is loaded afterwards is one whole model."""
    torch.manual_seed(0)
    config = tiny_config.vqvae_config
    wider = FastJukeboxVQVAE(type(config)(**{**config.to_diff_dict(), "codebook_size": 32}))
    models = {16: FastJukeboxVQVAE(config), 32: wider}
    rename, seen = os.replace, set()
    for last in range(12):
        models[16].save_pretrained(tmp_path / str(last))
        calls = [0]

        def replace(*names, calls=calls, last=last):
            calls[0] += 1
            if calls[0] > last:
                raise SystemExit
            rename(*names)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            with contextlib.suppress(SystemExit):
                wider.save_pretrained(tmp_path / str(last))
        loaded = FastJukeboxVQVAE.from_pretrained(tmp_path / str(last))
        size = loaded.config.codebook_size
        assert all(torch.equal(value, models[size].state_dict()[name]) for name, value in loaded.state_dict().items())
        seen.add(size)
    assert seen == {16, 32}
