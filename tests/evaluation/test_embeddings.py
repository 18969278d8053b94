import numpy as np
import pytest
import torch

from fast_jukebox.audio.io import save_audio
from fast_jukebox.evaluation.embeddings import (
    AudioEmbedding,
    AudioTagger,
    EmbeddingSet,
    cut_windows,
    embed_songs,
    model_slug,
    read_sound,
)


class Loudness:
    """Mean and peak of windows of half a second at 8 kHz."""

    name, version, sampling_rate, dimensions, window_samples = "loudness", "1", 8000, 2, 4000

    def __call__(self, audio):
        windows = cut_windows(audio, self.window_samples)
        return torch.stack([windows.abs().mean(dim=2), windows.abs().amax(dim=2)], dim=2)


class Tagger(Loudness):
    tags = ("loud",)

    def embed_and_tag(self, audio):
        found = self(audio)
        return found, found[..., :1]


@pytest.fixture
def songs(tmp_path):
    paths = []
    for index, seconds in enumerate((1.0, 2.2)):
        audio = 0.1 * (index + 1) * torch.randn(round(16000 * seconds)).clamp(-4, 4)
        paths.append(save_audio(tmp_path / f"{index}.wav", audio, 16000))
    return paths


def test_songs_are_embedded_window_by_window(songs):
    found = embed_songs(Loudness(), songs)
    assert isinstance(Loudness(), AudioEmbedding)
    assert not isinstance(Loudness(), AudioTagger)
    assert found.windows.shape == (2 + 4, 2)
    assert found.songs.tolist() == [0, 0, 1, 1, 1, 1]
    assert (found.embedding, found.version, found.num_songs, found.tags) == ("loudness", "1", 2, None)
    assert embed_songs(Loudness(), songs, duration=0.5).songs.tolist() == [0, 1]


def test_arrays_need_a_rate_and_are_resampled(songs):
    audio = read_sound(songs[1], 16000)
    from_file, from_samples = (
        embed_songs(Loudness(), [songs[1]]),
        embed_songs(Loudness(), [audio.numpy()], sampling_rate=16000),
    )
    torch.testing.assert_close(from_file.windows, from_samples.windows)
    with pytest.raises(ValueError, match="`sampling_rate` must be given with samples"):
        embed_songs(Loudness(), [audio])


def test_a_taggers_tags_are_kept(songs):
    found = embed_songs(Tagger(), songs)
    assert torch.equal(found.tags, found.windows[:, :1])


def test_songs_that_cannot_be_embedded_are_named(songs, tmp_path):
    short = save_audio(tmp_path / "short.wav", torch.zeros(100), 8000)
    with pytest.raises(ValueError, match=r"short.wav must last at least 0.5 s, the window of loudness, got 0.0125 s"):
        embed_songs(Loudness(), [songs[0], short])
    with pytest.raises(ValueError, match="finite"):
        embed_songs(Loudness(), [np.full(8000, np.nan, np.float32)], sampling_rate=8000)
    with pytest.raises(ValueError, match="at least one song"):
        embed_songs(Loudness(), [])


def test_a_set_is_saved_and_loaded_and_refuses_another_one(songs, tmp_path):
    found = embed_songs(Tagger(), songs)
    again = EmbeddingSet.load(found.save(tmp_path / "songs.safetensors"))
    assert torch.equal(again.windows, found.windows)
    assert torch.equal(again.songs, found.songs)
    assert torch.equal(again.tags, found.tags)
    again.check_same_embedding(found)
    other = EmbeddingSet("loudness", "2", found.windows, found.songs)
    with pytest.raises(ValueError, match="the embedding loudness 1, got one made with loudness 2"):
        found.check_same_embedding(other)


def test_a_file_that_is_no_set_is_refused(tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "text.safetensors").write_text("not a safetensors file")
    save_file({"windows": torch.zeros(2, 2)}, tmp_path / "bare.safetensors")
    save_file(
        {"windows": torch.zeros(2, 2), "songs": torch.zeros(3, dtype=torch.int64)},
        tmp_path / "unlike.safetensors",
        {"embedding": "a", "version": "b"},
    )
    for name in ("text", "bare"):
        with pytest.raises(ValueError, match=f"{name}.safetensors must be a file of embeddings"):
            EmbeddingSet.load(tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match="must hold windows"):
        EmbeddingSet.load(tmp_path / "unlike.safetensors")


def test_a_slug_is_fit_for_the_name_of_a_number():
    assert model_slug("clap", "laion/larger_clap-Music.v2") == "clap_larger_clap_music_v2"


def test_windows_lie_side_by_side():
    audio = torch.arange(10.0)[None]
    assert cut_windows(audio, 4)[0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(ValueError, match="at least 11 samples"):
        cut_windows(audio, 11)
