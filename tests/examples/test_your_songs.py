"""docs/your-songs.md: its commands run as they are written, on a tiny model and a folder of mixed files."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import HfArgumentParser

from fast_jukebox import FastJukeboxModel, FastJukeboxProcessor
from fast_jukebox.data.codes import encode_songs
from fast_jukebox.data.push import push_codes
from fast_jukebox.data.songs import load_songs
from fast_jukebox.processing import LabelVocabulary

PAGE = Path(__file__).resolve().parents[2] / "docs" / "your-songs.md"
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
RATE = 22050


def tune(seconds: float, seed: int) -> np.ndarray:
    """Notes of a scale, each with two overtones."""
    draw = np.random.default_rng(seed)
    time = np.arange(RATE // 2) / RATE
    notes = []
    for step in draw.integers(0, 7, round(2 * seconds)):
        pitch = 220 * 2 ** ([0, 2, 4, 5, 7, 9, 11][step] / 12)
        tone = sum(np.sin(2 * np.pi * pitch * part * time) / part for part in (1, 2, 3))
        notes.append(0.3 * tone * np.exp(-3 * time))
    return np.concatenate(notes).astype(np.float32)


@pytest.fixture
def mixed_songs(tmp_path):
    """Recordings of several formats and rates, at two depths, with and without tags, and two files that are none."""
    folder = tmp_path / "songs" / "mine"
    (folder / "live").mkdir(parents=True)
    for number, name in enumerate(["one.wav", "two.mp3", "three.ogg", "four.flac", "live/first take.wav"]):
        with soundfile.SoundFile(folder / name, "w", RATE, 1) as file:
            if number < 4:
                file.title, file.artist, file.genre = name.split(".")[0].title(), "Ann Lee", "Folk"
            file.write(tune(16 + number, number))
    (folder / "metadata.jsonl").write_text(
        json.dumps({"file_name": "live/first take.wav", "artist": "Ann Lee", "genre": "folk"})
    )
    (folder / "broken.mp3").write_bytes(b"ID3" + bytes(range(200)))
    (folder / "notes.txt").write_text("set list")
    return folder


@pytest.fixture
def their_hub(hub_tools, tmp_path, monkeypatch):
    """A server in the Hub's place on which I am logged in, and may write what others have."""
    with hub_tools.HubServer({"token-of-me": ["my-name", "their-name"]}) as server:
        hub_tools.point_client_at(server.url, tmp_path / "cache", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", "token-of-me")
        yield server


@pytest.fixture
def base(tiny_config, tmp_path, their_hub):
    """A model of twelve layers a level that knows one artist, in the Hub's place, with codes of its songs."""
    for config in tiny_config.prior_configs:
        config.num_hidden_layers, config.num_artists, config.num_genres = 12, 2, 2
    top = tiny_config.prior_configs[2]
    top.use_timing, top.min_duration, top.max_duration = True, 0.0, 600.0
    torch.manual_seed(0)
    model = FastJukeboxModel(tiny_config).eval()
    model.processor = FastJukeboxProcessor.from_vocabulary(LabelVocabulary({"bob": 1}, {"jig": 1}), tiny_config)
    folder = tmp_path / "old"
    folder.mkdir()
    for number in range(2):
        soundfile.write(folder / f"{number}.wav", tune(4, 10 + number), RATE)
    encode_songs(load_songs(folder, test_fraction=0.5), model.vqvae, tmp_path / "old-codes", progress=False)
    model.push_to_hub("their-name/base", license="cc-by-nc-4.0")
    push_codes(tmp_path / "old-codes", "their-name/base-codes", license="cc-by-nc-4.0")
    return model


def test_the_page_has_options_that_there_are(scripts, monkeypatch):
    class Asked(Exception):
        pass

    def ask(groups, arguments=None):
        raise Asked(groups)

    ran = set()
    for kind, text in BLOCKS:
        if kind == "python":
            compile(text, PAGE.name, "exec")
            continue
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.replace("$level", "2"))
            if words[:1] != ["python"]:
                continue
            script = scripts[Path(words[1]).stem]
            monkeypatch.setattr(script, "parse_arguments", ask)
            with pytest.raises(Asked) as asked:
                script.main(words[2:])
            HfArgumentParser(asked.value.args[0]).parse_args_into_dataclasses(words[2:])
            ran.add(words[1])
    assert ran == {"examples/run_prior.py", "examples/run_distill.py"}


@pytest.mark.slow
def test_the_page_runs_as_it_is_written(their_hub, mixed_songs, base, tmp_path, repository_root):
    """Needs about two minutes of one core."""
    (tmp_path / "examples").symlink_to(repository_root / "examples")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, command in (("python", ""), ("fast-jukebox", "-m fast_jukebox_cli")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(repository_root / "src"), os.environ.get("PYTHONPATH", "")]),
        "HF_ENDPOINT": their_hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "token-of-me",
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    printed = ""
    for kind, text in BLOCKS:
        command = ["bash", "-euc", text] if kind == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
        printed += done.stdout + done.stderr
    assert "broken.mp3" in printed  # what cannot be read is named
    assert "| old songs |" in printed and "o held out" in printed

    rows = [
        json.loads(line)
        for split in ("train", "test")
        for line in (tmp_path / f"songs/labelled/{split}.jsonl").read_text().splitlines()
    ]
    assert {row["artist"] for row in rows} == {"Ann Lee"} and len(rows) == 5
    names = FastJukeboxModel.from_pretrained(tmp_path / "runs/mine-6").processor.vocabularies[0]
    assert names.artists == {"unknown": 0, "bob": 1, "ann lee": 2} and "folk" in names.genres
    for level in range(3):
        (run,) = json.loads((tmp_path / f"runs/mine-{level}/fine_tuning.json").read_text())["runs"]
        assert run["after"]["new songs"] < run["before"]["new songs"]
    assert [
        entry["steps"] > 0 for entry in json.loads((tmp_path / "runs/mine-2-more/fine_tuning.json").read_text())["runs"]
    ] == [True, True]
    sound, rate = soundfile.read(tmp_path / "songs/first.wav")
    assert len(sound) == 10 * rate == 16000
    pushed = their_hub.files("my-name/my-singer")
    assert {"README.md", "config.json", "model.safetensors", "vocabulary.json"} <= pushed.keys()
    assert b"license: cc-by-nc-4.0" in pushed["README.md"] and their_hub.repository("my-name/my-singer").private
