import math
from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.evaluation.controls import chord, random_notes, white_noise
from fast_jukebox.evaluation.pitch import SCALES
from fast_jukebox.evaluation.song_metrics import (
    METRICS,
    SongMetrics,
    measure_song,
    quiet_segments,
    quiet_windows,
    repeated_fraction,
    summarise_songs,
)

RATE = 24000
MELODY = [60, 62, 64, 65, 67, 69, 71, 72, 67, 64, 62, 60]


def play(pitches, seconds=0.5):
    return torch.cat([chord([pitch], round(seconds * RATE), RATE) for pitch in pitches])


def naive_repeated_fraction(symbols, passage, same):
    starts = range(passage, len(symbols) - passage + 1)
    repeated = [
        any(
            sum(symbols[start + i] == symbols[before + i] for i in range(passage)) >= same * passage - 1e-9
            for before in range(start - passage + 1)
        )
        for start in starts
    ]
    return sum(repeated) / len(repeated) if repeated else 0.0


@given(st.lists(st.integers(-1, 2), min_size=1, max_size=40), st.integers(1, 8), st.sampled_from([0.5, 0.9, 1.0]))
def test_repetition_is_what_a_plain_loop_finds(symbols, passage, same):
    found = repeated_fraction(torch.tensor(symbols), passage, same)
    assert found == pytest.approx(naive_repeated_fraction(symbols, passage, same))


def test_a_song_in_one_key_has_good_metrics():
    song = measure_song(play(MELODY), RATE)
    assert song.duration == pytest.approx(6.0)
    assert (song.quiet_fraction, song.longest_silence) == (0, pytest.approx(0, abs=0.06))
    assert song.noted_fraction > 0.97
    assert song.in_key_fraction > 0.95
    assert song.tonal_clarity > 0.85
    assert song.notes_per_minute == pytest.approx(120, abs=11)
    assert song.onsets_per_minute == pytest.approx(120, abs=11)
    assert song.repetition < 0.1


def test_the_controls_fail_where_they_should():
    noise, notes = measure_song(white_noise(10.0, RATE), RATE), measure_song(random_notes(10.0, RATE), RATE)
    assert noise.tonal_clarity < 0.02 and noise.in_key_fraction < 0.2 and noise.repetition > 0.5
    assert notes.tonal_clarity > 0.9 and notes.in_key_fraction < 0.8 and notes.repetition < 0.1
    drone = measure_song(chord([60], 10 * RATE, RATE), RATE)
    assert drone.in_key_fraction > 0.97 and drone.repetition == 1.0 and drone.onsets_per_minute < 13


def test_silence_has_the_worst_of_every_metric():
    song = measure_song(torch.zeros(10 * RATE), RATE)
    assert song == SongMetrics(10.0, 1.0, 10.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from([1.0, 3.0, 6.0, 12.0]), st.booleans())
def test_a_hole_worsens_every_metric_and_none_ignores_it(hole, is_soft_noise):
    gap = torch.zeros(round(hole * RATE))
    if is_soft_noise:
        gap = 0.05 * white_noise(hole, RATE)  # 46 dB below full scale
    whole, with_hole = measure_song(play(MELODY), RATE), measure_song(torch.cat([play(MELODY), gap]), RATE)
    share = 6.0 / (6.0 + hole)
    assert with_hole.quiet_fraction == pytest.approx(1 - share, abs=0.03)
    assert with_hole.longest_silence == pytest.approx(hole, abs=0.1)
    for name in ("noted_fraction", "in_key_fraction", "tonal_clarity", "notes_per_minute", "onsets_per_minute"):
        # A window at the edge of the hole still hears the last note.
        assert getattr(with_hole, name) <= getattr(whole, name) * share + 0.06 * getattr(whole, name), name


def test_soft_music_sounds_down_to_40_decibels_below_full_scale():
    level = float(play(MELODY).square().mean().sqrt())
    assert measure_song(play(MELODY) * (0.03 / level), RATE).noted_fraction > 0.95
    assert measure_song(play(MELODY) * (0.005 / level), RATE).noted_fraction < 0.05


def test_quiet_stretches_are_found_with_their_ends():
    audio = torch.cat([torch.zeros(RATE), torch.ones(RATE), torch.zeros(2 * RATE), torch.ones(RATE // 100)])
    assert quiet_segments(audio, RATE) == [(0.0, 1.0), (2.0, 4.0)]
    assert len(quiet_windows(audio, RATE)) == 80
    with pytest.raises(ValueError, match="audio"):
        quiet_windows(torch.zeros(10), RATE)


def test_a_key_is_chosen_for_each_10_seconds():
    first = random_notes(10.0, RATE, pitch_classes=SCALES["major"])
    second = random_notes(10.0, RATE, 1, pitch_classes=[(step + 6) % 12 for step in SCALES["major"]])
    assert measure_song(torch.cat([first, second]), RATE).in_key_fraction > 0.93


@pytest.mark.parametrize(
    ("audio", "rate"),
    [
        (torch.full((RATE,), math.nan), RATE),
        (torch.zeros(10), RATE),
        (torch.zeros(1, RATE), RATE),
        (torch.zeros(RATE), 4000),
    ],
)
def test_what_cannot_be_measured_is_refused(audio, rate):
    with pytest.raises(ValueError, match="audio|sampling_rate"):
        measure_song(audio, rate)


def test_a_summary_has_the_mean_over_songs_and_an_interval_around_it():
    values = [0.0, 0.5, 1.0, 0.5]
    rows = [{"quiet_fraction": value, "repetition": value} for value in values]
    summary = summarise_songs(rows)
    assert set(summary) == {"quiet_fraction", "repetition"}
    assert set(METRICS) == {entry.name for entry in fields(SongMetrics)} - {"duration"}
    assert summary["quiet_fraction"].value == pytest.approx(0.5)
    # Four songs say no more than that the mean lies among them; of forty its standard error is 0.0566, and t is 2.02.
    assert (summary["quiet_fraction"].low, summary["quiet_fraction"].high) == (0.0, 1.0)
    many = summarise_songs(rows * 10)["quiet_fraction"]
    assert many.low == pytest.approx(0.5 - 2.02 * 0.0566, abs=0.03)
    assert many.high == pytest.approx(0.5 + 2.02 * 0.0566, abs=0.03)
    assert summarise_songs(rows)["repetition"].low == summary["repetition"].low
    assert math.isnan(summarise_songs(rows[:1])["quiet_fraction"].low)
    assert summarise_songs([]) == {}


def test_a_song_without_a_number_does_not_count_in_its_mean():
    summary = summarise_songs([{"a": 1.0, "b": math.nan}, {"b": math.nan}, {"a": 3.0}])
    assert (summary["a"].value, summary["a"].songs) == (2.0, 2)
    assert summary["a"].low < 2 < summary["a"].high
    assert math.isnan(summary["b"].value) and summary["b"].songs == 0


def test_a_song_with_a_hole_is_told_from_one_without():
    tone = chord([60], 4 * RATE, RATE)
    holes = [torch.cat([tone, torch.zeros(round(seconds * RATE)), tone]) for seconds in (1.8, 2.2)]
    assert [measure_song(song, RATE).long_silence for song in holes] == [0.0, 1.0]
