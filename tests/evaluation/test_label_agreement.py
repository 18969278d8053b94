"""What sounds like its label is heard as it, by timbre and by rhythm, and what does not is not."""

import math

import pytest
import torch

from fast_jukebox.evaluation.probing import (
    describe_rhythm,
    describe_timbre,
    label_agreement,
)

RATE = 16000


def tone(partials, pitch=440.0, seconds=1.0, loudness=0.3):
    time = torch.arange(round(seconds * RATE)) / RATE
    return loudness * sum(torch.sin(2 * math.pi * pitch * (n + 1) * time) * a for n, a in enumerate(partials))


def clicks(spans, seconds=6.0):
    """Short tones whose onsets are the given spans apart, over and over."""
    audio, place, number = torch.zeros(round(seconds * RATE)), 0.05, 0
    while place < seconds - 0.1:
        start = round(place * RATE)
        note = tone([1.0, 0.5], seconds=0.09) * torch.linspace(1, 0, round(0.09 * RATE))
        audio[start : start + len(note)] += note
        place, number = place + spans[number % len(spans)], number + 1
    return audio


def scale(partials, root, **options):
    """Eight notes upwards from a pitch in hertz."""
    return torch.cat([tone(partials, root * 2 ** (step / 12), 0.25, **options) for step in (0, 2, 4, 5, 7, 9, 11, 12)])


def test_timbre_does_not_depend_on_loudness_and_little_on_pitch():
    bright, dark = [1, 1, 1, 1, 1, 1], [1, 0.1, 0.01]
    loud, soft = (describe_timbre(scale(bright, 440.0, loudness=level), RATE) for level in (0.1, 0.05))
    assert torch.allclose(loud, soft, atol=0.1)
    near = torch.dist(describe_timbre(scale(bright, 466.0, loudness=0.1), RATE), loud)
    assert near < 0.5 * torch.dist(describe_timbre(scale(dark, 440.0), RATE), loud)
    assert describe_timbre(torch.zeros(RATE), RATE).abs().max() == 0
    assert describe_timbre(torch.zeros(5), RATE).shape == (80,)


def test_rhythm_shows_the_spans_between_onsets():
    lags = torch.logspace(math.log10(0.09), math.log10(1.6), 64)
    found = describe_rhythm(clicks([0.3]), RATE)
    assert lags[found[:64].argmax()] == pytest.approx(0.3, rel=0.06)
    assert found[64] == pytest.approx(1 / 0.3, rel=0.15)
    mixed = describe_rhythm(clicks([0.4, 0.2]), RATE)
    strength = {span: float(mixed[(lags - span).abs().argmin()]) for span in (0.2, 0.3, 0.4, 0.6)}
    assert min(strength[0.2], strength[0.4], strength[0.6]) > 2 * strength[0.3]
    assert describe_rhythm(torch.zeros(RATE), RATE).abs().max() == 0


def test_agreement_tells_a_model_that_listens_from_one_that_does_not():
    generator = torch.Generator().manual_seed(1)

    def songs(labels):
        return torch.stack(
            [torch.tensor([10.0 * "xyz".index(own), 0]) + torch.randn(2, generator=generator) for own in labels]
        )

    train, test, asked = list("xyz" * 20), list("xyz" * 5), list("xyz" * 8)
    listens = label_agreement(songs(train), train, songs(test), test, songs(asked), asked)
    assert (listens.songs, listens.samples, listens.chance) == (1.0, 1.0, pytest.approx(1 / 3))
    assert listens.swapped == 0.0
    assert listens.by_label == {"x": 1.0, "y": 1.0, "z": 1.0}
    played = asked[1:] + asked[:1]
    deaf = label_agreement(songs(train), train, songs(test), test, songs(played), asked)
    assert deaf.samples == 0.0
    assert deaf.swapped == pytest.approx(0.5)
    stuck = label_agreement(songs(train), train, songs(test), test, songs("x" * len(asked)), asked)
    assert stuck.samples == pytest.approx(1 / 3) and stuck.by_label == {"x": 1.0, "y": 0.0, "z": 0.0}


def test_what_cannot_be_judged_is_refused():
    data = torch.randn(4, 2)
    with pytest.raises(ValueError, match=r"`sample_labels`.*'c'"):
        label_agreement(data, ["a", "a", "b", "b"], data[:1], ["a"], data[:1], ["c"])
