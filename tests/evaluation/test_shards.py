"""Measures of many songs are kept shard by shard, and are the same from any workers and after any stop."""

import json

import pytest
import torch

from fast_jukebox.audio import save_audio
from fast_jukebox.evaluation.embeddings import EmbeddingSet, embed_songs
from fast_jukebox.evaluation.musicnn import MusicnnEmbedding
from fast_jukebox.evaluation.shards import SONGS_IN_A_SHARD, embed_in_shards, measure_songs
from fast_jukebox.utils.workers import Workers


@pytest.fixture
def sounds(tmp_path):
    paths = []
    for number in range(2 * SONGS_IN_A_SHARD + 1):
        tone = 0.3 * torch.sin(2 * torch.pi * (100 + 30 * number) * torch.arange(16000 * 3) / 16000)
        paths.append(save_audio(tmp_path / f"{number}.wav", tone, 16000))
    return paths


class Stopped(Exception):
    pass


class NameLength:
    """Measures the number in a file's name, and stops at one of them while there is a file that says so."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, sound):
        number = int(str(sound).rpartition("/")[2].removesuffix(".wav"))
        with open(self.folder / "log", "a") as log:
            log.write(f"{number}\n")
        if number == SONGS_IN_A_SHARD + 2 and (self.folder / "stop").exists():
            raise Stopped
        return {"number": float(number)}


@pytest.mark.parametrize("count", [1, 2])
def test_numbers_are_kept_shard_by_shard(sounds, tmp_path, count):
    expected = [{"number": float(number)} for number in range(len(sounds))]
    (tmp_path / "stop").touch()
    with pytest.raises(Stopped):
        measure_songs(NameLength(tmp_path), sounds, tmp_path / "out.json", Workers(count))
    assert not (tmp_path / "out.json").exists()
    (tmp_path / "stop").unlink()
    assert measure_songs(NameLength(tmp_path), sounds, tmp_path / "out.json", Workers(count)) == expected
    assert json.loads((tmp_path / "out.json").read_text()) == expected
    assert not (tmp_path / "out-parts").exists()
    measured = (tmp_path / "log").read_text().split()
    assert measured.count("0") == 1  # of the first shard, which was done
    assert measure_songs(NameLength(tmp_path), sounds, tmp_path / "out.json", Workers(count)) == expected
    assert (tmp_path / "log").read_text().split() == measured


@pytest.mark.parametrize("count", [1, 2])
def test_embeddings_are_those_of_all_songs_at_once(sounds, tmp_path, count):
    network = MusicnnEmbedding("musicnn_mtt")
    sounds = sounds[: SONGS_IN_A_SHARD + 2]
    found = embed_in_shards(network, sounds, tmp_path / "all.safetensors", 3.0, Workers(count))
    whole = embed_songs(network, sounds, duration=3.0)
    assert torch.equal(found.windows, whole.windows) and torch.equal(found.tags, whole.tags)
    assert torch.equal(found.songs, whole.songs) and found.songs.max() == SONGS_IN_A_SHARD + 1
    assert torch.equal(EmbeddingSet.load(tmp_path / "all.safetensors").windows, whole.windows)
    assert not (tmp_path / "all-parts").exists()
