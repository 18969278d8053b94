import os

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from fast_jukebox.data import parquet
from fast_jukebox.data.codes import load_codes
from fast_jukebox.data.manifest import shard_rows
from fast_jukebox.data.parquet import MAX_INFLATION, check_sound_bytes, check_values
from fast_jukebox.data.songs import load_songs


def songs(path, sounds, **options):
    path.parent.mkdir(exist_ok=True)
    rows = pyarrow.array([{"bytes": sound, "path": None} for sound in sounds])
    pyarrow.parquet.write_table(pyarrow.table({"audio": rows}), path, **options)
    return path


@pytest.mark.parametrize(("compression", "dictionary"), [("none", True), ("zstd", True), ("zstd", False)])
def test_sound_that_is_far_larger_than_its_file_is_not_read(tmp_path, monkeypatch, compression, dictionary):
    monkeypatch.setattr(parquet, "FREE_BYTES", 2**20)
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    songs(path, [bytes(2**16)] * 400, use_dictionary=dictionary, compression=compression)
    assert path.stat().st_size < 2**17
    with pytest.raises(ValueError, match=f"{path.name} has .* bytes of sound, so it is not read"):
        check_sound_bytes(path)
    with pytest.raises(ValueError, match="so it is not read"):
        load_songs(tmp_path)


def test_sound_as_it_comes_is_read(tmp_path):
    noise = [np.random.default_rng(seed).bytes(10_000) for seed in range(30)]
    for dictionary in (True, False):
        check_sound_bytes(songs(tmp_path / "data" / "a.parquet", noise, use_dictionary=dictionary))
    check_sound_bytes(songs(tmp_path / "data" / "a.parquet", [b""]))
    assert MAX_INFLATION >= 10


def test_a_file_of_more_codes_than_one_can_have_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "train-00000.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"codes_0": [[1] * 10_000] * 100}), path)
    check_values(path)
    monkeypatch.setattr(parquet, "MAX_VALUES", 10**6 - 1)
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match="train-00000.parquet states 100 songs and 1000000 values"):
        load_codes(tmp_path)
    monkeypatch.setattr(parquet, "MAX_VALUES", 10**6)
    monkeypatch.setattr(parquet, "MAX_ROWS", 99)
    with pytest.raises(ValueError, match="more than 99"):
        check_values(path)


def test_a_damaged_file_is_left_to_its_reader(tmp_path):
    path = tmp_path / "train-00000.parquet"
    path.write_bytes(b"PAR1")
    check_values(path)


@pytest.mark.skipif(os.name != "posix", reason="there are no such files")
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "train-00000.parquet")
    (tmp_path / "songs" / "data").mkdir(parents=True)
    os.mkfifo(tmp_path / "songs" / "data" / "train-00000-of-00001.parquet")
    for read, folder in ((load_codes, tmp_path), (load_songs, tmp_path / "songs")):
        with pytest.raises(ValueError, match=r"train-00000.*\.parquet must be a file, and is none"):
            read(folder)
    assert shard_rows(tmp_path / "train-00000.parquet") == 0
