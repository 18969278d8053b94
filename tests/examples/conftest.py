"""Scripts as modules, and songs to train on at toy size."""

import importlib.util
import sys

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="module")
def scripts(request):
    examples = request.config.rootpath / "examples"

    def load(name):
        spec = importlib.util.spec_from_file_location(name, examples / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        # HfArgumentParser looks the dataclasses' module up by name.
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    return {path.stem: load(path.stem) for path in examples.glob("*.py")}


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    time = np.arange(2400) / 1600
    for index in range(6):
        tone = 0.5 * np.sin(2 * np.pi * (110 + 20 * index) * time)
        soundfile.write(folder / f"{index}.wav", tone.astype(np.float32), 1600)
    return folder


@pytest.fixture
def training_options():
    """Options of both training scripts that make them quick and quiet."""
    return [
        "--logging_steps", "1", "--disable_tqdm", "true", "--use_cpu", "true",
        "--per_device_train_batch_size", "2", "--per_device_eval_batch_size", "2",
    ]  # fmt: skip
