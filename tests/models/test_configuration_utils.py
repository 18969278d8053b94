import json
import math

import pytest
from transformers import AutoConfig

from fast_jukebox import FastJukeboxConfig, FastJukeboxPriorConfig, FastJukeboxVQVAEConfig
from fast_jukebox.models.configuration_utils import (
    FastJukeboxBaseConfig,
    check_bool,
    check_float,
    check_int,
    check_int_list,
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
    with pytest.raises(ValueError, match="`width` must be an integer"):
        Config.from_pretrained(tmp_path, width=0)


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
