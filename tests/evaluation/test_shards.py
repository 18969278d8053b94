"""Measures of many songs are kept shard by shard, and are the same from any workers and after any stop."""

import json
import time

import pytest
import torch
from datasets import Dataset

from fast_jukebox.audio import save_audio
from fast_jukebox.data.codes import encode_song
from fast_jukebox.evaluation.embeddings import EmbeddingSet, embed_songs, read_sound
from fast_jukebox.evaluation.likelihood import song_bits, windows_of_songs
from fast_jukebox.evaluation.musicnn import MusicnnEmbedding
from fast_jukebox.evaluation.shards import (
    SONGS_IN_A_SHARD,
    embed_in_shards,
    measure_songs,
    predict_in_shards,
    read_numbers,
)
from fast_jukebox.evaluation.systems import load_system, load_vqvae, loader_of, reconstruct_songs
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
    """Measures the number in a file's name, and stops at one of them, after the first shard, while there is a file that
    says so.
    """

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, sound):
        number = int(str(sound).rpartition("/")[2].removesuffix(".wav"))
        with open(self.folder / "log", "a") as log:
            log.write(f"{number}\n")
        if number == SONGS_IN_A_SHARD + 2 and (self.folder / "stop").exists():
            first, patience = self.folder / "out-parts" / "000000.json", time.monotonic() + 120
            while not first.is_file() and time.monotonic() < patience:  # another worker may have begun later
                time.sleep(0.02)
            raise Stopped
        return {"number": float(number)}


@pytest.mark.usefixtures("fresh_workers")
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


@pytest.mark.parametrize("content", [b"", b"[{", b"{}", b"[1, 2]", b"[]", b"\xff\xfe"])
def test_a_damaged_file_of_numbers_is_named(sounds, tmp_path, content):
    path = tmp_path / "out.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"out\.json is damaged \(.*\): delete it, and the same command"):
        measure_songs(NameLength(tmp_path), sounds[:2], path, Workers())
    path.unlink()
    assert len(measure_songs(NameLength(tmp_path), sounds[:2], path, Workers())) == 2


CLIP = {"key": {"tonic": 0, "scale": "major"}, "in_key_fraction": 1.0, "profile": [1.0] * 12, "pitch_classes": 1.0}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"quiet_fraction": "much"}, "quiet_fraction must be a number, got 'much'"),
        ({"quiet_fraction": None}, "got None"),
        ({"clips": [{}]}, "it lacks 'key'"),
        ({"clips": 5}, "not iterable"),
        ({"clips": [{**CLIP, "key": {"tonic": 12, "scale": "major"}}]}, "one of 36 keys"),
        ({"clips": [{**CLIP, "profile": [1.0]}]}, "12 numbers"),
        ({"clips": [{**CLIP, "pitch_classes": None}]}, "NoneType"),
    ],
)
def test_numbers_that_were_edited_are_refused_with_their_file(sounds, tmp_path, row, reason):
    path = tmp_path / "out.json"
    path.write_text(json.dumps([{"quiet_fraction": 0.0, "clips": [CLIP]}, {}]))
    assert len(measure_songs(NameLength(tmp_path), sounds[:2], path, Workers())) == 2
    path.write_text(json.dumps([{}, row]))
    with pytest.raises(ValueError, match=rf"out\.json is damaged \(.*{reason}.*\): delete it, and the same command"):
        measure_songs(NameLength(tmp_path), sounds[:2], path, Workers())


@pytest.mark.parametrize("content", ["[]", "{", '{"snr_0": null}', '{"snr_0": [1]}', '{"snr_0": "low"}'])
def test_numbers_by_name_that_were_edited_are_refused_with_their_file(tmp_path, content):
    path = tmp_path / "reconstruction-2.json"
    path.write_text('{"snr_0": 1.5}')
    assert read_numbers(path) == {"snr_0": 1.5}
    path.write_text(content)
    with pytest.raises(ValueError, match=r"reconstruction-2\.json is damaged \(.*\): delete it, and the same command"):
        read_numbers(path)


def test_embeddings_that_were_damaged_are_refused_with_their_file(sounds, tmp_path):
    network, path = MusicnnEmbedding("musicnn_mtt"), tmp_path / "all.safetensors"
    path.write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"all\.safetensors is damaged \(.*\): delete it, and the same command"):
        embed_in_shards(network, sounds[:1], path, 3.0, Workers())
    windows, songs = torch.zeros(2, 4), torch.tensor([0, 1])
    for name, version, numbers in (
        ("other", network.version, songs),
        (network.name, "1", songs),
        (network.name, network.version, songs + 1),
    ):
        EmbeddingSet(name, version, windows, numbers).save(path)
        with pytest.raises(ValueError, match=r"all\.safetensors is damaged \(it must be of .*\): delete it"):
            embed_in_shards(network, sounds[:2], path, 3.0, Workers())


@pytest.mark.parametrize("name", ["level", "bits", "hits", "codes"])
def test_bits_that_were_edited_are_refused_with_their_file(tiny_model, tmp_path, name):
    rows = Dataset.from_list([encode_song({}, torch.randn(960), tiny_model.vqvae)])
    windows = list(windows_of_songs(rows, [prior.config for prior in tiny_model.priors], None))
    path = tmp_path / "bits.json"
    predict_in_shards(lambda: tiny_model, windows, path, 64, Workers())
    kept = json.loads(path.read_text())
    for edited in ({key: value for key, value in kept[0].items() if key != name}, {**kept[0], name: "9"}):
        path.write_text(json.dumps([edited, *kept[1:]]))
        with pytest.raises(ValueError, match=rf"bits\.json is damaged \(.*{name}.*\): delete it, and the same command"):
            predict_in_shards(lambda: tiny_model, windows, path, 64, Workers())


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_embeddings_are_those_of_all_songs_at_once(sounds, tmp_path, count):
    network = MusicnnEmbedding("musicnn_mtt")
    sounds = sounds[: SONGS_IN_A_SHARD + 2]
    found = embed_in_shards(network, sounds, tmp_path / "all.safetensors", 3.0, Workers(count))
    whole = embed_songs(network, sounds, duration=3.0)
    assert torch.equal(found.windows, whole.windows) and torch.equal(found.tags, whole.tags)
    assert torch.equal(found.songs, whole.songs) and found.songs.max() == SONGS_IN_A_SHARD + 1
    assert torch.equal(EmbeddingSet.load(tmp_path / "all.safetensors").windows, whole.windows)
    assert not (tmp_path / "all-parts").exists()


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_bits_and_reconstructions_are_those_of_the_calling_process(tiny_model, tmp_path, count):
    tiny_model.save_pretrained(tmp_path / "model")
    model = load_system(str(tmp_path / "model"), "cpu")
    sounds = [
        save_audio(tmp_path / f"{number}.wav", 0.1 * torch.randn(900 + 40 * number), 1600)
        for number in range(SONGS_IN_A_SHARD + 2)
    ]
    workers, source = Workers(count), str(tmp_path / "model")
    load = loader_of(model.vqvae, load_vqvae, source, workers)
    rows = Dataset.from_list([encode_song({}, read_sound(sound, 1600, duration=0.6), model.vqvae) for sound in sounds])
    songs = list(windows_of_songs(rows, [prior.config for prior in model.priors], 12))
    load_model = loader_of(model, load_system, source, workers)
    found = predict_in_shards(load_model, songs, tmp_path / "bits.json", 2, workers)
    for own, whole in zip(found, song_bits(model, sounds, duration=0.6, max_windows=12, batch_size=2), strict=True):
        torch.testing.assert_close(own.bits, whole.bits)
        assert torch.equal(own.hits, whole.hits)
        assert torch.equal(own.codes, whole.codes) and len(own.codes) == SONGS_IN_A_SHARD + 2
    here = reconstruct_songs(lambda: model.vqvae, sounds, tmp_path / "here", 0.5)
    there = reconstruct_songs(load, sounds, tmp_path / "there", 0.5, workers)
    assert [path.read_bytes() for path in here] == [path.read_bytes() for path in there]


def test_a_stopped_prediction_resumes_with_the_missing_shards(tiny_model, tmp_path):
    rows = Dataset.from_list([encode_song({}, torch.randn(960), tiny_model.vqvae) for _ in range(SONGS_IN_A_SHARD)])
    windows = list(windows_of_songs(rows, [prior.config for prior in tiny_model.priors], None))
    seen = []

    def stops(module, arguments):
        seen.append(module)
        if len(seen) == SONGS_IN_A_SHARD + 3:
            raise Stopped

    hooks = [prior.register_forward_pre_hook(stops) for prior in tiny_model.priors]
    with pytest.raises(Stopped):
        predict_in_shards(lambda: tiny_model, windows, tmp_path / "bits.json", 64, Workers())
    before = len(seen)
    found = predict_in_shards(lambda: tiny_model, windows, tmp_path / "bits.json", 64, Workers())
    assert len(seen) - before == 2 * SONGS_IN_A_SHARD  # of three levels; the first shard stood
    assert [len(own.bits) for own in found] == [SONGS_IN_A_SHARD] * 3
    predict_in_shards(lambda: tiny_model, windows, tmp_path / "bits.json", 64, Workers())
    assert len(seen) - before == 2 * SONGS_IN_A_SHARD
    for hook in hooks:
        hook.remove()
