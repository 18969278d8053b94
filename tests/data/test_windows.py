import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.data.windows import SoundWindows, WindowSampler, stack_items

LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(lambda lengths: max(lengths) >= 7)


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(1, 7), st.sampled_from([1, 2, 4]), st.one_of(st.none(), st.integers(0, 5)))
def test_every_window_lies_in_its_song(lengths, window, multiple, seed):
    sampler = WindowSampler(lengths, window, multiple, seed)
    assert len(sampler) == sum(length // window for length in lengths)
    for index in range(len(sampler)):
        song, offset = sampler[index]
        assert 0 <= offset <= lengths[song] - window
        assert offset % multiple == 0


def test_fixed_windows_stand_side_by_side():
    sampler = WindowSampler([10, 3, 8], 4)
    assert [sampler[index] for index in range(len(sampler))] == [(0, 0), (0, 4), (2, 0), (2, 4)]


def test_random_offsets_depend_on_seed_epoch_and_index_alone():
    def draws(seed, epoch):
        sampler = WindowSampler([1000, 500], 10, seed=seed)
        sampler.epoch = epoch
        return [sampler[index] for index in range(20)]

    assert draws(0, 0) == draws(0, 0)
    assert draws(0, 0) != draws(1, 0)
    assert draws(0, 0) != draws(0, 1)


def test_random_offsets_cover_the_song():
    sampler = WindowSampler([40], 10, seed=0)
    seen = set()
    for epoch in range(100):
        sampler.epoch = epoch
        seen |= {sampler[index][1] for index in range(len(sampler))}
    assert seen == set(range(31))


def test_songs_that_are_all_too_short_are_an_error():
    with pytest.raises(ValueError, match="no song is as long as a window of 20; the longest of 2 has 10"):
        WindowSampler([10, 5], 20)


def test_indices_beyond_the_end_are_an_error():
    with pytest.raises(IndexError):
        WindowSampler([10], 5)[2]


@pytest.fixture
def songs(tmp_path):
    """Two songs whose sample i has the value i / 4000 (+ 0.5 in the second)."""
    from datasets import Dataset

    rows = []
    for index, length in enumerate([1000, 2000]):
        path = tmp_path / f"{index}.wav"
        ramp = (np.arange(length) / 4000 + 0.5 * index).astype(np.float32)
        soundfile.write(path, ramp, 100, subtype="FLOAT")
        rows.append({"audio": {"path": str(path), "bytes": None}, "duration": length / 100})
    rows[1]["audio"] = {"path": None, "bytes": (tmp_path / "1.wav").read_bytes()}
    return Dataset.from_list(rows)


def test_sound_windows_hold_the_sound_of_their_place(songs):
    windows = SoundWindows(songs, 300, 100, seed=3)
    for index in range(len(windows)):
        song, start = windows.sampler[index]
        expected = (torch.arange(start, start + 300) / 4000) + 0.5 * song
        torch.testing.assert_close(windows[index]["audio"], expected, atol=1e-4, rtol=0)


def test_sound_windows_are_resampled(songs):
    windows = SoundWindows(songs, 600, 200)
    audio = windows[1]["audio"]
    assert audio.shape == (600,)
    torch.testing.assert_close(audio[50:-50], torch.arange(600, 1200)[50:-50] / 8000, atol=2e-2, rtol=0)


def test_fewer_windows_are_spread_over_all_songs(songs):
    windows = SoundWindows(songs, 100, 100, max_windows=3)
    assert len(windows) == 3
    assert windows[2]["audio"][0] > 0.5
    assert stack_items([windows[0], windows[1]])["audio"].shape == (2, 100)


@pytest.mark.parametrize("persistent", [False, True])
def test_data_loading_processes_learn_of_the_epoch(persistent):
    class Places(torch.utils.data.Dataset):
        def __init__(self):
            self.sampler = WindowSampler([1000, 500], 10, seed=3)

        def __len__(self):
            return len(self.sampler)

        def __getitem__(self, index):
            return torch.tensor(self.sampler[index])

    data = Places()
    loader = torch.utils.data.DataLoader(data, batch_size=20, num_workers=1, persistent_workers=persistent)
    seen = []
    for epoch in range(3):
        data.sampler.epoch = epoch
        seen.append(torch.cat(list(loader)).tolist())
        assert seen[-1] == [data[index].tolist() for index in range(len(data))]
    assert seen[0] != seen[1] != seen[2]
