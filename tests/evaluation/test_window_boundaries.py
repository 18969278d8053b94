import pytest
import torch

from fast_jukebox.evaluation.window_boundaries import boundary_metrics


@pytest.fixture
def songs():
    time = torch.arange(40_000) / 44_100
    return torch.stack([0.4 * torch.sin(2 * torch.pi * pitch * time) for pitch in (220.0, 330.0)])


def test_seams_that_are_not_there_are_like_the_rest():
    noise = torch.randn(3, 40_000)
    metrics = boundary_metrics(noise, [[5000, 12_000, 20_000, 31_000]] * 3)
    assert metrics.boundaries == 12
    assert metrics.jump_ratio == pytest.approx(1.0, abs=0.1)
    assert metrics.flux_ratio == pytest.approx(1.0, abs=0.1)
    assert metrics.jump_rank == pytest.approx(0.5, abs=0.25)


def test_a_step_in_the_waveform_is_found(songs):
    songs[:, 20_000:] += 0.3
    metrics = boundary_metrics(songs, torch.tensor([[20_000], [20_000]]))
    assert metrics.jump_ratio > 5
    assert metrics.jump_rank == 1.0


def test_another_sound_is_found(songs):
    songs[:, 20_000:] = songs.flip(0)[:, 20_000:]
    metrics = boundary_metrics(songs, [[20_000], []])
    assert metrics.boundaries == 1
    assert metrics.flux_ratio > 5
    assert metrics.flux_rank > 0.95
    assert boundary_metrics(songs, [[10_000], [30_000]]).flux_rank < 0.95


@pytest.mark.parametrize(
    ("audio", "boundaries", "field"),
    [
        (torch.zeros(2000), [[5]], "audio"),
        (torch.zeros(1, 100), [[5]], "audio"),
        (torch.zeros(1, 2000), [[5], [5]], "boundaries"),
        (torch.zeros(1, 2000), [[2000]], "boundaries"),
        (torch.zeros(1, 2000), [[]], "boundaries"),
        (torch.zeros(2, 2000), [[1000], [300, 1000, 1700]], "`boundaries` must leave .* got 3$"),
    ],
)
def test_bad_input(audio, boundaries, field):
    with pytest.raises(ValueError, match=field):
        boundary_metrics(audio, boundaries)
