import pytest
import torch

from fast_jukebox.evaluation.seams import seam_figures


@pytest.fixture
def songs():
    time = torch.arange(40_000) / 44_100
    return torch.stack([0.4 * torch.sin(2 * torch.pi * pitch * time) for pitch in (220.0, 330.0)])


def test_seams_that_are_not_there_are_like_the_rest():
    noise = torch.randn(3, 40_000)
    figures = seam_figures(noise, [[5000, 12_000, 20_000, 31_000]] * 3)
    assert figures.seams == 12
    assert figures.jump_ratio == pytest.approx(1.0, abs=0.1)
    assert figures.flux_ratio == pytest.approx(1.0, abs=0.1)
    assert figures.jump_rank == pytest.approx(0.5, abs=0.25)


def test_a_step_in_the_waveform_is_found(songs):
    songs[:, 20_000:] += 0.3
    figures = seam_figures(songs, torch.tensor([[20_000], [20_000]]))
    assert figures.jump_ratio > 5
    assert figures.jump_rank == 1.0


def test_another_sound_is_found(songs):
    songs[:, 20_000:] = songs.flip(0)[:, 20_000:]
    figures = seam_figures(songs, [[20_000], []])
    assert figures.seams == 1
    assert figures.flux_ratio > 5
    assert figures.flux_rank > 0.95
    assert seam_figures(songs, [[10_000], [30_000]]).flux_rank < 0.95
    assert set(figures.as_dict()) == {"seams", "jump_ratio", "jump_rank", "flux_ratio", "flux_rank"}


@pytest.mark.parametrize(
    ("audio", "seams", "field"),
    [
        (torch.zeros(2000), [[5]], "audio"),
        (torch.zeros(1, 100), [[5]], "audio"),
        (torch.zeros(1, 2000), [[5], [5]], "seams"),
        (torch.zeros(1, 2000), [[2000]], "seams"),
        (torch.zeros(1, 2000), [[]], "seams"),
        (torch.zeros(2, 2000), [[1000], [300, 1000, 1700]], "`seams` must leave .* got 3 seams"),
    ],
)
def test_bad_input(audio, seams, field):
    with pytest.raises(ValueError, match=field):
        seam_figures(audio, seams)
