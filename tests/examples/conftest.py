"""Scripts as modules, and songs to train on at toy size."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import soundfile

from fast_jukebox.evaluation.controls import random_notes
from fast_jukebox.evaluation.pitch import SCALES


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
def write_notes():
    """Writes six songs of notes in C major at 8 kHz, two of them held out."""

    def write(folder):
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for index in range(6):
            song = random_notes(2.0, 8000, index, pitch_classes=SCALES["major"])
            soundfile.write(folder / f"{index}.wav", song.numpy(), 8000)
            rows.append(json.dumps({"file_name": f"{index}.wav", "split": "test" if index < 2 else "train"}))
        (folder / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")

    return write


@pytest.fixture
def audible_settings(tiny_config):
    """The tiny model's configuration at 8 kHz, at which notes can be heard, with hops of 16, 32 and 64."""
    settings = tiny_config.to_dict()
    settings["vqvae_config"] |= {"strides": [4, 2, 2], "sampling_rate": 8000}
    for level, prior in enumerate(settings["prior_configs"]):
        prior |= {"sampling_rate": 8000, "hop_length": 16 * 2**level}
    return settings


@pytest.fixture
def training_options():
    """Options of both training scripts that make them quick and quiet."""
    return [
        "--logging_steps", "1", "--disable_tqdm", "true", "--use_cpu", "true",
        "--per_device_train_batch_size", "2", "--per_device_eval_batch_size", "2",
    ]  # fmt: skip
