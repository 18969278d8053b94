import json
import os
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from fast_jukebox import FastJukeboxModel, FastJukeboxPrior, FastJukeboxVQVAE
from fast_jukebox.models import weight_files
from fast_jukebox.models.valence import ValenceConfig, ValenceModel
from fast_jukebox.models.weight_files import clear_shape_errors, file_shapes, open_weights


def with_another(folder, **fields):
    """Change fields of the middle prior in a folder's configuration, as somebody does who edits it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    (config["prior_configs"][1] if "prior_configs" in config else config).update(fields)
    path.write_text(json.dumps(config))


def test_shapes_are_told_from_shards_without_their_tensors(tmp_path):
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(())}, tmp_path / "one.safetensors")
    save_file({"c": torch.zeros(4)}, tmp_path / "two.safetensors")
    weights = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}
    assert file_shapes(tmp_path, weights, {}) == {"a": (2, 3), "b": (), "c": (4,)}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"noise")
    with (
        pytest.raises(OSError, match=r"model.safetensors` is damaged or cut short"),
        open_weights(str(tmp_path / "model.safetensors")),
    ):
        pass


@pytest.mark.parametrize("size", ["8KB", "1GB"])
def test_tensors_that_do_not_fit_their_configuration_are_named(tiny_model, tmp_path, size):
    tiny_model.save_pretrained(tmp_path / "whole", max_shard_size=size)
    tiny_model.priors[1].save_pretrained(tmp_path / "alone", max_shard_size=size)
    width = tiny_model.config.prior_configs[1].hidden_size
    for folder in ("whole", "alone"):
        with_another(tmp_path / folder, mlp_ratio=2.0)
    named = (
        rf"does not fit its configuration: .*priors\.1\.blocks\.0\.mlp\.expand\.weight and \d+ like it "
        rf"\({width}, {width}\), wanted \({2 * width}, {width}\)"
    )
    with pytest.raises(ValueError, match=named + ".*config.json.*ignore_mismatched_sizes=True") as caught:
        FastJukeboxModel.from_pretrained(tmp_path / "whole")
    assert str(tmp_path / "whole") in str(caught.value) and "embedding" not in str(caught.value)
    with pytest.raises(ValueError, match=named):
        FastJukeboxPrior.from_pretrained(tmp_path / "whole", level=1)
    with pytest.raises(ValueError, match=named.replace(r"priors\.1\.", "")):
        FastJukeboxPrior.from_pretrained(tmp_path / "alone")
    FastJukeboxPrior.from_pretrained(tmp_path / "whole", level=0)  # other parts are none the worse for it
    FastJukeboxVQVAE.from_pretrained(tmp_path / "whole")
    begun_anew = FastJukeboxModel.from_pretrained(tmp_path / "whole", ignore_mismatched_sizes=True)
    assert begun_anew.priors[1].blocks[0].mlp.expand.weight.shape == (2 * width, width)


def test_a_change_while_loading_that_weights_do_not_fit_is_named(tiny_model, tmp_path):
    tiny_model.priors[1].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.expand\.bias and \d+ like it"):
        FastJukeboxPrior.from_pretrained(tmp_path, mlp_ratio=2.0)


def without(folder, name):
    """Take a tensor out of the folder's weights: of the index, where there is one, else of the file."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        content = json.loads(index.read_text())
        shard = folder / content["weight_map"].pop(name)
        index.write_text(json.dumps(content))
    else:
        shard = folder / "model.safetensors"
    tensors = load_file(shard)
    del tensors[name]
    save_file(tensors, shard, {"format": "pt"})
    return index.name if index.is_file() else shard.name


@pytest.mark.parametrize("size", ["8KB", "1GB"])
def test_a_tensor_that_is_missing_is_named_with_its_file(tiny_model, tmp_path, size):
    name = "blocks.0.mlp.expand.weight"
    tiny_model.save_pretrained(tmp_path / "whole", max_shard_size=size)
    tiny_model.priors[1].save_pretrained(tmp_path / "alone", max_shard_size=size)
    file = without(tmp_path / "whole", f"priors.1.{name}")
    assert without(tmp_path / "alone", name) == file
    said = rf"{re.escape(file)} of `.*whole` lacks priors\.1\.{re.escape(name)} of the model .*save it again"
    with pytest.raises(ValueError, match=said):
        FastJukeboxModel.from_pretrained(tmp_path / "whole")
    with pytest.raises(ValueError, match=said):
        FastJukeboxPrior.from_pretrained(tmp_path / "whole", level=1)
    for load in (FastJukeboxPrior, AutoModel):
        with pytest.raises(ValueError, match=rf"{re.escape(file)} of `.*alone` lacks {re.escape(name)} of the model"):
            load.from_pretrained(tmp_path / "alone")
    FastJukeboxPrior.from_pretrained(tmp_path / "whole", level=0)  # other parts are none the worse for it
    FastJukeboxVQVAE.from_pretrained(tmp_path / "whole")
    _, info = FastJukeboxModel.from_pretrained(
        tmp_path / "whole", ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert list(info["missing_keys"]) == [f"priors.1.{name}"]


def test_a_tensor_that_a_shard_lacks_is_named_with_the_shard(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path, max_shard_size="8KB")
    index = tmp_path / "model.safetensors.index.json"
    name, shard = next(iter(json.loads(index.read_text())["weight_map"].items()))
    before = index.read_text()
    without(tmp_path, name)
    index.write_text(before)
    with pytest.raises(ValueError, match=rf"{shard} of `.*` lacks {re.escape(name)} of the model"):
        FastJukeboxModel.from_pretrained(tmp_path)


def test_several_tensors_that_are_missing_are_counted(tiny_model, tmp_path):
    tiny_model.vqvae.save_pretrained(tmp_path)
    names = sorted(load_file(tmp_path / "model.safetensors"))[:3]
    for name in names:
        without(tmp_path, name)
    with pytest.raises(ValueError, match=rf"model.safetensors of `.*` lacks {re.escape(names[0])} and 2 other tensors"):
        FastJukeboxVQVAE.from_pretrained(tmp_path)


def test_a_classifier_that_lacks_a_tensor_is_refused(tmp_path):
    ValenceModel(ValenceConfig.mini()).save_pretrained(tmp_path)
    _, info = ValenceModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    without(tmp_path, "pooler.weight")
    with pytest.raises(ValueError, match=r"model.safetensors of `.*` lacks pooler.weight of the model"):
        ValenceModel.from_pretrained(tmp_path)


def test_other_errors_are_left_alone(tiny_model):
    shapes = {name: tuple(tensor.shape) for name, tensor in tiny_model.state_dict().items()}
    for found in ({}, shapes, {"stranger": (3,)}):
        with (
            pytest.raises(RuntimeError, match="out of memory"),
            clear_shape_errors("model", lambda: tiny_model, lambda found=found: found),
        ):
            raise RuntimeError("out of memory")


def test_weights_that_may_not_be_read_are_not_called_missing(tmp_path, monkeypatch):
    def refused(path, framework):
        raise FileNotFoundError(f"No such file or directory: {path}")  # what safetensors raises without permission

    monkeypatch.setattr(weight_files, "safe_open", refused)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(PermissionError, match="Permission denied"), open_weights(str(tmp_path / "model.safetensors")):
        pass
    with pytest.raises(FileNotFoundError), open_weights(str(tmp_path / "none.safetensors")):
        pass


@pytest.mark.skipif(os.name != "posix", reason="files have no modes there")
def test_saved_weights_may_be_read_by_whom_new_files_may(tiny_model, tmp_path):
    for model in (tiny_model, tiny_model.priors[0], tiny_model.vqvae):
        folder = tmp_path / type(model).__name__
        model.save_pretrained(folder)
        (folder / "new").touch()
        modes = {path.name: path.stat().st_mode for path in folder.iterdir()}
        assert set(modes.values()) == {modes["new"]}
