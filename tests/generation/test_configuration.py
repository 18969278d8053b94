import json

import pytest
from transformers import GenerationConfig

from fast_jukebox.generation.request import FastJukeboxGenerationConfig
from fast_jukebox.generation.windows import check_duration, default_hop_fraction, per_level


def test_defaults_are_saved_in_plain_words(tmp_path):
    FastJukeboxGenerationConfig().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    saved.pop("transformers_version")
    assert saved == {
        "do_sample": True,
        "duration": 20.0,
        "hop_fractions": None,
        "schedule": None,
        "temperature": 0.99,
        "top_k": 0,
        "top_p": 1.0,
        "window_fractions": None,
    }


def test_settings_of_each_level_survive_saving(tmp_path):
    config = FastJukeboxGenerationConfig(
        duration=3.5,
        hop_fractions=[0.5, 0.25, 0.125],
        temperature=[0.9, 0.95, 0.98],
        top_k=[0, 10, 20],
        top_p=[1.0, 0.9, 0.8],
        do_sample=[True, False, True],
        note="kept",
    )
    config.save_pretrained(tmp_path)
    assert FastJukeboxGenerationConfig.from_pretrained(tmp_path) == config
    assert FastJukeboxGenerationConfig.from_pretrained(tmp_path).note == "kept"


def test_nothing_comes_from_a_model_configuration():
    assert FastJukeboxGenerationConfig.from_model_config({"temperature": 3.0}).temperature == 0.99


def test_a_plain_generation_config_gives_what_it_sets():
    config = FastJukeboxGenerationConfig.from_dict(GenerationConfig(temperature=0.5, do_sample=True).to_dict())
    assert (config.temperature, config.top_k, config.duration) == (0.5, 0, 20.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("duration", 0),
        ("duration", float("inf")),
        ("hop_fractions", 0.0),
        ("hop_fractions", [0.5, 0.5, 1.5]),
        ("temperature", 0.0),
        pytest.param("temperature", 10**400, id="beyond floats"),
        ("temperature", [1.0, -1.0]),
        ("top_k", -2),
        ("top_p", [0.5, 0.0]),
        ("do_sample", "yes"),
        ("schedule", "random"),
        ("schedule", 1),
        ("schedule", ["parallel", "parallel", "parallel"]),
        ("schedule", ["parallel", "both", None]),
        ("window_fractions", 0),
        ("window_fractions", [0.5, 2.0, None]),
    ],
)
def test_bad_values_are_refused_when_made_and_when_saved(tmp_path, name, value):
    with pytest.raises(ValueError, match=name):
        FastJukeboxGenerationConfig(**{name: value})
    config = FastJukeboxGenerationConfig()
    setattr(config, name, value)
    with pytest.raises(ValueError, match=name):
        config.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_one_value_for_all_levels_or_a_list():
    assert per_level("top_k", 3, 2) == [3, 3]
    assert per_level("top_k", (1, 2), 2) == [1, 2]
    with pytest.raises(ValueError, match="top_k"):
        per_level("top_k", [1, 2, 3], 2)


def test_default_hop_fractions():
    assert default_hop_fraction(parallel=False, top=True) == 0.125
    assert default_hop_fraction(parallel=False, top=False) == 0.5
    assert [default_hop_fraction(True, False, share) for share in (1.0, 0.5, 0.25)] == [0.875, 0.75, 0.75]


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), 86401, "20", True, None])
def test_durations_out_of_range(value):
    with pytest.raises(ValueError, match="seconds"):
        check_duration("seconds", value)


@pytest.mark.parametrize("written", ["[]", '{"duration": -3}', '{"top_k": "x"}'])
def test_a_file_of_other_settings_is_named_with_what_to_do(tmp_path, written):
    (tmp_path / "generation_config.json").write_text(written)
    with pytest.raises(ValueError, match=r"`generation_config\.json` of `.*` must .*correct it, or fetch or save"):
        FastJukeboxGenerationConfig.from_pretrained(tmp_path)
