import pytest
import torch

from fast_jukebox_cli.model import ModelSource, chosen_device, load_model, model_name


def test_a_folder_is_found_and_a_repository_left_to_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "songs").mkdir()
    assert model_name("songs") == "songs"
    assert model_name("someone/model") == "someone/model"
    assert (tmp_path / model_name("./songs")).is_dir()
    for missing in ("./nowhere", "~/nowhere/at/all", str(tmp_path / "nowhere")):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            model_name(missing)
    assert model_name(None).endswith("pretrained")


def test_devices_have_names():
    assert chosen_device("cpu") == torch.device("cpu")
    assert chosen_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ValueError, match="device"):
        chosen_device("toaster")


def test_a_model_is_loaded_to_be_played(model_dir):
    model = load_model(ModelSource(str(model_dir)), torch.device("cpu"))
    assert not model.training
    assert model.generation_config.duration == 0.05


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "song.wav").touch()
    with pytest.raises(FileNotFoundError, match=r"song\.wav' is a file; a model is a folder"):
        model_name(str(tmp_path / "song.wav"))
