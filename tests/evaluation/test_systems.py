import json

import pytest
import torch

from fast_jukebox.audio import load_audio, save_audio
from fast_jukebox.evaluation.systems import (
    FACTS,
    System,
    claim_songs,
    heard,
    reconstruct_songs,
    sample_system,
    top_level_path,
)

SECONDS = 0.1


def test_a_name_that_no_folder_can_have_is_refused():
    assert System("student 24", "runs/student").name == "student 24"
    for bad in ("", " ", "a/b", ".hidden", "a:b", "who?"):
        with pytest.raises(ValueError, match="must have a name for files"):
            System(bad, "runs/c")


def test_an_interrupted_sampling_gives_the_same_songs(tiny_model, tmp_path):
    whole = sample_system(tiny_model, tmp_path / "whole", 5, SECONDS, seed=3, batch_size=5)

    class Stopped(Exception):
        pass

    def stop(done):
        raise Stopped

    with pytest.raises(Stopped):
        sample_system(tiny_model, tmp_path / "cut", 5, SECONDS, seed=3, batch_size=2, after=stop)
    assert len(list((tmp_path / "cut").glob("sample-?.flac"))) == 2
    first = (tmp_path / "cut" / "sample-0.flac").stat().st_mtime_ns
    told = []
    again = sample_system(tiny_model, tmp_path / "cut", 5, SECONDS, seed=3, batch_size=2, after=told.append)
    assert told == [4, 5]
    assert again[0].stat().st_mtime_ns == first
    for one, other in zip(whole, again, strict=True):
        assert torch.equal(load_audio(one, 1600), load_audio(other, 1600))
        assert top_level_path(other).is_file()


def test_songs_and_their_top_level_are_of_one_length(tiny_model):
    made = tiny_model.generate(duration=SECONDS, num_samples=2, seed=0)
    songs, top = heard(tiny_model, made)
    assert songs.shape == top.shape == made.audio.shape
    with pytest.raises(ValueError, match="must hold audio and the codes of the top level"):
        heard(tiny_model, type(made)())


def test_songs_sampled_otherwise_are_kept_and_refused(tiny_model, tmp_path):
    sample_system(tiny_model, tmp_path, 2, SECONDS, seed=0)
    with pytest.raises(ValueError, match="songs sampled with seed 0, not 1"):
        sample_system(tiny_model, tmp_path, 2, SECONDS, seed=1)
    with torch.no_grad():
        next(tiny_model.priors[0].parameters()).add_(1.0)
    with pytest.raises(ValueError, match="songs sampled with priors"):
        sample_system(tiny_model, tmp_path, 2, SECONDS, seed=0)
    assert json.loads((tmp_path / FACTS).read_text())["seed"] == 0
    claim_songs(tmp_path / "new", tiny_model, {"seed": 1})


def test_reconstructions_are_the_bottom_levels_and_are_kept(tiny_model, tmp_path):
    audio = (0.3 * torch.randn(330)).clamp(-1, 1)
    song = save_audio(tmp_path / "song.wav", audio, 1600, subtype="FLOAT")
    (path,) = reconstruct_songs(lambda: tiny_model.vqvae, [song], tmp_path / "through", duration=0.2)
    expected = tiny_model.vqvae.decode(tiny_model.vqvae.encode(audio[None, :320], levels=[0]))[0].clamp(-1, 1)
    torch.testing.assert_close(load_audio(path, 1600), expected, atol=2e-4, rtol=0)
    before = path.stat().st_mtime_ns
    reconstruct_songs(lambda: tiny_model.vqvae, [song], tmp_path / "through", duration=0.2)
    assert path.stat().st_mtime_ns == before
