import json

import numpy as np
import pytest
import soundfile
import torch

from fast_jukebox import FastJukeboxPrior, FastJukeboxPriorConfig, FastJukeboxProcessor, FastJukeboxVQVAE
from fast_jukebox.data import codes as codes_module
from fast_jukebox.data.codes import CodeWindows, encode_songs, load_codes, require_splits
from fast_jukebox.data.windows import stack_items
from fast_jukebox.sessions.fingerprint import weights_digest
from fast_jukebox.utils.workers import Workers


@pytest.fixture
def songs(tmp_path):
    from datasets import Dataset, DatasetDict

    def split(name, lengths):
        rows = []
        for index, length in enumerate(lengths):
            path = tmp_path / f"{name}{index}.wav"
            generator = np.random.default_rng(index)
            soundfile.write(path, generator.uniform(-1, 1, length).astype(np.float32), 1600, subtype="FLOAT")
            rows.append(
                {
                    "audio": {"path": str(path), "bytes": None},
                    "duration": length / 1600,
                    "title": f"{name} {index}",
                    "artist_id": index,
                    "genre_ids": [1, 2],
                }
            )
        return Dataset.from_list(rows)

    return DatasetDict(train=split("train", [1000, 1501, 800]), test=split("test", [900]))


@pytest.fixture
def vqvae(tiny_config):
    vqvae = FastJukeboxVQVAE(tiny_config.vqvae_config).train()
    vqvae(torch.rand(8, 320) * 2 - 1)
    return vqvae.eval()


def test_a_folder_of_something_else_gets_no_codes(songs, vqvae, tmp_path):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="must be kept in a new or empty folder, .* which holds 'test0.wav'"):
        encode_songs(songs, vqvae, tmp_path, progress=False)
    assert sorted(tmp_path.iterdir()) == before


def test_codes_are_those_of_the_whole_song(songs, vqvae, tmp_path):
    codes = encode_songs(songs, vqvae, tmp_path / "codes", progress=False)
    assert set(codes) == {"train", "test"}
    for row, song in zip(codes["train"], songs["train"], strict=True):
        audio = torch.from_numpy(soundfile.read(song["audio"]["path"], dtype="float32")[0])
        hop = vqvae.config.hop_lengths[-1]
        expected = vqvae.encode(audio[None, : len(audio) // hop * hop])
        for level in range(3):
            assert row[f"codes_{level}"] == expected[level][0].tolist()
        assert row["title"] == song["title"]
        assert "audio" not in row


def test_songs_are_read_ahead_for_a_gpu_in_their_order_and_not_all_at_once(songs, vqvae):
    begun = []

    def noting(sound):
        begun.append(sound)
        return codes_module.load_audio(sound, vqvae.config.sampling_rate)

    rows = [0, 1, 2, 0, 1, 2, 0]
    got = []
    for song, audio in codes_module._read_ahead(songs["train"].select(rows), noting):
        got.append(song["title"])
        assert len(begun) <= len(got) + codes_module._SONGS_AHEAD
        assert len(audio) == round(song["duration"] * 1600 * vqvae.config.sampling_rate / 1600)
    assert got == [f"train {row}" for row in rows]


def test_a_fact_that_some_songs_lack_is_kept(songs, vqvae, tmp_path, monkeypatch):
    monkeypatch.setattr(codes_module, "_SONGS_IN_A_SHARD", 1)
    for split, bpm in (("train", [None, 72.0, None]), ("test", [None])):
        songs[split] = songs[split].add_column("bpm", bpm)
    codes = encode_songs(songs, vqvae, tmp_path / "codes", progress=False)
    assert codes["train"]["bpm"][:] == [None, 72.0, None]
    assert codes["test"]["bpm"][:] == [None]
    assert codes["train"].features["codes_0"].feature.dtype == "uint16"


def test_an_interrupted_encoding_goes_on_where_it_was(songs, vqvae, tmp_path, monkeypatch):
    monkeypatch.setattr(codes_module, "_SONGS_IN_A_SHARD", 1)
    encode, calls = codes_module.encode_song, []

    def counted(song, audio, model):
        calls.append(song["title"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(song, audio, model)

    monkeypatch.setattr(codes_module, "encode_song", counted)
    with pytest.raises(KeyboardInterrupt):
        encode_songs(songs, vqvae, tmp_path / "codes", progress=False)
    resumed = encode_songs(songs, vqvae, tmp_path / "codes", progress=False)
    assert calls == ["train 0", "train 1", "train 2", "train 2", "test 0"]
    monkeypatch.setattr(codes_module, "encode_song", encode)
    whole = encode_songs(songs, vqvae, tmp_path / "whole", progress=False)
    assert resumed["train"].to_list() == whole["train"].to_list()
    assert not list((tmp_path / "codes").glob("*.partial"))


@pytest.mark.usefixtures("fresh_workers")
def test_two_workers_make_the_same_files(songs, vqvae, tmp_path, monkeypatch):
    monkeypatch.setattr(codes_module, "_SONGS_IN_A_SHARD", 1)
    encode_songs(songs, vqvae, tmp_path / "one", progress=False)
    encode_songs(songs, vqvae, tmp_path / "two", workers=Workers(2), progress=False)
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir() if path.is_file()}
    assert len(files) == 5  # four shards and codes.json
    assert {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir() if path.is_file()} == files


def test_each_song_is_encoded_by_one_thread_however_many_there_are(songs, vqvae, monkeypatch):
    encode, seen = codes_module.encode_song, []
    monkeypatch.setattr(
        codes_module, "encode_song", lambda *song: (seen.append(torch.get_num_threads()), encode(*song))[1]
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = codes_module.ShardEncoder(vqvae, "cpu", {})._encode(songs["train"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1, 1] and [song["title"] for song in found] == songs["train"]["title"][:]


def test_codes_of_another_vqvae_are_not_mixed(songs, vqvae, tmp_path):
    encode_songs(songs, vqvae, tmp_path / "codes", progress=False)
    with torch.no_grad():
        vqvae.levels[0].out.bias.add_(1.0)
    with pytest.raises(ValueError, match="codes made with vqvae"):
        encode_songs(songs, vqvae, tmp_path / "codes", progress=False)


def test_codes_of_other_songs_are_not_mixed(songs, vqvae, tmp_path):
    encode_songs(songs, vqvae, tmp_path / "codes", progress=False)
    songs["train"] = songs["train"].select([0, 1])
    with pytest.raises(ValueError, match="codes made with songs"):
        encode_songs(songs, vqvae, tmp_path / "codes", progress=False)


def test_codes_of_songs_of_the_same_lengths_and_other_names_are_not_mixed(songs, vqvae, tmp_path):
    for split in songs:
        songs[split] = songs[split].add_column("file_name", [f"{title}.wav" for title in songs[split]["title"]])
    encode_songs(songs, vqvae, tmp_path / "codes", progress=False)
    for split in songs:
        names = [f"other {name}" for name in songs[split]["file_name"]]
        songs[split] = songs[split].remove_columns("file_name").add_column("file_name", names)
    with pytest.raises(ValueError, match="codes made with names"):
        encode_songs(songs, vqvae, tmp_path / "codes", progress=False)


def test_the_manifest_names_the_vqvae(songs, vqvae, tmp_path):
    encode_songs(songs, vqvae, tmp_path / "codes", progress=False)
    manifest = json.loads((tmp_path / "codes" / "codes.json").read_text())
    assert manifest["vqvae"] == weights_digest(vqvae)
    assert manifest["hop_lengths"] == [4, 8, 16]
    assert manifest["splits"] == {"train": 3, "test": 1}


def test_codes_are_loaded_for_their_own_vqvae_alone(songs, vqvae, tiny_config, tmp_path):
    encode_songs(songs, vqvae, tmp_path / "codes", progress=False)
    assert len(load_codes(tmp_path / "codes", vqvae=vqvae)["train"]) == 3
    with pytest.raises(ValueError, match="holds codes of another VQ-VAE"):
        load_codes(tmp_path / "codes", vqvae=FastJukeboxVQVAE(tiny_config.vqvae_config))
    (tmp_path / "codes" / "codes.json").unlink()
    assert len(load_codes(tmp_path / "codes")["train"]) == 3  # whosever they are
    with pytest.raises(ValueError, match=r"holds no codes\.json"):
        load_codes(tmp_path / "codes", vqvae=vqvae)


def test_codes_of_an_interrupted_run_are_not_taken_for_all(songs, vqvae, tmp_path, monkeypatch):
    monkeypatch.setattr(codes_module, "_SONGS_IN_A_SHARD", 1)
    encode_songs(songs, vqvae, tmp_path / "codes", progress=False)
    (tmp_path / "codes" / "train-00002.parquet").unlink()
    with pytest.raises(ValueError, match="codes of 2 songs of train, and its codes.json states 3: let `encode_songs`"):
        load_codes(tmp_path / "codes")
    assert len(encode_songs(songs, vqvae, tmp_path / "codes", progress=False)["train"]) == 3


def test_what_is_trained_on_has_songs_held_out(songs):
    assert require_splits(songs, "`--songs`") is songs
    for split in ("train", "test"):
        with pytest.raises(ValueError, match=f"`--songs` must have songs .* got the splits {split}$"):
            require_splits({split: songs[split]}, "`--songs`")


def test_a_folder_without_codes_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no codes"):
        load_codes(tmp_path)


def test_windows_hold_both_levels_of_the_same_span(songs, vqvae, tiny_config, tmp_path):
    codes = encode_songs(songs, vqvae, tmp_path / "codes", progress=False)["train"]
    config = tiny_config.prior_configs[1]
    windows = CodeWindows(codes, config, seed=0)
    for index in range(len(windows)):
        row, start = windows.sampler[index]
        item = windows[index]
        assert item["codes"].tolist() == codes[row]["codes_1"][start : start + config.n_ctx]
        assert torch.equal(item["labels"], item["codes"])
        above = codes[row]["codes_2"][start // 2 : (start + config.n_ctx) // 2]
        assert item["upper_codes"].tolist() == above
        assert start % 2 == 0
    assert "upper_codes" not in CodeWindows(codes, tiny_config.prior_configs[2])[0]


def test_labelled_priors_get_the_label_vector(songs, vqvae, tmp_path):
    codes = encode_songs(songs, vqvae, tmp_path / "codes", progress=False)["train"]
    config = FastJukeboxPriorConfig(
        level=2, codebook_size=16, n_ctx=16, num_rows=4, hidden_size=16, num_hidden_layers=3, hop_length=16,
        num_artists=5, num_genres=4, max_genres=3, use_timing=True, min_duration=0.0,
    )  # fmt: skip
    windows = CodeWindows(codes, config)
    row, start = windows.sampler[len(windows) - 1]
    total = len(codes[row]["codes_2"]) * 16
    assert windows[len(windows) - 1]["metadata"].tolist() == [total, start * 16, 256, row, 1, 2, -1]
    unknown = CodeWindows(codes.remove_columns(["artist_id", "genre_ids"]), config)
    assert unknown[0]["metadata"].tolist()[3:] == [0, 0, -1, -1]


def test_facts_that_were_added_are_taken_over(songs, vqvae, tmp_path, monkeypatch):
    first = encode_songs(songs, vqvae, tmp_path / "codes", progress=False)
    for split in songs:
        songs[split] = songs[split].add_column("lyrics", [None, "la la", None][: len(songs[split])])
    monkeypatch.setattr(codes_module, "encode_song", None)  # nothing is encoded again
    second = encode_songs(songs, vqvae, tmp_path / "codes", progress=False)
    assert second["train"]["lyrics"][:] == [None, "la la", None] and second["test"]["lyrics"][:] == [None]
    for split in first:
        assert second[split].remove_columns("lyrics").to_list() == first[split].to_list()
        assert second[split].features["codes_0"] == first[split].features["codes_0"]
    before = [path.stat().st_mtime_ns for path in (tmp_path / "codes").glob("*.parquet")]
    encode_songs(songs, vqvae, tmp_path / "codes", progress=False)
    assert [path.stat().st_mtime_ns for path in (tmp_path / "codes").glob("*.parquet")] == before


def test_windows_of_songs_with_words(songs, vqvae, words_config, words_files, tmp_path):
    for split in songs:
        songs[split] = songs[split].add_column("artist", ["Ann Lee", None, "Zoe"][: len(songs[split])])
        songs[split] = songs[split].add_column("lyrics", [None, "Where the wind blows", None][: len(songs[split])])
    codes = encode_songs(songs, vqvae, tmp_path / "codes", progress=False)["train"]
    processor = FastJukeboxProcessor.from_vocabulary_files(words_config, **words_files)
    for config in words_config.prior_configs:
        windows = CodeWindows(codes, config, seed=3, processor=processor, label_dropout=0.3)
        prior = FastJukeboxPrior(config).eval()
        batch = stack_items([windows[index] for index in range(len(windows))])
        assert batch["metadata"].shape == (len(windows), config.metadata_length)
        assert prior(**batch).loss.isfinite()
        for epoch in range(2):
            windows.set_epoch(epoch)
            again = CodeWindows(codes, config, seed=3, processor=processor, label_dropout=0.3)
            again.set_epoch(epoch)
            for index in reversed(range(len(windows))):
                assert torch.equal(windows[index]["metadata"], again[index]["metadata"])
        plain = CodeWindows(codes, config, processor=processor)
        row, start = plain.sampler[0]
        length = len(codes[row][f"codes_{config.level}"])
        assert torch.equal(plain[0]["metadata"], plain.labels(row, start, length, 0))


def test_codes_outside_the_codebook_are_refused(songs, vqvae, tiny_config, tmp_path):
    datasets = pytest.importorskip("datasets")
    codes = encode_songs(songs, vqvae, tmp_path / "codes", progress=False)["train"]
    config = tiny_config.prior_configs[2]
    config.codebook_size = 2
    with pytest.raises(ValueError, match="`codebook_size` is 2"):
        CodeWindows(codes, config)
    below = tiny_config.prior_configs[1]
    below.upper_codebook_size = 2
    with pytest.raises(ValueError, match="`codebook_size` is 2"):
        CodeWindows(codes, below)
    signed = datasets.Features({**codes.features, "codes_2": datasets.List(datasets.Value("int32"))})
    negative = codes.map(lambda row: {"codes_2": [-1, *row["codes_2"][1:]]}, features=signed)
    with pytest.raises(ValueError, match="song 0 has code -1"):
        CodeWindows(negative, tiny_config.prior_configs[2])


def test_a_missing_level_is_named(songs, vqvae, tiny_config, tmp_path):
    codes = encode_songs(songs, vqvae, tmp_path / "codes", progress=False)["train"].remove_columns("codes_2")
    with pytest.raises(ValueError, match="no column `codes_2`"):
        CodeWindows(codes, tiny_config.prior_configs[1])


def test_the_first_seconds_alone_can_be_encoded(songs, vqvae, tmp_path):
    codes = encode_songs(songs, vqvae, tmp_path / "codes", duration=0.1, progress=False)
    for row, song in zip(codes["train"], songs["train"], strict=True):
        audio = torch.from_numpy(soundfile.read(song["audio"]["path"], dtype="float32")[0][:160])
        expected = vqvae.encode(audio[None, : len(audio) // 16 * 16])
        assert row["codes_2"] == expected[2][0].tolist() and len(row["codes_2"]) <= 10
    with pytest.raises(ValueError, match="codes made with songs"):
        encode_songs(songs, vqvae, tmp_path / "codes", duration=0.05, progress=False)
