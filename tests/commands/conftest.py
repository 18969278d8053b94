"""A model on disk and a command line that finds it."""

import pytest
from typer.testing import CliRunner

from fast_jukebox import cli


@pytest.fixture
def model_dir(tiny_model, tmp_path):
    tiny_model.generation_config.duration = 0.05
    tiny_model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Calls the command line in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def call(*arguments):
        return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])

    call.folder = folder
    return call
