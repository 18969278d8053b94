import copy
import json
import random
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import AutoModel
from transformers.utils import cached_file

from fast_jukebox import (
    FastJukeboxConfig,
    FastJukeboxGenerationConfig,
    FastJukeboxModel,
    FastJukeboxPrior,
    FastJukeboxVQVAE,
    FastJukeboxVQVAEConfig,
)
from fast_jukebox.hub.errors import HubError
from fast_jukebox.models.loading import (
    check_weights,
    download_arguments,
    find_weights,
    parts_of,
    pin_revision,
    read_config,
    read_weights,
)


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
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
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
    with pytest.raises(ValueError, match=r"level.*holds level 1; got 2"):
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
    with pytest.raises(ValueError, match=r"`n_ctx` must be a multiple of `num_rows` \(4\), got 23"):
        FastJukeboxPrior.from_pretrained(tmp_path, level=2, n_ctx=23)


def test_a_folder_without_a_configuration_holds_no_model(tmp_path):
    for load in (read_config, FastJukeboxPrior.from_pretrained, FastJukeboxModel.from_pretrained):
        with pytest.raises(OSError, match=r"has no config.json, so it holds no model"):
            load(tmp_path)


def test_a_lost_shard_is_named_with_its_folder_and_what_was_in_it(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path, max_shard_size="8KB")
    weights = find_weights(tmp_path)
    lost = weights["priors.2.position_embedding"]
    (tmp_path / lost).unlink()
    told = rf"`{tmp_path}` lacks {lost}, in which its model.safetensors.index.json says that weights of .*`priors.2`"
    with pytest.raises(OSError, match=told):
        FastJukeboxModel.from_pretrained(tmp_path)
    with pytest.raises(OSError, match=told):
        FastJukeboxPrior.from_pretrained(tmp_path, level=2)
    with pytest.raises(OSError, match="lacks"):
        check_weights(tmp_path)
    assert not {weights[name] for name in weights if name.startswith("priors.0.")} & {lost}
    FastJukeboxPrior.from_pretrained(tmp_path, level=0)  # another level misses nothing


@pytest.mark.parametrize(
    "text",
    [
        '{"weights": {}}', "[", "[1]", "3", '{"weight_map": {"a": "b"}}', '{"metadata": 1, "weight_map": {"a": "b"}}',
        '{"metadata": {}, "weight_map": ["a"]}', '{"metadata": {}, "weight_map": {"a": "config.json"}}',
        '{"metadata": {}, "weight_map": {"a": "/etc/x.safetensors"}}', '{"metadata": {}, "weight_map": {"a": 3}}',
        '{"metadata": {}, "weight_map": {"a": "../x.safetensors"}}',
    ],
)  # fmt: skip
def test_a_broken_index_is_named(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(OSError, match=r"(?=.*index\.json` of )(?=.*`weight_map`).*: save it again, or fetch"):
        find_weights(tmp_path)


def test_an_index_that_is_no_text_is_named_without_its_content(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_bytes(b"\xff" + b"a" * 100_000)
    with pytest.raises(OSError, match=r"index\.json` of .* must hold") as caught:
        find_weights(tmp_path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("size", ["8KB", "1GB"])
def test_a_file_of_weights_that_was_cut_short_is_named(tiny_model, tmp_path, size):
    tiny_model.save_pretrained(tmp_path, max_shard_size=size)
    cut = tmp_path / find_weights(tmp_path)["priors.2.position_embedding"]
    cut.write_bytes(cut.read_bytes()[:-1])
    for load, level in ((FastJukeboxModel, {}), (FastJukeboxPrior, {"level": 2})):
        with pytest.raises(OSError, match=rf"`{cut}` is damaged or cut short"):
            load.from_pretrained(tmp_path, **level)
    tiny_model.priors[0].save_pretrained(tmp_path / "alone")
    (tmp_path / "alone" / "model.safetensors").write_bytes(b"noise")
    with pytest.raises(OSError, match=r"alone/model.safetensors` is damaged"):
        FastJukeboxPrior.from_pretrained(tmp_path / "alone")


@pytest.mark.parametrize("text", ["3", "null", '["model_type"]', '"model_type"'])
def test_a_configuration_that_is_no_mapping_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    loads = (read_config, FastJukeboxPrior.from_pretrained, FastJukeboxConfig.from_pretrained)
    for load in loads:
        with pytest.raises(ValueError, match=rf"`config.json` of `{tmp_path}` must hold names"):
            load(tmp_path)


def damaged(value, chance):
    """A copy of a configuration in which one value is of another kind."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(sorted(value))
        return {**value, key: damaged(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        index = chance.randrange(len(value))
        return [*value[:index], damaged(value[index], chance), *value[index + 1 :]]
    return chance.choice([None, -1, 0, 10**30, 1.5, "text", "", [], {}, [3], True, ["a", "b"]])


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_damaged_configuration_is_refused_by_every_part(tiny_model, tmp_path, seed):
    if not (tmp_path / "config.json").exists():
        tiny_model.save_pretrained(tmp_path)
    whole = tiny_model.config.to_dict()
    (tmp_path / "config.json").write_text(json.dumps(damaged(whole, random.Random(seed))))
    load = (FastJukeboxModel, FastJukeboxVQVAE, FastJukeboxPrior, FastJukeboxConfig)[seed % 4]
    try:
        load.from_pretrained(tmp_path, **({"level": seed % 3} if load is FastJukeboxPrior else {}))
    except (ValueError, OSError):
        pass
    except RuntimeError as error:  # transformers': a report above names the tensors
        assert "mismatched_sizes" in str(error)


@pytest.fixture
def model_on_hub(hub, tiny_model):
    """A whole model in small shards, at `ann/model`."""
    tiny_model.push_to_hub("ann/model", license="mit", max_shard_size="8KB")
    hub.requests.clear()
    return tiny_model


def same(first, second):
    theirs = second.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in first.state_dict().items())


def fetched(hub):
    return {request.path.rsplit("/", 1)[-1] for request in hub.asked("/resolve/", "HEAD")}


def test_a_level_on_the_hub_fetches_its_own_shards_alone(hub, model_on_hub):
    weights = json.loads(hub.files("ann/model")["model.safetensors.index.json"])["weight_map"]
    for level in (2, 0):
        hub.requests.clear()
        assert same(FastJukeboxPrior.from_pretrained("ann/model", level=level), model_on_hub.priors[level])
        shards = {name for name in fetched(hub) if name.startswith("model-")}
        assert shards <= {file for key, file in weights.items() if key.startswith(f"priors.{level}.")}
    assert shards and shards < set(weights.values())
    assert same(FastJukeboxVQVAE.from_pretrained("ann/model"), model_on_hub.vqvae)


def test_branches_tags_and_commits_hold_configuration_and_weights(hub, model_on_hub, tiny_config):
    api = HfApi()
    first = api.repo_info("ann/model").sha
    api.create_tag("ann/model", tag="v1")
    config = copy.deepcopy(tiny_config)
    config.prior_configs[2].num_hidden_layers = 4
    other = FastJukeboxModel(config).eval()
    other.push_to_hub("ann/model", license="mit", revision="deeper")
    for revision, expected in {"main": model_on_hub, "v1": model_on_hub, first: model_on_hub, "deeper": other}.items():
        for load in (FastJukeboxModel.from_pretrained, AutoModel.from_pretrained):
            loaded = load("ann/model", revision=revision)
            assert (
                loaded.config.prior_configs[2].num_hidden_layers == expected.config.prior_configs[2].num_hidden_layers
            )
            assert same(loaded, expected)
        assert same(FastJukeboxPrior.from_pretrained("ann/model", level=2, revision=revision), expected.priors[2])
    for load in (FastJukeboxModel.from_pretrained, FastJukeboxConfig.from_pretrained, FastJukeboxVQVAE.from_pretrained):
        with pytest.raises(HubError, match=r"the model `ann/model`: it has no revision 'v9'"):
            load("ann/model", revision="v9")


def test_all_files_of_a_load_come_from_one_commit(hub, model_on_hub):
    commit = hub.repository("ann/model").resolve("main")
    assert pin_revision("ann/model", {})["revision"].resolved == commit
    assert pin_revision("no/folder/here", {"token": "a"}) == {"token": "a"}
    FastJukeboxModel.from_pretrained("ann/model")
    FastJukeboxPrior.from_pretrained("ann/model", level=1)
    asked = len(hub.asked("/api/models/ann/model"))
    hub.requests.clear()
    FastJukeboxModel.from_pretrained("ann/model")
    assert not hub.asked("/store/") and asked > 0  # what is there already is not fetched again


@pytest.mark.parametrize("token", ["token-of-bob", None])
def test_a_private_model_needs_its_owners_token(hub, tiny_model, token, monkeypatch, tmp_path):
    tiny_model.vqvae.push_to_hub("ann/vqvae", license="mit", private=True)
    monkeypatch.delenv("HF_TOKEN")
    assert same(FastJukeboxVQVAE.from_pretrained("ann/vqvae", token="token-of-ann"), tiny_model.vqvae)
    assert not any("authorization" in request.headers for request in hub.asked("/store/"))
    for load in (FastJukeboxVQVAE.from_pretrained, FastJukeboxVQVAEConfig.from_pretrained):
        with pytest.raises(HubError, match="no such model at .* that can be seen with this login.*`token=`"):
            load("ann/vqvae", token=token, cache_dir=tmp_path / "other")
    monkeypatch.setenv("HF_TOKEN", "token-of-ann")
    FastJukeboxVQVAE.from_pretrained("ann/vqvae")


def test_offline_it_comes_from_the_cache(hub, model_on_hub, monkeypatch):
    for online in (True, False):
        hub.requests.clear()
        assert same(FastJukeboxModel.from_pretrained("ann/model"), model_on_hub)
        assert same(FastJukeboxPrior.from_pretrained("ann/model", level=1), model_on_hub.priors[1])
        assert FastJukeboxConfig.from_pretrained("ann/model").num_levels == 3
        assert bool(hub.requests) == online
        hub.requests.clear()
        assert same(FastJukeboxModel.from_pretrained("ann/model", local_files_only=True), model_on_hub)
        assert not hub.requests
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("way", ["offline", "local_files_only"])
def test_offline_what_is_not_in_the_cache_is_said(hub, model_on_hub, monkeypatch, way):
    FastJukeboxPrior.from_pretrained("ann/model", level=2)
    if way == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    arguments = {"local_files_only": True} if way == "local_files_only" else {}
    FastJukeboxPrior.from_pretrained("ann/model", level=2, **arguments)
    for load in (
        lambda: FastJukeboxModel.from_pretrained("ann/model", **arguments),
        lambda: FastJukeboxPrior.from_pretrained("ann/model", level=0, **arguments),
        lambda: FastJukeboxModel.from_pretrained("ann/other", **arguments),
        lambda: FastJukeboxConfig.from_pretrained("ann/model", revision="v1", **arguments),
    ):
        with pytest.raises(HubError, match="is not, or not completely, in the cache .*Load it once with the network"):
            load()


def test_a_download_that_breaks_goes_on_where_it_was(hub, tiny_model, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    tiny_model.push_to_hub("ann/model", license="mit")
    hub.fail("GET", "/store/", break_after=10_000)
    assert same(FastJukeboxModel.from_pretrained("ann/model"), tiny_model)
    assert [request.headers.get("range") for request in hub.asked("/store/")] == [None, "bytes=10000-"]


def test_a_download_that_breaks_for_good_leaves_nothing_half_loaded(hub, tiny_model):
    tiny_model.push_to_hub("ann/model", license="mit")
    hub.fail("GET", "/store/", break_after=10_000)
    hub.fail("GET", "/store/", times=99, status=500)
    for load in (FastJukeboxModel.from_pretrained, lambda name: FastJukeboxPrior.from_pretrained(name, level=1)):
        with pytest.raises(HubError, match="answered 500"):
            load("ann/model")
    hub.faults.clear()
    hub.fail("GET", "/store/", times=99, break_after=0)
    with pytest.raises(HubError, match="the connection to .* failed.*Nothing incomplete is used"):
        FastJukeboxModel.from_pretrained("ann/model")
    hub.faults.clear()
    assert same(FastJukeboxModel.from_pretrained("ann/model"), tiny_model)


def test_a_cached_file_that_was_damaged_is_named_and_fetched_again(hub, tiny_model, model_on_hub):
    FastJukeboxModel.from_pretrained("ann/model")
    lost = find_weights("ann/model")["priors.1.position_embedding"]
    Path(cached_file("ann/model", lost)).write_bytes(b"noise")
    with pytest.raises(OSError, match=rf"{lost}` is damaged or cut short .*force_download=True"):
        FastJukeboxModel.from_pretrained("ann/model")
    assert same(FastJukeboxModel.from_pretrained("ann/model", force_download=True), tiny_model)


def test_a_shard_that_the_hub_lacks_is_named(hub, model_on_hub):
    lost = json.loads(hub.files("ann/model")["model.safetensors.index.json"])["weight_map"][
        "priors.2.position_embedding"
    ]
    HfApi().delete_file(lost, "ann/model")
    with pytest.raises(OSError, match=rf"`ann/model` lacks {lost}, in which its model.safetensors.index.json"):
        FastJukeboxPrior.from_pretrained("ann/model", level=2)
    with pytest.raises(OSError, match=rf"ann/model .*{lost}"):
        FastJukeboxModel.from_pretrained("ann/model")


def test_what_is_no_model_of_ours_is_refused(hub):
    hub.put("ann/bert", {"config.json": b'{"model_type": "bert", "vocab_size": 30}', "model.safetensors": b""})
    hub.put("ann/text", {"README.md": b"# Text"})
    hub.put("ann/empty", {"config.json": b'{"model_type": "fast_jukebox_vqvae"}'})
    hub.put("ann/songs", {"README.md": b"# Songs"}, kind="dataset")
    for load in (FastJukeboxModel.from_pretrained, FastJukeboxVQVAE.from_pretrained):
        with pytest.raises(ValueError, match="`model_type` of `ann/bert` must be 'fast_jukebox.*got 'bert'"):
            load("ann/bert")
        with pytest.raises(OSError, match="`ann/text` has no config.json, so it holds no model of fast_jukebox"):
            load("ann/text")
        with pytest.raises(HubError, match="no such model"):
            load("ann/songs")
    with pytest.raises(OSError, match="`ann/empty` holds no weights in safetensors: neither model.safetensors nor"):
        FastJukeboxVQVAE.from_pretrained("ann/empty")
    with pytest.raises(OSError, match="`ann/text` has no config.json, so it holds no FastJukeboxConfig"):
        FastJukeboxConfig.from_pretrained("ann/text")
    with pytest.raises(ValueError, match="`model_type` of `ann/bert` must be 'fast_jukebox', got 'bert'"):
        FastJukeboxConfig.from_pretrained("ann/bert")
    for name in ("ann/nothing", "nothing"):
        for load in (FastJukeboxModel.from_pretrained, FastJukeboxConfig.from_pretrained):
            with pytest.raises(HubError, match=f"Cannot load the model `{name}`: there is no such folder here"):
                load(name)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("content", [b"", b'{"a": ', '{"a": 1}'.encode("utf-16")])
def test_a_file_that_is_no_json_is_named_with_a_remedy(tiny_model, tmp_path, name, content):
    tiny_model.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(content)
    kind = FastJukeboxGenerationConfig if name.startswith("gen") else FastJukeboxConfig
    for read in (FastJukeboxModel.from_pretrained, kind.from_pretrained):
        with pytest.raises(
            OSError, match=rf"`{name}` of `{tmp_path}` is damaged, .*: save it again, or fetch it again"
        ):
            read(tmp_path)


def test_a_value_that_cannot_be_is_named_with_its_file_also_for_a_part(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="^`n_ctx` must be a multiple of `num_rows`"):
        FastJukeboxPrior.from_pretrained(tmp_path, level=1, num_rows=7)
    written = json.loads((tmp_path / "config.json").read_text())
    written["prior_configs"][1]["num_rows"] = 7
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match=r"`config\.json` of `.*` cannot be used, .*: `n_ctx` must be a multiple"):
        FastJukeboxPrior.from_pretrained(tmp_path, level=1)
