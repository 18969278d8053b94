"""LoRA adapters of a level: made, saved beside their base's name, loaded, merged, and heard wherever a model plays."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import pipeline

from fast_jukebox import FastJukeboxModel, FastJukeboxPrior
from fast_jukebox.models.adapters import add_lora, has_adapters, load_adapter, read_adapter_config, save_adapter

peft = pytest.importorskip("peft")


@pytest.fixture
def base(tiny_model, tmp_path):
    """Folder of a whole model."""
    tiny_model.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def trained(prior, **settings):
    """A prior with adapters that are heard."""
    model = add_lora(prior, **{"rank": 4, **settings})
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1.0)
    return model.eval()


@pytest.fixture
def adapter(base, tmp_path):
    """Folder of an adapter of the top level, and the logits that it gives for `CODES`."""
    model = trained(FastJukeboxPrior.from_pretrained(base, level=2))
    save_adapter(model, tmp_path / "lora", base_model="ann/base")
    return tmp_path / "lora", model(CODES).logits.detach()


CODES = torch.arange(32).reshape(2, 16) % 16


def test_what_is_saved_is_safetensors_and_names_base_and_level(adapter):
    folder, _ = adapter
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "ann/base" and config["level"] == 2
    assert (config["r"], config["lora_alpha"], config["inference_mode"]) == (4, 8, True)
    assert config["target_modules"] == ["contract", "expand", "projection", "qkv"]
    assert all("lora_" in name for name in load_file(folder / "adapter_model.safetensors"))
    assert read_adapter_config(folder) == config


def test_an_adapter_is_loaded_merged_or_beside(base, adapter):
    folder, logits = adapter
    for merge in (True, False):
        prior = FastJukeboxPrior.from_pretrained(base, level=2)
        plain = prior(CODES).logits
        loaded = load_adapter(prior, folder, merge=merge)
        assert has_adapters(loaded) != merge and (loaded is prior) == merge
        torch.testing.assert_close(loaded(CODES).logits, logits, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(logits, plain, atol=1e-2)
    # Merged, it is a prior like any other.
    assert all(parameter.requires_grad for parameter in load_adapter(plain_prior(base), folder).parameters())


def plain_prior(base):
    return FastJukeboxPrior.from_pretrained(base, level=2)


def test_peft_reads_it_too(base, adapter):
    folder, logits = adapter
    with pytest.warns(UserWarning, match="level"):  # which peft leaves out
        model = peft.PeftModel.from_pretrained(plain_prior(base), folder)
    torch.testing.assert_close(model(CODES).logits, logits, atol=1e-5, rtol=1e-5)


def test_a_model_with_an_adapter_plays_it_and_is_saved_with_it(base, adapter, tmp_path):
    folder, _ = adapter
    model = FastJukeboxModel.from_pretrained(base, adapters={2: folder})
    assert model.priors[0].blocks[0].mlp.expand.weight.equal(plain_level(base, 0).blocks[0].mlp.expand.weight)
    song = model.generate(duration=0.4, seed=1)
    plain = FastJukeboxModel.from_pretrained(base).generate(duration=0.4, seed=1)
    assert not torch.equal(song.codes[2], plain.codes[2])
    # Unmerged, as peft loads it, it is the same song, and it is not saved as what it is not.
    beside = FastJukeboxModel.from_pretrained(base)
    load_adapter(beside.priors[2], folder, merge=False)
    assert torch.equal(beside.generate(duration=0.4, seed=1).codes[0], song.codes[0])
    for part in (beside, beside.priors[2]):
        with pytest.raises(ValueError, match="with adapters cannot be saved as one without: merge them"):
            part.save_pretrained(tmp_path / "beside")
    model.save_pretrained(tmp_path / "merged")
    again = FastJukeboxModel.from_pretrained(tmp_path / "merged")
    assert torch.equal(again.generate(duration=0.4, seed=1).audio, song.audio)
    jukebox = pipeline("fast-jukebox", model=str(base), adapters={2: folder}, device="cpu")
    assert torch.equal(torch.from_numpy(jukebox(duration=0.4, seed=1)["audio"]), song.audio[0])


def plain_level(base, level):
    return FastJukeboxPrior.from_pretrained(base, level=level)


def test_an_adapter_of_the_hub(base, adapter, hub):
    folder, logits = adapter
    from huggingface_hub import HfApi

    HfApi().create_repo("ann/lora")
    HfApi().upload_folder(repo_id="ann/lora", folder_path=folder)
    model = FastJukeboxModel.from_pretrained(base, adapters={2: "ann/lora"})
    torch.testing.assert_close(model.priors[2](CODES).logits, logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_base_of_other_weights_is_said(base, adapter, tmp_path, caplog, dtype):
    folder, _ = adapter  # trained on a model of another name, in float32
    FastJukeboxModel.from_pretrained(base, dtype=dtype, adapters={2: folder})
    assert not caplog.messages
    other = FastJukeboxModel.from_pretrained(base, dtype=dtype)
    with torch.no_grad():
        other.priors[2].blocks[1].mlp.expand.weight.mul_(1.5)
    other.save_pretrained(tmp_path / "other")
    FastJukeboxModel.from_pretrained(tmp_path / "other", adapters={2: folder})
    assert "was trained on ann/base, whose weights are not those of" in caplog.text


def test_an_adapter_of_another_program_is_loaded_without_a_word(base, adapter, caplog):
    folder, _ = adapter
    for kept in ({"format": "pt"}, {"format": "pt", "base_sample": "no numbers"}):
        save_file(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.safetensors", kept)
        load_adapter(plain_prior(base), folder)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("adapters", "match"),
    [
        ({1: "lora"}, r"`.*lora` is of level 2, got 1"),
        ({3: "lora"}, "is of level 2, got 3"),
        ({-1: "lora"}, "by level, 0 or above, got -1"),
        ({True: "lora"}, "by level, 0 or above, got True"),
        (["lora"], "must be a dict from levels to folders"),
    ],
)
def test_levels_that_cannot_be(base, adapter, tmp_path, adapters, match):
    if isinstance(adapters, dict):
        adapters = {level: tmp_path / name for level, name in adapters.items()}
    with pytest.raises(ValueError, match=match):
        FastJukeboxModel.from_pretrained(base, adapters=adapters)


def rewrite(folder, **fields):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"r": 10**9}, "`r` of the adapter .* must be from 1 to 16384, got 1000000000"),
        ({"r": 2}, r"must fit the prior of level 2: .*size mismatch"),
        ({"peft_type": "NO_SUCH"}, "must fit the prior of level 2"),
        ({"peft_type": None}, "`peft_type` among them"),
        ({"target_modules": ["expand"]}, "has .*, which no layer takes"),
        ({"target_modules": ["qkv", "projection", "expand", "contract", "attention_norm"]}, "must fit the prior"),
        ({"level": 1}, "is of level 1, and the prior of level 2"),
    ],
)
def test_settings_that_do_not_fit(base, adapter, fields, match):
    folder, _ = adapter
    rewrite(folder, **fields)
    with pytest.raises(ValueError, match=match):
        load_adapter(plain_prior(base), folder)


def test_files_that_are_not_there_or_damaged(base, adapter, tmp_path):
    folder, _ = adapter
    weights = folder / "adapter_model.safetensors"
    kept = load_file(weights)
    save_file(dict(list(kept.items())[1:]), weights)
    with pytest.raises(ValueError, match="its file of weights lacks"):
        load_adapter(plain_prior(base), folder)
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(OSError, match="is damaged or cut short"):
        load_adapter(plain_prior(base), folder)
    weights.unlink()
    torch.save(kept, folder / "adapter_model.bin")
    with pytest.raises(OSError, match="must hold adapter_model.safetensors, and has none; pickles are not read"):
        load_adapter(plain_prior(base), folder)
    with pytest.raises(OSError, match="holds an adapter and no model: load the model that it was trained on"):
        FastJukeboxPrior.from_pretrained(folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="must hold JSON"):
        load_adapter(plain_prior(base), folder)
    with pytest.raises(OSError, match="has no adapter_config.json, so it holds no adapter"):
        FastJukeboxModel.from_pretrained(base, adapters={2: base})
    with pytest.raises(FileNotFoundError, match="there is no folder '/nowhere/lora'"):
        FastJukeboxModel.from_pretrained(base, adapters={2: "/nowhere/lora"})


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"rank": 0}, "`rank` must be an integer from 1 to 16384, got 0"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\), got 1.0"),
        ({"alpha": 0.0}, "`alpha` must be positive, got 0.0"),
        ({"targets": ["qkv", "q_proj"]}, "contract, expand, projection, qkv, or all-linear, got 'q_proj'"),
        ({"targets": []}, "got none"),
    ],
)
def test_adapters_that_cannot_be_made(tiny_model, settings, match):
    with pytest.raises(ValueError, match=match):
        add_lora(tiny_model.priors[2], **settings)


def test_fresh_adapters_add_nothing_and_train_alone(tiny_model):
    prior = tiny_model.priors[2]
    logits = prior(CODES).logits.detach()
    model = add_lora(prior, rank=2, targets=["all-linear"], use_dora=True)
    torch.testing.assert_close(model(CODES).logits, logits, atol=1e-5, rtol=1e-5)
    assert all("lora_" in name for name, parameter in model.named_parameters() if parameter.requires_grad)


def test_a_file_is_no_adapter(base, tmp_path):
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(NotADirectoryError, match=r"adapter_model\.safetensors' is a file; an adapter is a folder"):
        FastJukeboxModel.from_pretrained(base, adapters={2: tmp_path / "adapter_model.safetensors"})


def test_settings_import_no_module(base, adapter):
    folder, _ = adapter
    path = folder / "adapter_config.json"
    settings = {"megatron_config": {"a": 1}, "megatron_core": "a_module_that_is_not_there"}
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    load_adapter(FastJukeboxPrior.from_pretrained(base, level=2), folder)
