import json

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoModel, pipeline

import fast_jukebox
from fast_jukebox import FastJukeboxConfig, FastJukeboxModel, FastJukeboxPrior, FastJukeboxVQVAE
from fast_jukebox.hub import model_card
from fast_jukebox.hub.push_mixin import describe_config


def same(first, second):
    theirs = second.state_dict()
    return first.state_dict().keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in first.state_dict().items()
    )


@pytest.fixture
def card():
    return model_card(name="ann/model", description="Mine.", training="A night.", license="cc-by-4.0")


@pytest.mark.parametrize("size", [None, "8KB"])
def test_a_whole_model_comes_back_bit_for_bit(hub, tiny_model, size):
    tiny_model.push_to_hub("ann/model", license="apache-2.0", max_shard_size=size)
    files = hub.files("ann/model")
    assert ("model.safetensors" in files) == (size is None)
    assert ("model.safetensors.index.json" in files) == (size is not None)
    assert "generation_config.json" in files
    for load in (FastJukeboxModel.from_pretrained, AutoModel.from_pretrained):
        loaded = load("ann/model")
        assert isinstance(loaded, FastJukeboxModel) and same(loaded, tiny_model)
    config = AutoConfig.from_pretrained("ann/model")
    assert isinstance(config, FastJukeboxConfig) and config.to_diff_dict() == tiny_model.config.to_diff_dict()


def test_the_parts_come_back_bit_for_bit(hub, tiny_model):
    tiny_model.vqvae.push_to_hub("ann/vqvae", license="apache-2.0")
    assert same(FastJukeboxVQVAE.from_pretrained("ann/vqvae"), tiny_model.vqvae)
    tiny_model.priors[1].push_to_hub("ann/prior", license="apache-2.0")
    assert same(FastJukeboxPrior.from_pretrained("ann/prior"), tiny_model.priors[1])
    assert isinstance(AutoModel.from_pretrained("ann/prior"), FastJukeboxPrior)
    joined = FastJukeboxModel.from_levels("ann/vqvae", [tiny_model.priors[0], "ann/prior", tiny_model.priors[2]])
    assert same(joined, tiny_model)


def test_a_song_by_a_model_on_the_hub(hub, tiny_model):
    tiny_model.push_to_hub("ann/model", license="apache-2.0")
    song = pipeline("fast-jukebox", model="ann/model", device="cpu")(duration=0.1, seed=3, progress=False)
    expected = tiny_model.generate(duration=0.1, seed=3).audio[0].numpy()
    assert (song["audio"] == expected).all()


@pytest.mark.parametrize("part", ["model", "vqvae", "prior"])
def test_a_licence_makes_a_card_of_what_the_configuration_says(hub, tiny_model, part):
    model = {"model": tiny_model, "vqvae": tiny_model.vqvae, "prior": tiny_model.priors[2]}[part]
    model.push_to_hub("ann/it", license="cc-by-nc-4.0", tags=["bach"])
    pushed = ModelCard(hub.files("ann/it")["README.md"].decode())
    assert pushed.data.license == "cc-by-nc-4.0" and pushed.data.library_name == "fast-jukebox"
    assert "bach" in pushed.data.tags and describe_config(model.config) in pushed.text
    code = pushed.text.split("```python\n")[1].split("```")[0]
    namespace = {"audio": torch.zeros(1, 160)}
    exec(code.replace("duration=20", "duration=0.1, progress=False"), namespace)
    assert ("song" in namespace, "vqvae" in namespace, "prior" in namespace) == tuple(
        part == name for name in ("model", "vqvae", "prior")
    )


def test_the_card_given_is_sent_and_not_changed(hub, tiny_model, card):
    before = str(card)
    tiny_model.add_model_tags("chorales")
    tiny_model.push_to_hub("ann/model", card=card, tags="bach")
    pushed = ModelCard(hub.files("ann/model")["README.md"].decode())
    assert {"bach", "chorales"} <= set(pushed.data.tags) and pushed.text == card.text
    assert str(card) == before


def test_the_card_of_the_repository_is_kept(hub, tiny_model, card):
    tiny_model.push_to_hub("ann/model", card=card)
    with torch.no_grad():
        tiny_model.vqvae.get_parameter(next(iter(dict(tiny_model.vqvae.named_parameters())))).add_(1)
    for branch in (None, "tempo"):
        tiny_model.push_to_hub("ann/model", revision=branch, commit_message="Louder")
        assert hub.files("ann/model", branch or "main")["README.md"].decode() == str(card)
        assert same(FastJukeboxModel.from_pretrained("ann/model", revision=branch or "main"), tiny_model)


@pytest.mark.parametrize("there", [None, b"---\ntags: [music]\n---\nNo licence.\n"])
def test_without_a_licence_nothing_is_written(hub, tiny_model, there):
    if there is not None:
        hub.put("ann/model", {"README.md": there})
    before = dict(hub.repositories)
    told = "`license` must name the weights' license before a push" if there is None else "`license` must be"
    for it in (tiny_model, tiny_model.vqvae, tiny_model.priors[0], tiny_model.config):
        with pytest.raises(ValueError, match=told):
            it.push_to_hub("ann/model")
    assert hub.repositories == before and not hub.asked("", "POST") and not hub.asked("", "PUT")


def test_a_licence_beside_a_card_is_refused(hub, tiny_model, card):
    with pytest.raises(ValueError, match="`license` must be stated by the `card` where one is given, got 'mit'"):
        tiny_model.push_to_hub("ann/model", card=card, license="mit")


def test_what_a_push_is_told_is_passed_on(hub, tiny_model):
    hub.put("bob/vqvae", {"config.json": b"{}"})
    address = tiny_model.vqvae.push_to_hub(
        "bob/vqvae", license="mit", create_pr=True, commit_message="Mine is better", token="token-of-ann"
    )
    assert address.endswith("/bob/vqvae/discussions/1")
    repository = hub.repository("bob/vqvae")
    assert repository.titles[repository.resolve("refs/pr/1")] == "Mine is better"
    assert same(FastJukeboxVQVAE.from_pretrained("bob/vqvae", revision="refs/pr/1"), tiny_model.vqvae)
    tiny_model.vqvae.push_to_hub("band/vqvae", license="mit", private=True)
    assert hub.repository("band/vqvae").private
    assert hub.repository("band/vqvae").titles[hub.repository("band/vqvae").resolve("main")] == "Upload model"


def test_saving_with_a_push_pushes_the_same(hub, tiny_model, tmp_path):
    with pytest.raises(ValueError, match="`license`"):
        tiny_model.save_pretrained(tmp_path / "model", push_to_hub=True, repo_id="ann/model")
    with pytest.raises(ValueError, match="`license`"):
        tiny_model.save_pretrained(tmp_path / "model", push_to_hub=True, repo_id="ann/model", card=ModelCard("Hello"))
    assert not (tmp_path / "model").exists() and hub.repositories == {}
    tiny_model.save_pretrained(
        tmp_path / "model", push_to_hub=True, repo_id="ann/model", license="mit", private=True, max_shard_size="8KB"
    )
    files = hub.files("ann/model")
    assert "model.safetensors.index.json" in files and hub.repository("ann/model").private
    assert files["README.md"] == (tmp_path / "model" / "README.md").read_bytes()
    tiny_model.save_pretrained(tmp_path / "helper", push_to_hub=True, is_main_process=False)
    assert list(hub.repositories) == [("model", "ann/model")]


def test_a_configuration_is_pushed_with_a_licence_too(hub, tiny_config, tmp_path):
    tiny_config.push_to_hub("ann/config", license="mit")
    assert sorted(hub.files("ann/config")) == [".gitattributes", "README.md", "config.json"]
    assert FastJukeboxConfig.from_pretrained("ann/config").to_dict() == tiny_config.to_dict()
    tiny_config.vqvae_config.save_pretrained(tmp_path, push_to_hub=True, repo_id="ann/part", license="mit")
    assert json.loads(hub.files("ann/part")["config.json"])["model_type"] == "fast_jukebox_vqvae"
    with pytest.raises(ValueError, match="`license`"):
        tiny_config.save_pretrained(tmp_path, True, repo_id="ann/other")


def test_the_pipeline_pushes_its_model_likewise(hub, tiny_model, card):
    pipe = fast_jukebox.FastJukeboxPipeline(tiny_model, device="cpu")
    with pytest.raises(ValueError, match="`license`"):
        pipe.push_to_hub("ann/model")
    pipe.push_to_hub("ann/model", card=card)
    assert same(FastJukeboxModel.from_pretrained("ann/model"), tiny_model)
