import logging
import socket
import time

import pytest
from huggingface_hub import constants, snapshot_download
from transformers import pipeline

from fast_jukebox import FastJukeboxConfig, FastJukeboxModel, FastJukeboxPrior, FastJukeboxProcessor
from fast_jukebox.data.scanning import find_dataset
from fast_jukebox.hub import HubError, prefer_cache, reachable
from fast_jukebox.models.adapters import read_adapter_config
from fast_jukebox_cli.model import model_name


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """A Hub that nobody answers for, and an empty cache."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return constants.ENDPOINT


@pytest.mark.parametrize(
    "load",
    [
        lambda name: FastJukeboxModel.from_pretrained(name),
        lambda name: FastJukeboxConfig.from_pretrained(name),
        lambda name: pipeline("fast-jukebox", model=name),
        lambda name: pipeline("text-to-audio", model=name),
        lambda name: find_dataset(name),
    ],
)
def test_a_misspelt_name_is_told_at_once_where_the_hub_cannot_be_reached(nobody, load):
    begun = time.monotonic()
    with pytest.raises(HubError, match=f"`ann/modle`: there is no such folder.*cache.*{nobody} failed.*Check the name"):
        load("ann/modle")
    assert time.monotonic() - begun < 25  # the client alone takes 39 s


@pytest.mark.parametrize(
    "load",
    [
        lambda name: pipeline(model=name),
        lambda name: pipeline("fast-jukebox", model=name),
        lambda name: pipeline("text-to-audio", model=name),
        lambda name: FastJukeboxModel.from_pretrained(name),
        lambda name: FastJukeboxProcessor.from_pretrained(name),
    ],
)
def test_a_model_that_the_cache_lacks_is_told_where_the_hub_must_not_be_asked(nobody, monkeypatch, load):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="model `ann/model`: it is not.*in the cache.*HF_HUB_OFFLINE.*Load it once"):
        load("ann/model")


@pytest.mark.parametrize("name", ["./modle", "/nowhere/modle", "runs/a/b"])
def test_a_folder_that_is_not_there_is_told_by_the_pipeline(nobody, name):
    with pytest.raises(HubError, match=f"`{name}`: there is no such folder here"):
        pipeline("fast-jukebox", model=name)


def test_what_is_in_the_cache_is_taken_from_there(nobody, tmp_path, caplog):
    (tmp_path / "cache" / "models--ann--model").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        assert prefer_cache("ann/model", {"token": "t"}) == {"token": "t", "local_files_only": True}
    assert "`ann/model` is taken from the cache" in caplog.text
    (tmp_path / "other" / "models--ann--song").mkdir(parents=True)
    assert prefer_cache("ann/song", {"cache_dir": tmp_path / "other"})["local_files_only"]
    with pytest.raises(HubError, match="the dataset `ann/model`"):
        prefer_cache("ann/model", {}, kind="dataset")


def test_folders_and_names_that_are_none_are_left_alone(nobody, tmp_path, monkeypatch):
    for name in (None, tmp_path, "a/b/c"):
        assert prefer_cache(name, {}) == {}
    (tmp_path / "cache" / "models--ann--model").mkdir(parents=True)
    assert prefer_cache("ann/model", {"local_files_only": True}) == {"local_files_only": True}
    (tmp_path / "cache" / "models--ann--model").rmdir()
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")  # a proxy may know the way
    assert prefer_cache("ann/model", {}) == {}


def test_the_answer_is_asked_once(nobody, monkeypatch):
    asked = []
    monkeypatch.setattr(
        reachable.socket, "create_connection", lambda *args, **kwargs: asked.append(args) or socket.socket()
    )
    assert reachable.why_unreachable() is None and reachable.why_unreachable() is None
    assert len(asked) == 1


def test_a_model_loads_from_the_cache_without_the_hub(hub, tiny_model, tmp_path, nobody, monkeypatch):
    tiny_model.save_pretrained(tmp_path / "model")
    hub.put("ann/model", {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()})
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    snapshot_download("ann/model")
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    begun = time.monotonic()
    assert FastJukeboxModel.from_pretrained("ann/model").config.num_levels == 3
    assert time.monotonic() - begun < 25


@pytest.mark.parametrize(
    "load",
    [
        lambda name: FastJukeboxModel.from_pretrained(name),
        lambda name: FastJukeboxPrior.from_pretrained(name, level=0),
        lambda name: FastJukeboxConfig.from_pretrained(name),
        lambda name: FastJukeboxProcessor.from_pretrained(name),
        lambda name: pipeline("text-to-audio", model=name),
        lambda name: find_dataset(name),
        model_name,
    ],
)
def test_a_folder_that_may_not_be_read_is_told(load, tmp_path, monkeypatch):
    monkeypatch.setattr("fast_jukebox.utils.files.os.access", lambda *args: False)
    with pytest.raises(PermissionError, match=f"may not be read by this user: '{tmp_path}'"):
        load(str(tmp_path))


def test_a_revision_of_a_folder_is_said_to_be_ignored(model_dir, caplog):
    for load in (FastJukeboxModel.from_pretrained, find_dataset):
        caplog.clear()
        load(str(model_dir), revision="v2")
        assert f"`revision` 'v2' is ignored: {'`' * (load is not find_dataset)}{model_dir}" in caplog.text


def test_an_adapter_that_is_not_there_is_told_at_once(nobody, tmp_path):
    begun = time.monotonic()
    with pytest.raises(HubError, match=f"`runs/lora`: there is no such folder.*{nobody} failed"):
        read_adapter_config("runs/lora")
    assert time.monotonic() - begun < 20
    for name in ("a/b/c", "lora,1=x", "./lora"):
        with pytest.raises(FileNotFoundError, match="an adapter is a folder or a Hub repository"):
            read_adapter_config(name)
