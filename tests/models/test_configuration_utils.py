import math

import pytest

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
