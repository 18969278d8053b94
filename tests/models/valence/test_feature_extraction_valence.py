import numpy as np
import pytest
import torch

from fast_jukebox.models.valence import ValenceFeatureExtractor
from fast_jukebox.models.valence.feature_extraction_valence import fit_frames

RATE = 12000


@pytest.fixture
def extractor():
    return ValenceFeatureExtractor(num_frames=64)


def test_frames_are_decibels_of_unit_area_bands(extractor):
    audio = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(RATE) / RATE)
    frames = extractor.frames(audio)
    assert frames.shape == (96, RATE // 256 + 1)
    # A Hann window of 512 gives a tone of amplitude 0.5 a peak of (0.5 * 512 / 4)^2; a band of area 1 weighs bins by
    # 2 / its width, and 1000 Hz lies a third of the way up Slaney's scale of 0 to 6 kHz.
    middle = frames[:, 20]
    assert abs(int(middle.argmax()) - 96 * 15 / (15 + 27 * np.log(6) / np.log(6.4))) < 2
    spectrum = np.abs(np.fft.rfft(audio[20 * 256 - 256 : 20 * 256 + 256].numpy() * np.hanning(513)[:512])) ** 2
    loudest = 20 * np.log10(spectrum.max()) / 100
    assert float(middle.max()) < loudest
    louder = extractor.frames(2 * audio)[:, 20].max() - middle.max()
    assert float(louder) == pytest.approx(2 * 20 * np.log10(2) / 100, abs=1e-4)  # 20 log10 of a power


def test_silence_has_the_floor(extractor):
    assert extractor.frames(torch.zeros(RATE)).unique().tolist() == pytest.approx([-2.0])


def test_short_sound_is_repeated_and_of_long_sound_the_middle_is_taken(extractor):
    short = extractor(np.random.default_rng(0).normal(size=10 * 256).astype(np.float32), sampling_rate=RATE)
    features = short["input_features"]
    assert features.shape == (1, 96, 64)
    torch.testing.assert_close(features[0, :, :11], features[0, :, 11:22])
    frames = torch.arange(100.0).expand(2, 100)
    assert fit_frames(frames, 50)[0, 0] == 25
    assert fit_frames(frames, 50, start=3)[0].tolist() == list(range(3, 53))


def test_a_batch_is_its_clips_and_settings_are_saved(extractor, tmp_path):
    clips = [torch.randn(RATE), torch.randn(2 * RATE)]
    together = extractor(clips, return_tensors="np")["input_features"]
    assert together.shape == (2, 96, 64)
    np.testing.assert_allclose(together[1], extractor(clips[1])["input_features"][0].numpy(), atol=1e-6)
    extractor.save_pretrained(tmp_path)
    assert ValenceFeatureExtractor.from_pretrained(tmp_path).num_frames == 64


def test_bad_sound_is_refused(extractor):
    with pytest.raises(ValueError, match="`sampling_rate` must be 12000"):
        extractor(torch.zeros(10), sampling_rate=44100)
    for bad in (torch.zeros(0), torch.tensor([float("nan")]), torch.zeros(1, 5)):
        with pytest.raises(ValueError, match="must be finite sound"):
            extractor(bad)
