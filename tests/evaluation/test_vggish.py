import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fast_jukebox.evaluation.encoders import VGGish, VGGishEmbedding, load_embedding, mel_matrix

RATE = 16000


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights under the published names, with the entries that the network does not use."""
    path = tmp_path_factory.mktemp("vggish") / "vggish.pth"
    torch.save({**VGGish().state_dict(), "pproc.pca_means": torch.zeros(128, 1)}, path)
    return path


def test_names_and_shapes_are_the_published_ones():
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in VGGish().state_dict().items()}
    convolutions = {0: (64, 1), 3: (128, 64), 6: (256, 128), 8: (256, 256), 11: (512, 256), 13: (512, 512)}
    for index, (out, channels) in convolutions.items():
        assert shapes[f"features.{index}.weight"] == (out, channels, 3, 3)
    assert [shapes[f"embeddings.{index}.weight"] for index in (0, 2, 4)] == [(4096, 12288), (4096, 4096), (128, 4096)]
    assert len(shapes) == 18


def test_windows_of_sound_are_embedded(weights):
    found = load_embedding(f"vggish:{weights}")
    audio = 0.1 * torch.randn(1, 2 * RATE)
    vectors = found(audio)
    assert vectors.shape == (1, 2, 128)
    frames = found.mel_windows(audio)[0, 1, 3]
    start = (96 + 3) * 160
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    spectrum = np.abs(np.fft.rfft(audio[0, start : start + 400].numpy() * window, 512))
    expected = np.log(spectrum @ mel_matrix().numpy() + 0.01)
    np.testing.assert_allclose(frames.numpy(), expected, atol=1e-4)
    with pytest.raises(ValueError, match="at least 15600 samples"):
        found(audio[:, :15599])


def test_bands_are_triangles_on_the_mel_scale():
    matrix = mel_matrix()
    assert matrix.shape == (257, 64)
    assert float(matrix.max()) <= 1
    hertz = torch.arange(257) * RATE / 512
    mel = 1127 * torch.log1p(hertz / 700)
    edges = torch.linspace(1127 * math.log1p(125 / 700), 1127 * math.log1p(7500 / 700), 66)
    inside = (mel > edges[40]) & (mel < edges[41])
    slope = (mel[inside] - edges[40]) / (edges[41] - edges[40])
    torch.testing.assert_close(matrix[inside, 40], slope, atol=1e-3, rtol=0)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not fetched by itself"):
        VGGishEmbedding(tmp_path / "nothing.pth")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="must hold VGGish's weights"):
        VGGishEmbedding(tmp_path / "other.safetensors")
