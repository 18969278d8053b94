"""What a training script trains on and what it holds out."""

import json

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from fast_jukebox import FastJukeboxVQVAE
from fast_jukebox.data.codes import CodeWindows
from fast_jukebox.data.windows import time_cut
from fast_jukebox.training.data import CodesArguments


@pytest.fixture
def vqvae(tiny_config):
    torch.manual_seed(0)
    return FastJukeboxVQVAE(tiny_config.vqvae_config).eval()


def sing(folder, name, seconds):
    folder.mkdir(exist_ok=True)
    noise = np.random.default_rng(ord(name[0])).standard_normal(round(1600 * seconds)).astype(np.float32)
    soundfile.write(folder / name, 0.3 * noise, 1600)


def spans(windows: CodeWindows) -> set[int]:
    """Every code that the windows of many epochs hold, by its place in the song."""
    places = set()
    for epoch in range(40 if windows.sampler.seed is not None else 1):
        windows.set_epoch(epoch)
        for index in range(len(windows)):
            _, start = windows.sampler[index]
            places |= set(range(start, start + windows.config.n_ctx))
    return places


@pytest.mark.parametrize("level", [0, 1, 2])
def test_of_one_song_the_end_is_held_out(tmp_path, vqvae, tiny_config, level):
    sing(tmp_path / "songs", "only.wav", 3)
    arguments = CodesArguments(codes=str(tmp_path / "codes"), songs=str(tmp_path / "songs"), test_fraction=0.2)
    codes = arguments.load(vqvae)
    config = tiny_config.prior_configs[level]
    train, test = arguments.windows(codes, config, seed=0)
    length = 4800 // config.hop_length
    trained, held_out = spans(train), spans(test)
    assert max(trained) < min(held_out) and not trained & held_out
    assert len(held_out) >= config.n_ctx and max(held_out) < length
    assert min(held_out) == time_cut(length, config.n_ctx, config.upper_ratio, 0.2)
    assert min(trained) < config.n_ctx and max(trained) > min(held_out) - 2 * config.n_ctx
    item = test[0]
    assert torch.equal(
        item["codes"], torch.tensor(codes["train"][0][f"codes_{level}"])[min(held_out) :][: config.n_ctx]
    )
    # The codes are there now, and are split alike without the songs.
    again = CodesArguments(codes=str(tmp_path / "codes"), test_fraction=0.2)
    assert len(again.windows(again.load(None), config, seed=0)[1]) == len(test)


def test_every_song_may_be_held_out_by_time(tmp_path, vqvae, tiny_config):
    for index in range(4):
        sing(tmp_path / "songs", f"{index}.wav", 2 + index)
    shared = {"codes": str(tmp_path / "codes"), "songs": str(tmp_path / "songs"), "test_fraction": 0.3}
    by_song = CodesArguments(**shared)
    codes = by_song.load(vqvae)
    assert sum(map(len, codes.values())) == 4 and len(codes["test"]) >= 1
    by_time = CodesArguments(**shared, hold_out="time")
    codes = by_time.load(vqvae)
    assert list(codes) == ["train"] and len(codes["train"]) == 4
    train, test = by_time.windows(codes, tiny_config.prior_configs[1], seed=0)
    for windows in (train, test):
        assert {windows.sampler[index][0] for index in range(len(windows))} == {0, 1, 2, 3}


def test_of_the_clips_of_one_song_the_last_are_held_out(tmp_path, vqvae, tiny_config):
    rows = []
    for index in range(10):
        sing(tmp_path / "songs", f"{index}.wav", 1.2)
        rows.append({"file_name": f"{index}.wav", "song": "only.mp3", "start": 1.2 * (9 - index), "split": "train"})
    (tmp_path / "songs" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = CodesArguments(codes=str(tmp_path / "codes"), songs=str(tmp_path / "songs"), test_fraction=0.25)
    codes = arguments.load(vqvae)
    assert sorted(codes["test"]["start"]) == pytest.approx([9.6, 10.8])
    assert sorted(codes["train"]["start"]) == pytest.approx([1.2 * index for index in range(8)])
    train, test = arguments.windows(codes, tiny_config.prior_configs[2], seed=0)
    assert len(train) == 40 and len(test) == 10


def test_a_song_that_is_too_short_to_be_held_out_is_refused_with_its_length(tmp_path, vqvae, tiny_config):
    sing(tmp_path / "songs", "short.wav", 1.2)
    arguments = CodesArguments(codes=str(tmp_path / "codes"), songs=str(tmp_path / "songs"))
    codes = arguments.load(vqvae)
    tiny_config.prior_configs[2].n_ctx = 80
    with pytest.raises(ValueError, match=r"two windows of 80 codes .*\(1\.6 s, .* the longest has 1\.2 s"):
        arguments.windows(codes, tiny_config.prior_configs[2], seed=0)
    assert len(arguments.windows(codes, tiny_config.prior_configs[0], seed=0)[1]) == 1  # its windows are shorter


@given(st.integers(1, 5000), st.integers(1, 64), st.sampled_from([1, 2, 4]), st.floats(0, 0.99))
def test_the_held_out_end_is_a_window_at_least_and_leaves_one(length, window, multiple, test_fraction):
    cut = time_cut(length, window, multiple, test_fraction)
    if cut == length:
        assert length - max(round(test_fraction * length), window) < window + multiple
        return
    assert cut % multiple == 0 and cut >= window and length - cut >= max(window, round(test_fraction * length))


def test_a_song_longer_than_the_prior_was_made_for_is_refused_and_a_shorter_one_is_not(tmp_path, vqvae, tiny_config):
    sing(tmp_path / "songs", "only.wav", 3)
    arguments = CodesArguments(codes=str(tmp_path / "codes"), songs=str(tmp_path / "songs"))
    codes = arguments.load(vqvae)
    config = tiny_config.prior_configs[2]
    config.num_artists = config.num_genres = 2
    config.use_timing, config.min_duration, config.max_duration = True, 0.0, 2.5
    with pytest.raises(ValueError, match=r"`max_duration` of the prior is 2\.5 s, but song 0 lasts 3\.0 s"):
        arguments.windows(codes, config, seed=0)
    config.min_duration, config.max_duration = 10.0, 600.0
    train, _ = arguments.windows(codes, config, seed=0)
    assert train[0]["metadata"][0] == 16000  # the shortest length that the prior knows
