from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.evaluation.controls import chord, white_noise
from fast_jukebox.evaluation.notes import find_onsets, transcribe

RATE = 24000


def play(pitches, seconds=0.5):
    return torch.cat([chord([pitch], round(seconds * RATE), RATE) for pitch in pitches])


def test_a_melody_is_written_down():
    pitches = [60, 62, 64, 65, 67, 65, 64, 60]
    events = transcribe(play(pitches), RATE)
    assert [event.pitch for event in events] == pitches
    for index, event in enumerate(events):
        assert event.start == pytest.approx(0.5 * index, abs=0.15)
        assert event.end == pytest.approx(0.5 * (index + 1), abs=0.15)
        assert event.strength > 0


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(48, 83), min_size=2, max_size=6))
def test_any_line_of_changing_pitch_classes_is_written_down(line):
    pitches = [pitch for before, pitch in pairwise([-1, *line]) if before % 12 != pitch % 12]
    events = transcribe(play(pitches), RATE)
    assert [event.pitch % 12 for event in events] == [pitch % 12 for pitch in pitches]
    assert len(find_onsets(play(pitches), RATE)) == pytest.approx(len(pitches), abs=1)


def test_octaves_sounding_together_are_one_note():
    (event,) = transcribe(chord([60, 72], 2 * RATE, RATE), RATE)
    assert event.pitch % 12 == 0


def test_a_chord_has_its_notes():
    events = transcribe(chord([60, 64, 67], 2 * RATE, RATE), RATE)
    assert [event.pitch % 12 for event in events] == [0, 4, 7]


def test_notes_below_the_quiet_level_are_not_heard():
    soft = 0.01 * chord([60], 2 * RATE, RATE)
    assert transcribe(soft, RATE) == []
    assert len(find_onsets(soft, RATE)) == 0
    assert transcribe(torch.zeros(RATE), RATE) == []
    assert len(find_onsets(torch.zeros(RATE), RATE)) == 0


def test_onsets_are_where_notes_begin_also_of_a_note_struck_again():
    audio = torch.cat([torch.zeros(RATE), play([60, 60, 67, 67])])
    onsets = find_onsets(audio, RATE)
    torch.testing.assert_close(onsets, torch.tensor([1.0, 1.5, 2.0, 2.5]), atol=0.05, rtol=0)


def test_noise_has_hardly_an_onset_and_hardly_a_note():
    noise = white_noise(20.0, RATE)
    assert len(find_onsets(noise, RATE)) <= 5
    assert len(transcribe(noise, RATE)) <= 5


@pytest.mark.parametrize("audio", [torch.zeros(1, RATE), torch.zeros(RATE, dtype=torch.int16)])
def test_audio_of_another_shape_or_type_has_no_onsets(audio):
    with pytest.raises(ValueError, match="audio"):
        find_onsets(audio, RATE)
