import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import HfApi, ModelCard

from fast_jukebox import FastJukeboxModel
from fast_jukebox import hub as our_hub
from fast_jukebox.hub import HubError, model_card, push_files, push_folder, push_model, write_model_card

ARGUMENTS = {
    "name": "ann/chorales",
    "description": "A small model.",
    "training": "Two hours on two cores.",
    "license": "apache-2.0",
}
CARD = str(model_card(**ARGUMENTS)).encode()


@pytest.fixture
def folder(tmp_path):
    """A trained model with all that a run leaves behind."""
    folder = tmp_path / "run"
    (folder / "checkpoint-10").mkdir(parents=True)
    (folder / "runs" / "level-2").mkdir(parents=True)
    for name in (
        "config.json", "generation_config.json", "model.safetensors", "sample.flac", "LICENSE.md", "training_args.bin",
        "optimizer.pt", "code.py", "trainer_state.json", "eval_results.json", ".secret.json", "notes.txt",
        "checkpoint-10/model.safetensors", "runs/level-2/model.safetensors", "runs/level-2/config.json",
    ):  # fmt: skip
        (folder / name).write_bytes(name.encode())
    write_model_card(folder, **ARGUMENTS)
    return folder


def test_a_model_is_pushed_without_code_pickles_logs_and_checkpoints(hub, folder):
    address = push_folder(folder, "ann/chorales", commit_message="First", commit_description="At last.")
    commit = hub.repository("ann/chorales").resolve("main")
    assert address == f"{hub.url}/ann/chorales/commit/{commit}"
    assert hub.repository("ann/chorales").titles[commit] == "First"
    files = hub.files("ann/chorales")
    assert sorted(files) == [
        ".gitattributes", "LICENSE.md", "README.md", "config.json", "generation_config.json", "model.safetensors",
        "sample.flac",
    ]  # fmt: skip
    assert all(data == (folder / name).read_bytes() for name, data in files.items() if name != ".gitattributes")
    assert not hub.repository("ann/chorales").private


def test_no_token_reaches_the_store(hub, folder):
    push_folder(folder, "ann/chorales", token="token-of-ann")
    assert hub.asked("/api/.*/commit/", "POST")[0].headers["authorization"] == "Bearer token-of-ann"
    assert len(hub.asked("/store/", "PUT")) == 2  # weights and sound
    assert not any("authorization" in request.headers for request in hub.asked("/store/", "PUT"))


def test_the_same_again_makes_no_commit_and_sends_nothing(hub, folder):
    push_folder(folder, "ann/chorales")
    before = (hub.repository("ann/chorales").resolve("main"), len(hub.asked("/store/", "PUT")))
    push_folder(folder, "ann/chorales")
    assert (hub.repository("ann/chorales").resolve("main"), len(hub.asked("/store/", "PUT"))) == before


def test_weights_of_an_earlier_push_do_not_outlive_it(hub, folder):
    """One file would win over newer shards when the model is loaded."""
    hub.put("ann/chorales", {"model.fp16.safetensors": b"a variant", "data.txt": b"kept"})
    push_folder(folder, "ann/chorales")
    (folder / "model.safetensors").unlink()
    shards = [f"model-0000{index}-of-00002.safetensors" for index in (1, 2)]
    for name in (*shards, "model.safetensors.index.json"):
        (folder / name).write_bytes(name.encode())
    push_folder(folder, "ann/chorales")
    found = set(hub.files("ann/chorales"))
    assert {*shards, "model.safetensors.index.json", "model.fp16.safetensors", "data.txt"} <= found
    assert "model.safetensors" not in found
    for name in (*shards, "model.safetensors.index.json"):
        (folder / name).unlink()
    (folder / "model.safetensors").write_bytes(b"newest")
    push_folder(folder, "ann/chorales")
    assert not {*shards, "model.safetensors.index.json"} & set(hub.files("ann/chorales"))
    assert hub.files("ann/chorales")["model.safetensors"] == b"newest"


def test_a_branch_is_made_and_the_default_one_left_alone(hub, folder):
    push_folder(folder, "ann/chorales")
    (folder / "config.json").write_bytes(b"new")
    push_folder(folder, "ann/chorales", revision="tempo")
    push_folder(folder, "ann/chorales", revision="tempo")
    assert hub.files("ann/chorales", "tempo")["config.json"] == b"new"
    assert hub.files("ann/chorales")["config.json"] == b"config.json"


def test_a_pull_request_to_someone_elses_model(hub, folder):
    hub.put("bob/chorales", {"config.json": b"old", "model-00001-of-00001.safetensors": b"old"})
    address = push_folder(folder, "bob/chorales", create_pr=True)
    assert address == f"{hub.url}/bob/chorales/discussions/1"
    assert hub.files("bob/chorales")["config.json"] == b"old"
    proposed = hub.files("bob/chorales", "refs/pr/1")
    assert proposed["config.json"] == b"config.json" and "model-00001-of-00001.safetensors" not in proposed


def test_a_private_repository(hub, folder):
    push_folder(folder, "band/chorales", private=True)
    assert hub.repository("band/chorales").private
    assert not HfApi(token=False).repo_exists("band/chorales")
    assert HfApi(token="token-of-ann").repo_exists("band/chorales")


@pytest.mark.parametrize("card", [None, "# A model\n", "---\ntags:\n- music\n---\n# A model\n"])
def test_nothing_is_asked_without_a_licence(hub, folder, card):
    (folder / "README.md").unlink()
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
    with pytest.raises(ValueError, match="license"):
        push_folder(folder, "ann/chorales")
    assert hub.requests == []


def test_metadata_that_the_hub_refuses_makes_no_repository(hub, folder):
    card = folder / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("apache-2.0", "my-licence"), encoding="utf-8")
    with pytest.raises(ValueError, match='metadata of the card.*says: - "license" must be one of'):
        push_folder(folder, "ann/chorales")
    assert hub.repositories == {}


@pytest.mark.parametrize("token", [False, "token-of-a-reader", "token-of-bob", "nonsense"])
def test_who_may_not_write_is_told(hub, folder, token):
    with pytest.raises(HubError, match="Cannot push the model `ann/chorales`: .*token"):
        push_folder(folder, "ann/chorales", token=token)
    assert hub.repositories == {}


def test_an_upload_that_breaks_is_sent_again(hub, folder):
    hub.fail("PUT", "/store/", times=2, break_after=3)
    push_folder(folder, "ann/chorales")
    assert hub.files("ann/chorales")["model.safetensors"] == b"model.safetensors"


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/store/"), ("POST", "/preupload/"), ("POST", "objects/batch"), ("POST", "/commit/")]
)
def test_a_push_that_fails_leaves_the_old_commit_and_goes_through_when_repeated(hub, folder, method, path):
    hub.put("ann/chorales", {"config.json": b"old"})
    before = hub.repository("ann/chorales").resolve("main")
    hub.fail(method, path, times=99, status=500)
    with pytest.raises(HubError, match="Cannot push the model `ann/chorales`: .* answered 500"):
        push_folder(folder, "ann/chorales")
    assert hub.repository("ann/chorales").resolve("main") == before
    hub.faults.clear()
    push_folder(folder, "ann/chorales")
    assert hub.files("ann/chorales")["config.json"] == b"config.json"


def test_a_connection_lost_in_mid_upload_for_good(hub, folder):
    hub.fail("PUT", "/store/", times=99, break_after=5)
    with pytest.raises(HubError, match="Cannot push the model `ann/chorales`: the connection .* failed"):
        push_folder(folder, "ann/chorales")
    assert sorted(hub.files("ann/chorales")) == [".gitattributes"]


def test_offline_there_is_no_push(hub, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="Cannot push the model `ann/chorales`: this machine is offline"):
        push_folder(folder, "ann/chorales")
    assert hub.requests == []


class Model:
    """Anything that can be saved."""

    def save_pretrained(self, directory, text="{}"):
        self.directory = Path(directory)
        (self.directory / "config.json").write_text(text)


def test_a_model_is_saved_pushed_with_its_card_and_cleaned_up(hub, tmp_path):
    (tmp_path / "spectrograms.png").write_bytes(b"picture")
    model, card = Model(), model_card(**ARGUMENTS, picture="spectrograms.png")
    push_model(
        model,
        "ann/chorales",
        card,
        pictures=[tmp_path / "spectrograms.png"],
        save_arguments={"text": '{"a": 1}'},
        commit_message="Mine",
    )
    files = hub.files("ann/chorales")
    assert files["config.json"] == b'{"a": 1}' and files["spectrograms.png"] == b"picture"
    assert files["README.md"].decode() == str(card)
    assert not model.directory.exists()
    assert ModelCard.load("ann/chorales").data.license == "apache-2.0"


def test_a_model_with_an_unlicensed_card_is_not_even_saved(hub):
    model = Model()
    with pytest.raises(ValueError, match="license"):
        push_model(model, "ann/chorales", ModelCard("---\ntags: [music]\n---\n"))
    assert not hasattr(model, "directory") and hub.requests == []


def test_files_need_a_card_with_a_licence(hub):
    with pytest.raises(ValueError, match=r"`files` must hold the card, README.md, got \['a.txt'\]"):
        push_files({"a.txt": b""}, "ann/data", kind="dataset")
    with pytest.raises(ValueError, match="license"):
        push_files({"README.md": b"---\ntags: [a]\n---\n"}, "ann/data", kind="dataset")
    assert hub.requests == []


def test_a_name_that_cannot_be_one_is_refused(hub):
    with pytest.raises(ValueError, match="[Rr]epo"):
        push_files({"README.md": CARD}, "ann/data/more")


def test_every_public_name_is_where_it_was():
    assert all(hasattr(our_hub, name) for name in our_hub.__all__)


@pytest.fixture
def at_home(hub, tiny_model, tmp_path, monkeypatch):
    """A folder with what the page on the Hub speaks of, and a login as my-name."""
    hub.users["hf_..."] = ["my-name"]
    monkeypatch.setenv("HF_TOKEN", "hf_...")
    monkeypatch.chdir(tmp_path)
    tiny_model.save_pretrained("runs/model")
    Path("songs").mkdir()
    for index in range(6):
        tone = 0.5 * np.sin(2 * np.pi * (110 + 20 * index) * np.arange(2400) / 1600)
        soundfile.write(f"songs/{index}.wav", tone.astype(np.float32), 1600)
    return hub


def test_the_page_on_the_hub_tells_what_works(at_home, repository_root):
    page = (repository_root / "docs" / "publish.md").read_text(encoding="utf-8")
    namespace: dict = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(code.replace("duration=5", "duration=0.1"), "docs/publish.md", "exec"), namespace)
    expected = FastJukeboxModel.from_pretrained("runs/model").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in namespace["model"].state_dict().items())
    assert at_home.repository("my-name/my-model").private
    card = ModelCard(at_home.files("my-name/my-model")["README.md"].decode())
    assert card.data.base_model == "my-name/my-teacher" and "](spectrograms.png)" in card.text
    assert at_home.files("my-name/my-model")["spectrograms.png"].startswith(b"\x89PNG")
    assert namespace["jukebox"](duration=0.05, seed=0, progress=False)["audio"].shape == (80,)
    assert namespace["windows"][0]["codes"].shape == (24,)
    assert len(namespace["codes"]["train"]) == len(namespace["songs"]["train"])
