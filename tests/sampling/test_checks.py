import pytest
import torch

from fast_jukebox.sampling.checks import (
    check_codes,
    check_codes_by_level,
    check_count,
    check_device,
    check_levels,
    check_metadata,
    check_prompt_audio,
    common_batch,
    resolve_seeds,
)
from fast_jukebox.sampling.machine import rows

CODES = torch.tensor([[0, 10, 3, 4]])


@pytest.mark.parametrize("value", [0, -1, 5, 1.0, True, "2", None])
def test_counts_out_of_range(value):
    with pytest.raises(ValueError, match="field"):
        check_count("field", value, 1, 4)


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2]],
        CODES.float(),
        CODES.int(),
        CODES[0],
        CODES.repeat(2, 1, 1),
        CODES[:0],
        torch.tensor([[0, 11]]),
        torch.tensor([[-1, 0]]),
    ],
)
def test_what_is_no_codes(value):
    with pytest.raises(ValueError, match="field"):
        check_codes("field", value, 11)


def test_codes_pass():
    assert check_codes("field", CODES, 11) is CODES
    assert check_codes("field", CODES[:, :0], 11).shape == (1, 0)


@pytest.mark.parametrize("value", [[[0, 0, 0]], torch.zeros(1, 5), torch.zeros(5).long(), torch.zeros(1, 4).long()])
def test_what_is_no_metadata(value):
    with pytest.raises(ValueError, match="metadata"):
        check_metadata("metadata", value, 5)


def test_metadata_where_no_prior_has_labels():
    with pytest.raises(ValueError, match="metadata"):
        check_metadata("metadata", torch.zeros(1, 5).long(), 0)


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(0),
        torch.zeros(1, 0),
        torch.zeros(1, 1, 8),
        torch.zeros(8, dtype=torch.int16),
        torch.tensor([0.0, float("nan")]),
        torch.tensor([0.0, float("inf")]),
        torch.tensor([0.0, 30000.0]),
        "song.wav",
        [[0.0, 0.0], [0.0]],
        object(),
    ],
)
def test_what_is_no_audio(value):
    with pytest.raises(ValueError, match="prompt"):
        check_prompt_audio(value)


def test_audio_gets_a_batch_axis():
    assert check_prompt_audio(torch.zeros(8)).shape == (1, 8)
    assert check_prompt_audio(torch.zeros(2, 8).numpy()).shape == (2, 8)


def test_one_song_goes_with_any_number():
    assert common_batch({"a": 1, "b": 3, "c": 1, "d": 3}) == 3
    with pytest.raises(ValueError, match="`a` has 2 songs"):
        common_batch({"a": 2, "b": 3})


def test_seeds_and_songs():
    assert resolve_seeds(7, None, 3) == (7, [7, 7, 7], [0, 1, 2])
    assert resolve_seeds(7, [4, 0], 2) == (7, [7, 7], [4, 0])
    assert resolve_seeds([7, 8], None, 2) == ([7, 8], [7, 8], [0, 0])
    reported, seeds, songs = resolve_seeds(None, None, 2)
    assert seeds == [reported, reported]
    assert songs == [0, 1]


@pytest.mark.parametrize(
    ("seed", "songs", "field"),
    [
        (-1, None, "seed"),
        (2**63, None, "seed"),
        (0.5, None, "seed"),
        ([1], None, "seed"),
        ([1, -1], None, "seed"),
        (1, [0], "song_ids"),
        (1, [0, -1], "song_ids"),
        (1, 3, "song_ids"),
    ],
)
def test_seeds_and_songs_out_of_range(seed, songs, field):
    with pytest.raises(ValueError, match=field):
        resolve_seeds(seed, songs, 2)


def test_rows_are_shared():
    assert rows(None, 3, torch.device("cpu")) is None
    assert rows(CODES, 3, torch.device("cpu")).shape == (3, 4)


def test_levels():
    assert check_levels(None, 0, 3) == (2, 0)
    assert check_levels(1, 1, 3) == (1, 1)


@pytest.mark.parametrize(
    ("start", "stop", "field"), [(3, 0, "start"), (-1, 0, "start"), (2, 3, "stop"), (0, 1, "stop")]
)
def test_levels_out_of_range(start, stop, field):
    with pytest.raises(ValueError, match=f"{field}_level"):
        check_levels(start, stop, 3)


def test_codes_are_listed_up_to_the_top():
    top, middle = CODES, CODES.repeat(1, 2)
    assert check_codes_by_level([top], 11, [2, 4, 8]) == [None, None, top]
    assert check_codes_by_level([None, middle, top], 11, [2, 4, 8]) == [None, middle, top]


@pytest.mark.parametrize(
    "value",
    [
        [],
        CODES,
        [None] * 4,
        [CODES, None],
        [None, None, None],
        [CODES.repeat(1, 3), CODES],  # middle codes beyond the top ones
        [CODES, None, CODES],  # bottom codes, nothing above them
        ["top"],
    ],
)
def test_codes_that_do_not_match(value):
    with pytest.raises(ValueError, match="codes"):
        check_codes_by_level(value, 11, [2, 4, 8])


def test_devices(monkeypatch):
    assert check_device(None) is None
    assert check_device("auto") is None
    assert check_device(-1) == check_device("cpu") == check_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert check_device(1) == check_device("cuda:1") == torch.device("cuda:1")
    assert check_device("cuda") == torch.device("cuda")
    for device in (2, "cuda:2", 300, -2, "gpu", 1.5, True):
        with pytest.raises(ValueError, match=f"`device` must be .* got {device!r}"):
            check_device(device)


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in (0, "cuda", "cuda:0", "mps"):
        with pytest.raises(ValueError, match="`device` must be one that this machine has"):
            check_device(device)
