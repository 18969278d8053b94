import pytest
import torch

from fast_jukebox.evaluation.mel import mel_filters, mel_spectrogram
from fast_jukebox.evaluation.pictures import plot_spectrograms

RATE = 16000


def test_a_tone_is_brightest_where_it_should_be():
    audio = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(RATE) / RATE)
    decibels = mel_spectrogram(audio, RATE, n_mels=64)
    assert decibels.max() == pytest.approx(0.0, abs=1e-5)
    assert decibels.min() >= -80
    brightest = decibels.mean(dim=1).argmax()
    # 1000 Hz is 1000 mel; half the rate is 2840 mel, so the band is 65 * 1000 / 2840 - 1.
    assert abs(int(brightest) - 21.9) <= 1


def test_loudness_does_not_matter_and_silence_is_dark():
    noise = torch.randn(RATE)
    torch.testing.assert_close(mel_spectrogram(noise, RATE), mel_spectrogram(0.01 * noise, RATE), atol=1e-3, rtol=0)
    assert (mel_spectrogram(torch.zeros(RATE), RATE) == -80).all()


def test_a_clip_shorter_than_a_window_is_drawn():
    assert mel_spectrogram(torch.randn(10), RATE).shape == (96, 1)


def test_every_band_hears_something_and_no_bin_is_counted_twice_over():
    filters = mel_filters(96, 2048, 44100)
    assert (filters.amax(dim=1) > 0).all()
    assert (filters >= 0).all()
    assert filters.max() <= 1


def test_audio_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="audio"):
        mel_spectrogram(torch.zeros(1, RATE), RATE)


def test_a_picture_is_written_whole(tmp_path):
    pytest.importorskip("matplotlib")
    clips = {"a song": torch.randn(RATE), "a sample": torch.randn(RATE // 2)}
    path = plot_spectrograms(tmp_path / "picture.png", clips, RATE)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]


def test_no_clips_are_refused(tmp_path):
    with pytest.raises(ValueError, match="clips"):
        plot_spectrograms(tmp_path / "picture.png", {}, RATE)
