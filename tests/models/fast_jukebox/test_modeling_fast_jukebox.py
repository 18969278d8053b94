import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from fast_jukebox import FastJukeboxConfig, FastJukeboxModel, FastJukeboxPrior, FastJukeboxVQVAE

HOP = 16


def audio(batch=2, codes=6):
    return 0.5 * torch.randn(batch, codes * HOP)


def assert_same_weights(one, other):
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert value.dtype == second[key].dtype
        assert torch.equal(value, second[key]), key
    # what is in no file as well
    others = dict(other.named_buffers())
    for key, value in one.named_buffers():
        assert torch.equal(value, others[key]), key


def sizes(model):
    """What the configuration says of a model apart from where it came from and its precision."""
    return {key: value for key, value in model.config.to_diff_dict().items() if key not in ("dtype", "architectures")}


def parts_of(model):
    return [model.vqvae, *model.priors]


def test_there_is_one_prior_a_level(tiny_model):
    assert isinstance(tiny_model.vqvae, FastJukeboxVQVAE)
    assert [prior.config.level for prior in tiny_model.priors] == [0, 1, 2]
    assert all(isinstance(prior, FastJukeboxPrior) for prior in tiny_model.priors)
    assert tiny_model.can_generate()


def test_forward_scores_every_level(tiny_model):
    sound = audio()
    output = tiny_model(sound)
    codes = tiny_model.vqvae.encode(sound)
    for level, prior in enumerate(tiny_model.priors):
        assert torch.equal(output.codes[level], codes[level])
        upper = codes[level + 1] if level < 2 else None
        logits = prior(codes[level], upper_codes=upper).logits
        expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), codes[level])
        torch.testing.assert_close(output.losses[level], expected)
        torch.testing.assert_close(output.logits[level], logits)
    torch.testing.assert_close(output.loss, output.losses.sum())


def test_forward_scores_one_context_of_long_audio(tiny_model):
    output = tiny_model(audio(batch=1, codes=30))
    assert [logits.shape[1] for logits in output.logits] == [32, 32, 24]
    assert [codes.shape[1] for codes in output.codes] == [120, 60, 30]


def test_gradients_reach_the_priors_alone(tiny_model):
    tiny_model.train()
    # transformers renamed it
    getattr(tiny_model, "activation_checkpointing_enable", tiny_model.gradient_checkpointing_enable)()
    tiny_model(audio()).loss.backward()
    for prior in tiny_model.priors:
        assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in prior.parameters())
    assert all(parameter.grad is None for parameter in tiny_model.vqvae.parameters())


def test_forward_refuses_metadata_of_another_number_of_levels(tiny_model):
    with pytest.raises(ValueError, match="metadata"):
        tiny_model(audio(), metadata=[None])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"])
def test_saved_is_loaded(tiny_model, tmp_path, dtype, max_shard_size):
    tiny_model.priors.to(dtype)
    tiny_model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (max_shard_size == "20KB")
    again = FastJukeboxModel.from_pretrained(tmp_path)
    assert again.dtype == again.priors[1].config.dtype == dtype
    assert again.vqvae.dtype == again.vqvae.config.dtype == torch.float32
    assert_same_weights(tiny_model, again)
    again.save_pretrained(tmp_path / "again")
    assert_same_weights(tiny_model, AutoModel.from_pretrained(tmp_path / "again"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_on_a_cpu(tiny_model, tmp_path, dtype):
    sound = audio(batch=1, codes=2)
    exact = tiny_model(sound).losses
    tiny_model.to(dtype).save_pretrained(tmp_path)
    half = FastJukeboxModel.from_pretrained(tmp_path)
    torch.testing.assert_close(half(sound).losses.float(), exact, rtol=0.1, atol=0.1)
    upcast = FastJukeboxModel.from_pretrained(tmp_path, dtype=torch.float32)
    assert {parameter.dtype for parameter in upcast.parameters()} == {torch.float32}
    torch.testing.assert_close(upcast(sound).losses, exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_codes_and_sound_do_not_depend_on_the_precision(tiny_model, tmp_path, dtype):
    tiny_model.save_pretrained(tmp_path)
    sound = audio(codes=8)
    codes = tiny_model.vqvae.encode(sound)
    whole = FastJukeboxModel.from_pretrained(tmp_path, dtype=dtype)
    alone = FastJukeboxVQVAE.from_pretrained(tmp_path, dtype=dtype)
    parts = FastJukeboxModel.from_levels(tmp_path, [tmp_path] * 3, dtype=dtype)
    assert whole.dtype == parts.dtype == parts.config.dtype == dtype
    for vqvae in (whole.vqvae, alone, parts.vqvae):
        assert all(map(torch.equal, vqvae.encode(sound), codes))
        for level in range(3):
            assert torch.equal(vqvae.decode(codes[level:], level), tiny_model.vqvae.decode(codes[level:], level))


def test_a_repository_holds_configuration_and_weights_and_no_code(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}
    keys = load_file(tmp_path / "model.safetensors").keys()
    assert {key.split(".")[0] for key in keys} == {"vqvae", "priors"}


def test_the_auto_class_gives_the_model(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is FastJukeboxModel
    tiny_model.vqvae.save_pretrained(tmp_path / "vqvae")
    assert type(AutoModel.from_pretrained(tmp_path / "vqvae")) is FastJukeboxVQVAE
    tiny_model.priors[1].save_pretrained(tmp_path / "prior")
    assert type(AutoModel.from_pretrained(tmp_path / "prior")) is FastJukeboxPrior


@pytest.mark.parametrize("part", ["vqvae", 0, 1, 2])
def test_a_part_is_loaded_alone(tiny_model, tmp_path, part):
    tiny_model.save_pretrained(tmp_path, max_shard_size="20KB")
    weight_map = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    prefix = "vqvae." if part == "vqvae" else f"priors.{part}."
    needed = {file for key, file in weight_map.items() if key.startswith(prefix)}
    for file in set(weight_map.values()) - needed:
        (tmp_path / file).unlink()  # no other part is read
    if part == "vqvae":
        alone, own = FastJukeboxVQVAE.from_pretrained(tmp_path), tiny_model.vqvae
    else:
        alone, own = FastJukeboxPrior.from_pretrained(tmp_path, level=part), tiny_model.priors[part]
    assert_same_weights(own, alone)
    assert sizes(alone) == sizes(own)
    assert not alone.training


def test_a_part_is_loaded_alone_in_the_precision_of_the_file_or_as_asked(tiny_model, tmp_path):
    tiny_model.half().save_pretrained(tmp_path)
    assert FastJukeboxPrior.from_pretrained(tmp_path, level=0).dtype == torch.float16
    assert FastJukeboxPrior.from_pretrained(tmp_path, level=0, dtype=torch.float32).dtype == torch.float32
    prior, info = FastJukeboxPrior.from_pretrained(
        tmp_path, level=0, attn_implementation="eager", output_loading_info=True
    )
    assert prior.config._attn_implementation == "eager"
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


@pytest.mark.parametrize("level", [None, 3, -1])
def test_a_level_that_is_not_there_is_refused(tiny_model, tmp_path, level):
    tiny_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"level.*bottom level \(0\), middle level \(1\), top level \(2\)"):
        FastJukeboxPrior.from_pretrained(tmp_path, level=level)


@pytest.mark.parametrize(("part", "name"), [("priors.1.", "middle level"), ("vqvae.", "VQ-VAE")])
@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"])
def test_weights_that_lack_a_part_are_refused(tiny_model, tmp_path, part, name, max_shard_size):
    tiny_model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    single, index = tmp_path / "model.safetensors", tmp_path / "model.safetensors.index.json"
    if single.exists():
        kept = {key: value for key, value in load_file(single).items() if not key.startswith(part)}
        save_file(kept, single, metadata={"format": "pt"})
    else:
        listed = json.loads(index.read_text())
        listed["weight_map"] = {key: file for key, file in listed["weight_map"].items() if not key.startswith(part)}
        index.write_text(json.dumps(listed))
    with pytest.raises(
        ValueError, match=rf"lacks the weights of the {name}.*it holds.*`priors.2`.*: save it again, or fetch"
    ):
        FastJukeboxModel.from_pretrained(tmp_path)


def test_a_configuration_that_lacks_a_level_is_refused(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["prior_configs"].pop()
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=r"prior_configs.*3 levels.*got 2"):
        FastJukeboxModel.from_pretrained(tmp_path)


def test_a_part_is_no_whole_model(tiny_model, tmp_path):
    tiny_model.priors[0].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"model_type.*fast_jukebox_prior.*from_levels"):
        FastJukeboxModel.from_pretrained(tmp_path)


def test_a_whole_model_is_made_of_parts(tiny_model, tmp_path):
    whole = FastJukeboxModel.from_levels(vqvae=tiny_model.vqvae, priors=list(tiny_model.priors))
    assert whole.vqvae is tiny_model.vqvae
    assert_same_weights(tiny_model, whole)
    assert sizes(whole) == sizes(tiny_model)
    assert whole.device.type == "cpu"
    whole.save_pretrained(tmp_path)
    assert_same_weights(tiny_model, FastJukeboxModel.from_pretrained(tmp_path))


def test_a_whole_model_is_made_of_repositories(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "whole")
    tiny_model.priors[0].save_pretrained(tmp_path / "bottom")
    tiny_model.vqvae.save_pretrained(tmp_path / "vqvae")
    whole = FastJukeboxModel.from_levels(
        vqvae=tmp_path / "vqvae", priors=[tmp_path / "bottom", tmp_path / "whole", tiny_model.priors[2]]
    )
    assert_same_weights(tiny_model, whole)


def test_parts_of_the_wrong_level_are_refused(tiny_model, tmp_path):
    bottom, middle, top = tiny_model.priors
    with pytest.raises(ValueError, match=r"prior_configs\[0\].level.*got 1"):
        FastJukeboxModel.from_levels(vqvae=tiny_model.vqvae, priors=[middle, bottom, top])
    top.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"level.*holds level 2; got 0"):
        FastJukeboxModel.from_levels(vqvae=tiny_model.vqvae, priors=[tmp_path, middle, top])


def test_parts_of_different_precision_are_refused(tiny_model):
    bottom, middle, top = tiny_model.priors
    with pytest.raises(ValueError, match=r"dtype.*float16, float32"):
        FastJukeboxModel.from_levels(vqvae=tiny_model.vqvae, priors=[bottom, middle, top.half()])


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_attention_implementation_is_accepted(tiny_model, tmp_path, implementation):
    tiny_model.save_pretrained(tmp_path)
    model = FastJukeboxModel.from_pretrained(tmp_path, attn_implementation=implementation)
    assert {part.config._attn_implementation for part in parts_of(model)} == {implementation}
    sound = audio()
    torch.testing.assert_close(model(sound).losses, tiny_model(sound).losses)


def test_an_attention_implementation_that_is_not_there_is_refused(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="attn_implementation"):
        FastJukeboxModel.from_pretrained(tmp_path, attn_implementation="fast")


@pytest.mark.parametrize("device_map", ["auto", "cpu", {"": "cpu"}])
def test_a_device_map_is_accepted(tiny_model, tmp_path, device_map):
    tiny_model.save_pretrained(tmp_path)
    model = FastJukeboxModel.from_pretrained(tmp_path, device_map=device_map)
    assert_same_weights(tiny_model, model)


def test_no_block_is_split_between_devices(tiny_model):
    names = {type(module).__name__ for module in tiny_model.modules()}
    assert set(tiny_model._no_split_modules) <= names
    assert tiny_model._no_split_modules


@pytest.mark.parametrize("part", ["vqvae", 0, 2])
def test_a_missing_tensor_is_initialised_and_spoils_no_other(tiny_model, tmp_path, part):
    own = tiny_model.vqvae if part == "vqvae" else tiny_model.priors[part]
    # one tensor of each kind: names that differ in their numbers alone are alike
    kinds = {re.sub(r"\d+", "#", key): key for key in own.state_dict()}
    own.save_pretrained(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    for key in kinds.values():
        tensors = {name: value for name, value in whole.items() if name != key}
        assert len(tensors) == len(whole) - 1
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        again = type(own).from_pretrained(tmp_path, ignore_mismatched_sizes=True)  # else it is refused
        for name, value in again.state_dict().items():
            if name == key:
                assert torch.isfinite(value.float()).all(), f"{name} is not initialised"
                assert value.numel() < 3 or value.float().std() < 1.5, f"{name} is not initialised"
            else:
                assert torch.equal(value, own.state_dict()[name]), f"{name} was spoilt by the missing {key}"


def test_the_named_sizes_can_be_built():
    with torch.device("meta"):
        model = FastJukeboxModel(FastJukeboxConfig.preset("fastjukebox-18"))
    bottom, middle, top = (sum(parameter.numel() for parameter in prior.parameters()) for prior in model.priors)
    # 18 blocks of width W: attention 4 W * W/4, MLP 2 W^2; a little for codes, positions and the conditioner
    assert top == pytest.approx(18 * 3 * 2048**2, rel=0.1)
    assert bottom == middle
    assert bottom > 18 * 3 * 1920**2
    assert sum(parameter.numel() for parameter in model.vqvae.parameters()) == 1_485_763


def test_the_embedded_size_is_small(tmp_path):
    with torch.device("meta"):
        model = FastJukeboxModel(FastJukeboxConfig.preset("fastjukebox-mini-9"))
    assert 2 * sum(tensor.numel() for tensor in model.state_dict().values()) < 30e6


@pytest.mark.parametrize(("field", "value"), [("n_ctx", 23), ("num_attention_heads", 3), ("hop_length", 8)])
def test_a_configuration_that_was_spoilt_is_refused(tiny_config, field, value):
    setattr(tiny_config.prior_configs[2], field, value)
    with pytest.raises(ValueError, match=field):
        FastJukeboxModel(tiny_config)
