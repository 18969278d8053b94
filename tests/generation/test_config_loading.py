import re

import pytest
import torch

from fast_jukebox import FastJukeboxModel
from fast_jukebox.generation.request import FastJukeboxGenerationConfig


def same(first, second):
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_settings_travel_with_the_model(tiny_model, tmp_path):
    tiny_model.generation_config.temperature = [0.9, 0.8, 0.7]
    tiny_model.generation_config.duration = 0.1
    tiny_model.save_pretrained(tmp_path)
    loaded = FastJukeboxModel.from_pretrained(tmp_path)
    assert isinstance(loaded.generation_config, FastJukeboxGenerationConfig)
    assert loaded.generation_config.temperature == [0.9, 0.8, 0.7]
    assert "temperature" not in (tmp_path / "config.json").read_text()
    expected = tiny_model.generate(duration=0.1, temperature=[0.9, 0.8, 0.7], seed=1)
    same(loaded.generate(seed=1).codes, expected.codes)


def test_a_repository_without_settings_gets_the_defaults(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    assert FastJukeboxModel.from_pretrained(tmp_path).generation_config == FastJukeboxGenerationConfig()


def test_broken_settings_are_an_error(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"temperature": -1.0}')
    with pytest.raises(ValueError, match="temperature"):
        FastJukeboxModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", ["null", "[]", "1", '"x"', "NaN", "[" * 100_000, "9" * 5000, '{"top_k": {"a": 1}}'])
def test_what_is_no_settings_is_an_error_that_names_the_file(tiny_model, tmp_path, content):
    tiny_model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(ValueError, match=f"`generation_config.json` of `{re.escape(str(tmp_path))}`"):
        FastJukeboxModel.from_pretrained(tmp_path)


def test_settings_can_be_given_when_loading(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    settings = FastJukeboxGenerationConfig(duration=0.05)
    loaded = FastJukeboxModel.from_pretrained(tmp_path, generation_config=settings)
    assert loaded.generate().audio.shape == (1, 80)
