import json

import pytest
import torch
from safetensors.torch import save_file

from fast_jukebox import FastJukeboxPrior, FastJukeboxVQVAE
from fast_jukebox.models.loading import (
    download_arguments,
    find_weights,
    level_name,
    parts_of,
    read_config,
    read_weights,
)


def test_levels_have_names():
    assert [level_name(level) for level in range(3)] == ["bottom level (0)", "middle level (1)", "top level (2)"]
    assert level_name(1, 2) == "top level (1)"
    assert level_name(0, 1) == "only level (0)"
    assert level_name(3, 5) == "level 3"
    assert level_name(7) == "level 7"


def test_parts_are_read_from_tensor_names():
    keys = ["vqvae.a", "priors.0.b", "priors.0.c.d", "priors.11.e", "other"]
    assert parts_of(keys) == ["other", "priors.0", "priors.11", "vqvae"]


def test_download_arguments_are_picked():
    given = {"revision": "v1", "token": None, "dtype": "auto", "subfolder": "a", "local_files_only": False}
    assert download_arguments(given) == {"revision": "v1", "subfolder": "a", "local_files_only": False}


def test_weights_in_one_file(tmp_path):
    save_file({"a.b": torch.zeros(2), "c": torch.ones(3)}, tmp_path / "model.safetensors")
    assert find_weights(tmp_path) == {"a.b": "model.safetensors", "c": "model.safetensors"}
    assert torch.equal(read_weights(tmp_path, "a.")["b"], torch.zeros(2))


def test_weights_of_a_variant(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "model.fp16.safetensors")
    assert find_weights(tmp_path, variant="fp16") == {"a": "model.fp16.safetensors"}
    assert find_weights(tmp_path) == {}


def test_only_the_shards_of_a_part_are_read(tmp_path):
    weight_map = {"a.x": "model-1.safetensors", "a.y": "model-2.safetensors", "b.z": "not-there.safetensors"}
    save_file({"a.x": torch.zeros(1)}, tmp_path / "model-1.safetensors")
    save_file({"a.y": torch.ones(1)}, tmp_path / "model-2.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert find_weights(tmp_path) == weight_map
    assert {key: float(value) for key, value in read_weights(tmp_path, "a.").items()} == {"x": 0.0, "y": 1.0}


def test_a_folder_without_weights_has_none(tmp_path):
    assert find_weights(tmp_path) == {}
    with pytest.raises(ValueError, match=r"`priors.0`; it holds no safetensors weights"):
        read_weights(tmp_path, "priors.0.")


def test_a_part_that_is_not_there_is_named_with_what_is(tmp_path):
    save_file({"vqvae.a": torch.zeros(2), "priors.2.b": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"no weights of `priors.0`; it holds `priors.2`, `vqvae`"):
        read_weights(tmp_path, "priors.0.")


def test_a_configuration_is_read_as_it_is_written(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "anything", "a": 1}')
    assert read_config(tmp_path)["a"] == 1


def test_a_prior_of_its_own_is_loaded_with_or_without_its_level(tiny_model, tmp_path):
    tiny_model.priors[1].save_pretrained(tmp_path)
    assert FastJukeboxPrior.from_pretrained(tmp_path).config.level == 1
    assert FastJukeboxPrior.from_pretrained(tmp_path, level=1).config.level == 1
    with pytest.raises(ValueError, match=r"level.*middle level \(1\); got 2"):
        FastJukeboxPrior.from_pretrained(tmp_path, level=2)


def test_the_vqvae_takes_no_level(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "whole")
    with pytest.raises(ValueError, match="level"):
        FastJukeboxVQVAE.from_pretrained(tmp_path / "whole", level=0)
    tiny_model.vqvae.save_pretrained(tmp_path / "alone")
    with pytest.raises(ValueError, match="level"):
        FastJukeboxVQVAE.from_pretrained(tmp_path / "alone", level=0)


def test_the_configuration_can_be_changed_while_a_part_is_loaded(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    prior = FastJukeboxPrior.from_pretrained(tmp_path, level=2, residual_scale=True)
    assert prior.config.residual_scale is True


def test_pickles_are_not_loaded(tiny_model, tmp_path):
    prior = tiny_model.priors[2]
    prior.config.save_pretrained(tmp_path)
    torch.save(prior.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        FastJukeboxPrior.from_pretrained(tmp_path)


def test_a_part_of_another_kind_is_named(tiny_model, tmp_path):
    tiny_model.vqvae.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"`model_type`.*'fast_jukebox_prior'.*got 'fast_jukebox_vqvae'"):
        FastJukeboxPrior.from_pretrained(tmp_path)


def test_a_change_that_does_not_fit_is_refused_while_a_part_is_loaded(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"`n_ctx` must be a multiple of `blocks` \(4\), got 23"):
        FastJukeboxPrior.from_pretrained(tmp_path, level=2, n_ctx=23)
