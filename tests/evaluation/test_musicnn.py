import math

import numpy as np
import pytest
import torch

from fast_jukebox.evaluation.embeddings import AudioTagger
from fast_jukebox.evaluation.musicnn import TAGS, WEIGHTS_DIR, MusicnnEmbedding

RATE = 16000


@pytest.fixture(scope="module")
def mtt():
    return MusicnnEmbedding("musicnn_mtt")


def slaney(hertz):
    """The mel scale of Slaney's Auditory Toolbox: straight below 1000 Hz, logarithmic above."""
    return np.where(hertz < 1000, hertz * 3 / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / math.log(6.4))


def naive_mels(audio: np.ndarray) -> np.ndarray:
    """Frame by frame, by numpy's Fourier transform and triangles written out."""
    padded = np.pad(audio.astype(np.float64), 256)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    grid = np.linspace(0, 8000, 200001)
    edges = np.interp(np.linspace(0, float(slaney(np.array(8000.0))), 98), slaney(grid), grid)
    bins = np.arange(257) * RATE / 512
    frames = []
    for start in range(0, len(padded) - 511, 256):
        power = np.abs(np.fft.rfft(padded[start : start + 512] * window)) ** 2
        bands = []
        for low, centre, high in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
            triangle = np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
            bands.append(triangle @ power * 2 / (high - low))
        frames.append(np.log10(10000 * np.array(bands) + 1))
    return np.array(frames)


@pytest.mark.parametrize(("name", "published"), [("musicnn_mtt", "MTT_musicnn"), ("musicnn_msd", "MSD_musicnn")])
def test_tags_are_those_of_the_published_graph(golden_dir, name, published):
    path = golden_dir / "musicnn" / "golden.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    golden = np.load(path)
    _, tags = MusicnnEmbedding(name).network(torch.from_numpy(golden["patches"]))
    torch.testing.assert_close(tags, torch.from_numpy(golden[published]), atol=1e-3, rtol=0)


def test_mel_frames_are_those_of_a_plain_transform(mtt):
    audio = 0.3 * torch.randn(1, mtt.window_samples)
    found = mtt.mel_windows(audio)[0, 0]
    torch.testing.assert_close(found, torch.from_numpy(naive_mels(audio[0].numpy())).float(), atol=2e-4, rtol=0)


def test_a_window_is_the_shortest_sound_and_windows_do_not_depend_on_their_neighbours(mtt):
    embeddings, tags = mtt.embed_and_tag(0.1 * torch.randn(1, mtt.window_samples))
    assert embeddings.shape == (1, 1, 200)
    assert tags.shape == (1, 1, 50)
    with pytest.raises(ValueError, match=r"at least 47616 samples \(2.976 s\)"):
        mtt(torch.zeros(1, mtt.window_samples - 1))
    audio = 0.1 * torch.randn(2, 3 * RATE * 2)
    together = mtt(audio)
    assert together.shape == (2, 2, 200)
    torch.testing.assert_close(together[1:], mtt(audio[1:]), atol=1e-4, rtol=1e-4)


def test_it_hears_a_difference_between_silence_noise_and_a_tone(mtt):
    seconds = torch.arange(3 * RATE) / RATE
    sounds = torch.stack([torch.zeros(3 * RATE), 0.1 * torch.randn(3 * RATE), 0.3 * torch.sin(2764 * seconds)])
    embeddings, tags = mtt.embed_and_tag(sounds)
    assert torch.isfinite(embeddings).all()
    assert ((tags >= 0) & (tags <= 1)).all()
    assert torch.pdist(embeddings[:, 0]).min() > 1


def test_it_is_a_tagger_with_the_published_tags(mtt):
    assert isinstance(mtt, AudioTagger)
    assert {name: len(set(tags)) for name, tags in TAGS.items()} == {"musicnn_mtt": 50, "musicnn_msd": 50}
    with pytest.raises(ValueError, match="`name` must be one of musicnn_mtt, musicnn_msd, got 'vgg'"):
        MusicnnEmbedding("vgg")


def test_the_weights_carry_their_notice_and_are_small():
    notice = (WEIGHTS_DIR / "NOTICE.md").read_text(encoding="utf-8")
    assert "Music Technology Group, Universitat Pompeu Fabra 2019" in notice
    assert "Permission to use, copy, modify, and/or distribute" in notice
    assert all(path.stat().st_size < 1.7e6 for path in WEIGHTS_DIR.glob("*.safetensors"))


def test_weights_of_another_network_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="`weights` must hold a musicnn network"):
        MusicnnEmbedding(weights=tmp_path / "other.safetensors")
