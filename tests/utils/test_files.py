import os
import subprocess
import sys

import pytest

from fast_jukebox.utils import files as unfinished
from fast_jukebox.utils.files import clear_unfinished, unfinished_path


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_name_is_hidden_beside_its_place_and_of_the_same_kind(tmp_path):
    path = unfinished_path(tmp_path / "my.song.wav")
    assert path.parent == tmp_path and path.suffix == ".wav" and path.name.startswith(".my.song.")
    assert unfinished_path(tmp_path / "model").suffix == ".tmp"


@pytest.mark.skipif(os.name != "posix", reason="nothing is cleared there")
def test_what_the_dead_left_is_cleared_and_nothing_else(tmp_path, monkeypatch, dead):
    own = [unfinished_path(tmp_path / name) for name in ("song.wav", "model")]
    monkeypatch.setattr(os, "getpid", lambda: dead)
    left = [unfinished_path(tmp_path / name) for name in ("song.wav", "my.codes.safetensors")]
    folder = unfinished_path(tmp_path / "model")
    monkeypatch.setattr(unfinished.socket, "gethostname", lambda: "another-machine")
    elsewhere = unfinished_path(tmp_path / "song.wav")
    monkeypatch.undo()
    others = [tmp_path / name for name in ("song.wav", ".hidden", f".song.{dead}.tmp", f".song.{dead}-0.tmp.wav")]
    for path in (*own, *left, elsewhere, *others):
        path.touch()
    folder.mkdir()
    (folder / "model.safetensors").touch()
    clear_unfinished(tmp_path)
    assert set(tmp_path.iterdir()) == {*own, elsewhere, *others}


def test_a_folder_that_is_not_there_has_nothing_to_clear(tmp_path):
    clear_unfinished(tmp_path / "nowhere")
