"""Batches on the device hold the same windows as the songs, everywhere equally likely, resumably."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from fast_jukebox import FastJukeboxPrior, FastJukeboxProcessor
from fast_jukebox.data.device_codes import DeviceCodeBatches
from fast_jukebox.data.labels import labelled_config
from fast_jukebox.processing import LabelVocabulary

ROWS = [{"artist": "fiddle", "genre": "jig"}, {"artist": "flute", "genre": "reel"}, {"artist": None, "genre": None}]


def write_shard(path, config, lengths, first=0, rows=ROWS):
    """Songs whose codes tell song and place: code t of song s is (7 s + t) mod K, below and above alike."""
    columns = {name: [row[name] for row in rows] for name in ("artist", "genre")}
    for level, ratio in ((config.level, 1), (config.level + 1, config.upper_ratio)):
        codes = [(7 * (first + song) + np.arange(length // ratio)) % 16 for song, length in enumerate(lengths)]
        columns[f"codes_{level}"] = pa.array([list(song) for song in codes], pa.list_(pa.uint16()))
    pyarrow.parquet.write_table(pa.table(columns), path)


@pytest.fixture
def config(tiny_config):
    return tiny_config.prior_configs[1]


@pytest.fixture
def folder(tmp_path, config):
    n = config.n_ctx
    write_shard(tmp_path / "train-00000.parquet", config, [2 * n, n - 4, 3 * n])
    return tmp_path


def test_windows_lie_in_songs_with_what_stands_above_them(folder, config):
    data = DeviceCodeBatches(folder, config, 64, "cpu")
    assert data.num_songs == 2  # the second is shorter than a window
    batch = data.batch(0)
    assert batch["labels"] is batch["codes"]
    assert batch["codes"].shape == (64, config.n_ctx)
    steps = batch["codes"].diff(dim=1) % 16
    assert torch.equal(steps, torch.ones_like(steps))
    assert batch["upper_codes"].shape == (64, config.n_ctx // config.upper_ratio)
    assert ((batch["upper_codes"].diff(dim=1) % 16) == 1).all()


def test_all_places_are_equally_likely(folder, config):
    data = DeviceCodeBatches(folder, config, 500, "cpu")
    songs = (config.n_ctx // config.upper_ratio + 1, 2 * config.n_ctx // config.upper_ratio + 1)
    seen = Counter(int(code) for number in range(20) for code in data.batch(number)["upper_codes"][:, 0])
    wanted = Counter(
        (7 * song + place) % 16 for song, count in ((0, songs[0]), (2, songs[1])) for place in range(count)
    )
    total = sum(wanted.values())
    for code, count in wanted.items():
        assert seen[code] / 10000 == pytest.approx(count / total, abs=0.02)


def test_a_batch_is_a_function_of_seed_and_number(folder, config):
    first, again = (DeviceCodeBatches(folder, config, 8, "cpu", seed=3) for _ in range(2))
    assert torch.equal(first.batch(5)["codes"], again.batch(5)["codes"])
    assert not torch.equal(first.batch(5)["codes"], first.batch(6)["codes"])
    other = DeviceCodeBatches(folder, config, 8, "cpu", seed=4)
    assert not torch.equal(first.batch(5)["codes"], other.batch(5)["codes"])
    again.position = 2
    assert torch.equal(next(iter(again))["codes"], first.batch(2)["codes"])
    assert again.position == 3


def test_shards_that_come_later_are_loaded(folder, config):
    data = DeviceCodeBatches(folder, config, 4, "cpu", refresh_steps=1)
    write_shard(folder / "train-00001.parquet", config, [4 * config.n_ctx] * 3, first=3)
    next(iter(data))
    assert data.num_songs == 5
    assert data.refresh() == 0
    whole = DeviceCodeBatches(folder, config, 4, "cpu")
    assert torch.equal(data.batch(9)["codes"], whole.batch(9)["codes"])


def test_labels_tell_the_song_and_where_the_window_is(folder, config):
    vocabulary = LabelVocabulary.from_metadata(ROWS)
    labelled = labelled_config(config, vocabulary)
    processor = FastJukeboxProcessor.from_vocabulary(vocabulary, labelled)
    data = DeviceCodeBatches(folder, labelled, 64, "cpu", processor=processor)
    batch = data.batch(0)
    total, offset, window, artist, genre = batch["metadata"].T
    hop = labelled.hop_length
    named = total == 2 * labelled.n_ctx * hop
    assert named.any() and (~named).any()
    assert (artist[named] == vocabulary.artists["fiddle"]).all() and (genre[named] == vocabulary.genres["jig"]).all()
    assert (artist[~named] == 0).all() and (genre[~named] == 0).all()
    assert (window == labelled.n_ctx * hop).all()
    assert torch.equal(batch["codes"][:, 0], (offset // hop + torch.where(named, 0, 14)) % 16)

    dropped = DeviceCodeBatches(folder, labelled, 400, "cpu", processor=processor, label_dropout=0.5).batch(0)
    of_first = dropped["metadata"][dropped["metadata"][:, 0] == 2 * labelled.n_ctx * hop]
    assert (of_first[:, 3] == 0).float().mean() == pytest.approx(0.5, abs=0.15)
    assert torch.equal(of_first[:, 3] == 0, of_first[:, 4] == 0)


def test_some_of_the_codes_given_are_of_other_places(folder, config):
    clean = DeviceCodeBatches(folder, config, 800, "cpu").batch(0)
    noisy = DeviceCodeBatches(folder, config, 800, "cpu", code_noise=0.5).batch(0)
    assert torch.equal(noisy["labels"], clean["labels"])
    assert torch.equal(noisy["upper_codes"], clean["upper_codes"])
    wrong = (noisy["codes"] != noisy["labels"]).float().mean(1)
    assert wrong.mean() == pytest.approx(0.25 * 15 / 16, abs=0.03)  # half of the largest rate; one in 16 is the same
    assert wrong.min() < 0.07 and wrong.max() > 0.4
    again = DeviceCodeBatches(folder, config, 800, "cpu", code_noise=0.5).batch(0)
    assert torch.equal(again["codes"], noisy["codes"])


def test_batches_in_turn_are_of_shorter_and_more_windows(folder, config):
    data = DeviceCodeBatches(folder, config, 8, "cpu", window_parts=[1, 4, 2])
    whole = DeviceCodeBatches(folder, config, 8, "cpu")
    assert torch.equal(data.batch(3)["codes"], whole.batch(3)["codes"])
    for number, part in ((1, 4), (2, 2), (4, 4)):
        batch = data.batch(number)
        assert batch["codes"].shape == (8 * part, config.n_ctx // part)
        assert batch["upper_codes"].shape == (8 * part, config.n_ctx // part // config.upper_ratio)
        assert (batch["codes"].diff(dim=1) % 16 == 1).all()
    prior = FastJukeboxPrior(config)
    assert prior(**data.batch(1)).loss.isfinite()


def test_held_out_windows_come_one_by_one(folder, config):
    windows = DeviceCodeBatches(folder, config, 4, "cpu").windows(6)
    assert len(windows) == 6
    assert windows[0]["codes"].shape == (config.n_ctx,)


def test_what_cannot_be_drawn_from_is_refused(folder, config, tmp_path):
    with pytest.raises(ValueError, match="no song of test"):
        DeviceCodeBatches(folder, config, 4, "cpu", split="test")
    (folder / "codes.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="no song of test"):  # a finished folder is not waited for
        DeviceCodeBatches(folder, config, 4, "cpu", split="test", wait_seconds=600)
    with pytest.raises(ValueError, match="`batch_size`"):
        DeviceCodeBatches(folder, config, 0, "cpu")
    with pytest.raises(ValueError, match="`label_dropout`"):
        DeviceCodeBatches(folder, config, 4, "cpu", label_dropout=2.0)
    with pytest.raises(ValueError, match="`code_noise` must be from 0 to 1"):
        DeviceCodeBatches(folder, config, 4, "cpu", code_noise=-0.1)
    for parts in ([], [0], [3]):
        with pytest.raises(ValueError, match="`window_parts` must be divisors of"):
            DeviceCodeBatches(folder, config, 4, "cpu", window_parts=parts)
    config.codebook_size = 8
    with pytest.raises(ValueError, match="`codebook_size` is 8"):
        DeviceCodeBatches(folder, config, 4, "cpu")
