"""Sound that is written is read back, whatever the container, width, rate and channels; bad files are named."""

import io
import math
import tracemalloc
import warnings

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.audio.io import audio_info, audio_tags, check_output, load_audio, save_audio, stream_audio
from fast_jukebox.audio.resample import resample_audio


@pytest.fixture(scope="module")
def stereo():
    """Half a second of two tones, float32 (frames, 2), at 44.1 kHz."""
    time = np.arange(22050) / 44100
    left = 0.5 * np.sin(2 * np.pi * 440 * time)
    right = 0.25 * np.sin(2 * np.pi * 660 * time)
    return np.stack([left, right], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("container", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "FLOAT", 1e-7),
        ("WAV", "DOUBLE", 1e-7),
        ("FLAC", "PCM_16", 1e-4),
        ("FLAC", "PCM_24", 1e-6),
        ("OGG", "VORBIS", 5e-2),
        ("MP3", "MPEG_LAYER_III", 5e-2),
    ],
)
def test_reads_each_container_and_width_as_the_mean_of_its_channels(tmp_path, stereo, container, subtype, tolerance):
    path = tmp_path / f"sound.{container.lower()}"
    soundfile.write(path, stereo, 44100, format=container, subtype=subtype)
    audio = load_audio(path)
    assert audio.dtype == torch.float32
    assert audio.ndim == 1
    wanted = stereo.mean(axis=1)
    assert abs(len(audio) - len(wanted)) <= (2400 if container == "MP3" else 0)
    middle = slice(4000, 18000)
    assert np.abs(audio.numpy()[middle] - wanted[middle]).max() < tolerance
    info = audio_info(path)
    assert (info.sampling_rate, info.channels, info.container, info.subtype) == (44100, 2, container, subtype)
    assert info.duration == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8000, 22050, 48000, 96000])
def test_reads_any_rate_and_channel_count(tmp_path, channels, rate):
    path = tmp_path / "sound.wav"
    tone = 0.5 * np.sin(2 * np.pi * 300 * np.arange(rate) / rate)
    soundfile.write(path, np.repeat(tone[:, None], channels, axis=1), rate, subtype="FLOAT")
    audio = load_audio(path, 44100)
    assert len(audio) == 44100
    wanted = 0.5 * np.sin(2 * np.pi * 300 * np.arange(44100) / 44100)
    assert np.abs(audio.numpy() - wanted)[2000:-2000].max() < 1e-4


@settings(max_examples=30, deadline=None)
@given(offset=st.floats(0, 0.49), duration=st.floats(0.001, 1.0))
def test_offset_and_duration_are_a_slice(offset, duration):
    array = torch.rand(4000)
    part = load_audio(array, 8000, source_rate=8000, offset=offset, duration=duration)
    start, count = round(offset * 8000), max(1, round(duration * 8000))
    assert torch.equal(part, array[start : start + count])


def test_path_bytes_file_dictionary_and_array_are_the_same_sound(tmp_path, stereo):
    path = tmp_path / "sound.wav"
    soundfile.write(path, stereo, 44100, subtype="FLOAT")
    wanted = load_audio(path, 22050)
    data = path.read_bytes()
    rows = {"path": None, "bytes": data}, {"path": str(path), "bytes": None}
    for source in (str(path), data, io.BytesIO(data), *rows):
        assert torch.equal(load_audio(source, 22050), wanted)
    assert torch.allclose(load_audio(stereo.T, 22050, source_rate=44100), wanted, atol=1e-6)
    assert torch.allclose(load_audio({"array": stereo.T, "sampling_rate": 44100}, 22050), wanted, atol=1e-6)


def test_a_decoder_is_read():
    class Decoder:
        def get_all_samples(self):
            return type("Samples", (), {"data": torch.full((2, 100), 0.25), "sample_rate": 8000})

    assert torch.equal(load_audio(Decoder(), 8000), torch.full((100,), 0.25))


def test_integer_arrays_use_their_whole_range():
    audio = load_audio(np.array([-32768, 0, 16384], dtype=np.int16), 8000, source_rate=8000)
    assert audio.tolist() == [-1.0, 0.0, 0.5]


def test_streamed_blocks_are_the_whole_in_bounded_memory(tmp_path):
    path = tmp_path / "long.flac"
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", 48000, 1, subtype="PCM_16") as file:
        for _ in range(60):
            file.write(rng.uniform(-0.5, 0.5, 48000))
    list(stream_audio(path, 44100, duration=1.0))
    tracemalloc.start()
    lengths = [len(block) for block in stream_audio(path, 44100)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(lengths) == 60 * 44100
    assert len(lengths) > 5
    assert peak < 8e6
    whole = resample_audio(load_audio(path, 48000), 48000, 44100)
    assert torch.allclose(torch.cat(list(stream_audio(path, 44100))), whole, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    samples=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50),
    suffix=st.sampled_from(["wav", "flac", "WAV"]),
    subtype=st.sampled_from(["PCM_16", "PCM_24"]),
)
def test_what_is_saved_is_loaded(tmp_path_factory, samples, suffix, subtype):
    path = tmp_path_factory.mktemp("saved") / f"sound.{suffix}"
    assert save_audio(path, torch.tensor(samples), 44100, subtype=subtype) == path
    step = 2.0 ** -(15 if subtype == "PCM_16" else 23)
    assert np.abs(load_audio(path).numpy() - np.array(samples, np.float32)).max() <= 1.01 * step
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_song_of_minutes_is_saved_as_ogg(tmp_path):
    """libsndfile's Vorbis encoder crashes the process where millions of samples come at once."""
    audio = torch.sin(torch.arange(3_000_000) * 0.05) * 0.5
    save_audio(tmp_path / "song.ogg", audio, 48000)
    again = load_audio(tmp_path / "song.ogg", 48000)
    assert again.shape == audio.shape
    assert (again - audio)[4096:-4096].abs().max() < 0.05


def test_float_wav_keeps_what_lies_beyond_one(tmp_path):
    audio = np.array([[1.5, -2.0, 0.25]], dtype=np.float64)
    save_audio(tmp_path / "a.wav", audio, 8000, subtype="FLOAT")
    assert load_audio(tmp_path / "a.wav", 8000).tolist() == [1.5, -2.0, 0.25]


def test_samples_beyond_one_are_clipped_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="clipped"):
        save_audio(tmp_path / "a.wav", np.array([2.0, -3.0, 0.5]), 8000)
    assert load_audio(tmp_path / "a.wav", 8000).numpy() == pytest.approx([1.0, -1.0, 0.5], abs=1e-4)


def test_bfloat16_tensors_are_saved(tmp_path):
    save_audio(tmp_path / "a.flac", torch.tensor([0.5, -0.5], dtype=torch.bfloat16), 8000)
    assert load_audio(tmp_path / "a.flac", 8000).tolist() == [0.5, -0.5]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("path", {"path": "sound.m4a"}),
        ("path", {"path": "sound"}),
        ("subtype", {"subtype": "PCM_8"}),
        ("subtype", {"path": "sound.flac", "subtype": "FLOAT"}),
        ("sampling_rate", {"sampling_rate": 0}),
        ("sampling_rate", {"sampling_rate": 44100.0}),
        ("audio", {"audio": torch.zeros(2, 100)}),
        ("audio", {"audio": torch.zeros(0)}),
        ("audio", {"audio": np.zeros(3, dtype=np.int16)}),
        ("audio", {"audio": torch.tensor([0.0, math.nan])}),
        ("audio", {"audio": torch.tensor([0.0, math.inf])}),
    ],
)
def test_saving_refuses_by_name(tmp_path, field, change):
    call = {"path": "sound.wav", "audio": torch.zeros(100), "sampling_rate": 8000, **change}
    with pytest.raises(ValueError, match=f"`{field}`"):
        save_audio(tmp_path / call.pop("path"), **call)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_full_disk_leaves_the_old_file(tmp_path, suffix):
    """A limit on the size of files stands in for a full disk: the system refuses the write half-way."""
    resource = pytest.importorskip("resource")
    path = tmp_path / f"sound.{suffix}"
    save_audio(path, torch.zeros(100), 8000)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="large"):
            save_audio(path, torch.rand(100_000) - 0.5, 44100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b"no sound at all", b"RIFF\x00\x00\x00\x00WAVEfmt ", bytes(range(256)) * 40])
@pytest.mark.parametrize("name", ["noise.wav", "noise.flac", "noise.mp3", "noise.raw", "noise"])
def test_a_file_that_is_no_sound_is_named(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=name):
        load_audio(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.wav"):
        load_audio(tmp_path / "nowhere.wav")
    with pytest.raises(OSError, match=tmp_path.name):
        load_audio(tmp_path)


def test_a_truncated_file_gives_what_is_there_or_is_named(tmp_path, stereo):
    for container in ("wav", "flac", "ogg", "mp3"):
        path = tmp_path / f"whole.{container}"
        soundfile.write(path, stereo, 44100)
        data = path.read_bytes()
        cut = tmp_path / f"cut.{container}"
        cut.write_bytes(data[: len(data) // 2])
        try:
            audio = load_audio(cut)
        except ValueError as error:
            assert f"cut.{container}" in str(error)
        else:
            assert len(audio) <= len(stereo) + 2400


@pytest.mark.parametrize("length", [15, 57, 130])
def test_an_mp3_that_ends_before_its_first_sound_is_not_called_missing(tmp_path, stereo, length):
    path = tmp_path / "cut.mp3"
    soundfile.write(path, stereo, 8000)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(
        ValueError, match=r"cut\.mp3 is no sound that can be read: it ends before the first sound; fetch"
    ):
        load_audio(path)


def test_samples_that_are_no_numbers_are_named(tmp_path):
    path = tmp_path / "nan.wav"
    soundfile.write(path, np.array([0.0, np.nan, 0.5]), 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"nan\.wav"):
        load_audio(path)


def test_a_sound_longer_than_the_limit_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "long.wav"
    save_audio(path, torch.zeros(8000 * 3), 8000)
    with pytest.raises(ValueError, match="max_duration"):
        load_audio(path, 8000, max_duration=2.0)
    with pytest.raises(ValueError, match="max_duration"):
        stream_audio(path, 8000, max_duration=2.0)
    assert len(load_audio(path, 8000, duration=1.5, max_duration=2.0)) == 12000


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("offset", {"offset": -1.0}),
        ("offset", {"offset": math.inf}),
        ("offset", {"offset": 1.0}),
        ("duration", {"duration": 0.0}),
        ("duration", {"duration": -1.0}),
        ("duration", {"duration": math.nan}),
        ("duration", {"duration": "1"}),
        ("max_duration", {"max_duration": 0.0}),
        ("sampling_rate", {"sampling_rate": 0}),
        ("source_rate", {"source_rate": None}),
        ("source_rate", {"source_rate": -5}),
    ],
)
def test_loading_refuses_by_name(field, change):
    call = {"sampling_rate": 8000, "source_rate": 8000, **change}
    with pytest.raises(ValueError, match=f"`{field}`"):
        load_audio(torch.zeros(8000), **call)


@pytest.mark.parametrize("source", [None, 5, torch.zeros(1, 1, 5), np.zeros(4, dtype=bool)])
def test_other_sources_are_refused(source):
    with pytest.raises(ValueError, match=r"audio|source"):
        load_audio(source, 8000, source_rate=8000)


def test_an_open_file_stays_open(tmp_path):
    save_audio(tmp_path / "a.wav", torch.zeros(100), 8000)
    with (tmp_path / "a.wav").open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("error")
        load_audio(file, 8000)
        assert not file.closed


@pytest.mark.parametrize(
    ("name", "rate"), [("a.mp3", 1600), ("a.mp3", 96000), ("a.ogg", 1600), ("a.ogg", 384000), ("a.flac", 700000)]
)
def test_a_rate_that_a_format_lacks_is_told_before_there_is_sound(tmp_path, name, rate):
    for refuse in (lambda: check_output(name, rate), lambda: save_audio(tmp_path / name, torch.zeros(9), rate)):
        with pytest.raises(ValueError, match=f"`sampling_rate` must .*{name[2:].upper()}.*got {rate}"):
            refuse()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "rate"), [("a.mp3", 8000), ("a.ogg", 4000), ("a.ogg", 200000), ("a.wav", 1)])
def test_a_rate_that_a_format_has_is_written(tmp_path, name, rate):
    check_output(name, rate)
    assert audio_info(save_audio(tmp_path / name, torch.zeros(3000), rate)).sampling_rate == rate


@pytest.mark.parametrize("suffix", [".mp3", ".ogg", ".flac", ".wav"])
def test_tags_of_any_text_are_written(tmp_path, suffix):
    texts = {
        "one": "one",
        "a\0b": "a b",
        "caf\udce9": "caf\\udce9",
        "": None,
        "two\nlines": "two lines",
        "\u266a": "\u266a",
    }
    for number, (text, heard) in enumerate(texts.items()):
        path = save_audio(tmp_path / f"{number}{suffix}", torch.zeros(16000), 16000, tags={"title": text})
        assert audio_tags(path).get("title") == heard


def test_a_pipe_is_not_waited_for(pipe):
    with pytest.raises(OSError, match="no regular file"):
        load_audio(pipe)
