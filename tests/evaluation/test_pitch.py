import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox.evaluation.controls import chord, random_notes, white_noise
from fast_jukebox.evaluation.notes import find_notes
from fast_jukebox.evaluation.pitch import (
    KEY_PROFILES,
    KEYS,
    SCALES,
    ClipPitch,
    Key,
    analyse_clip,
    analyse_song,
    best_key,
    correlated_key,
    distance_within,
    jensen_shannon,
    mean_profile,
    pitch_class_seconds,
    profile_distance,
)

RATE = 16000
PROFILES = st.lists(st.integers(0, 1000), min_size=12, max_size=12).filter(any)


def clip_of(profile, key=KEYS[0], share=1.0, pitch_classes=7.0):
    profile = torch.as_tensor(profile, dtype=torch.float32)
    return ClipPitch(key, share, profile / profile.sum().clamp_min(1e-9), pitch_classes)


def triads(tonic, minor=False):
    """I, IV, V (major, with the leading note) and I of a key, a second each."""
    third = 3 if minor else 4
    roots = [(0, third), (5, third), (7, 4), (0, third)]
    chords = [[48 + tonic + root, 48 + tonic + root + 7, 60 + tonic + root + own] for root, own in roots]
    return torch.cat([chord(pitches, RATE, RATE) for pitches in chords])


@pytest.mark.parametrize("tonic", range(12))
def test_the_key_of_a_cadence_is_heard(tonic):
    clip = analyse_clip(triads(tonic), RATE)
    assert clip.key == Key(tonic, "major")
    assert clip.in_key_fraction > 0.98
    assert find_notes(triads(tonic), RATE).noted_fraction > 0.95


@pytest.mark.parametrize("tonic", [0, 4, 9])
def test_a_minor_cadence_with_its_leading_note_is_in_harmonic_minor(tonic):
    clip = analyse_clip(triads(tonic, minor=True), RATE)
    assert clip.key == Key(tonic, "harmonic minor")
    assert clip.in_key_fraction > 0.98


def test_notes_of_a_scale_stay_in_it_and_notes_of_all_twelve_do_not():
    within = analyse_song(random_notes(20.0, RATE, pitch_classes=SCALES["major"]), RATE)
    chromatic = analyse_song(random_notes(20.0, RATE), RATE)
    assert min(clip.in_key_fraction for clip in within) > 0.97
    assert max(clip.in_key_fraction for clip in chromatic) < 0.8
    assert min(clip.pitch_classes for clip in chromatic) > 9
    assert max(clip.pitch_classes for clip in within) < 7.3
    again = ClipPitch.from_json(json.loads(json.dumps(chromatic[0].to_json())))
    assert torch.equal(again.profile, chromatic[0].profile)
    assert (again.key, again.pitch_classes) == (chromatic[0].key, chromatic[0].pitch_classes)


def test_noise_has_hardly_a_note():
    noise = white_noise(5.0, RATE)
    clip, notes = analyse_clip(noise, RATE), find_notes(noise, RATE)
    assert float(pitch_class_seconds(notes).sum()) < 0.5
    assert notes.tonal_clarity < 0.02
    assert not clip.has_key
    assert not mean_profile([clip]).any()


def test_silence_has_no_share():
    clip = analyse_clip(torch.zeros(RATE), RATE)
    assert math.isnan(clip.in_key_fraction)
    assert clip.profile.tolist() == [0.0] * 12


def test_the_time_of_notes_is_shared_by_their_strength():
    audio = chord([69], 2 * RATE, RATE)
    seconds = pitch_class_seconds(find_notes(audio, RATE))
    notes = find_notes(audio, RATE)
    assert float(seconds.sum()) == pytest.approx(len(notes.sounding) * notes.hop_seconds)
    assert float(seconds[9]) == pytest.approx(float(seconds.sum()))


def test_every_key_is_known_once_and_relatives_share_their_notes():
    assert len(set(KEYS)) == 36
    assert set(Key(9, "minor").pitch_classes) == set(Key(0, "major").pitch_classes)
    assert Key(9, "minor").relative_major == Key(9, "harmonic minor").relative_major == 0
    assert 8 in Key(9, "harmonic minor").pitch_classes
    assert str(Key(6, "harmonic minor")) == "F# harmonic minor"


@given(PROFILES)
def test_the_best_key_is_the_best_of_all(profile):
    profile = torch.tensor(profile, dtype=torch.float64)
    key, share = best_key(profile)
    shares = [float(profile[list(other.pitch_classes)].sum() / profile.sum()) for other in KEYS]
    assert share == pytest.approx(max(shares))
    assert share == pytest.approx(float(profile[list(key.pitch_classes)].sum() / profile.sum()))
    assert share >= 7 / 12 - 1e-9  # the mean over the twelve transpositions of any scale


@given(PROFILES, st.integers(0, 11))
def test_the_correlated_key_is_that_of_numpy_and_moves_with_the_profile(profile, steps):
    profile = torch.tensor(profile, dtype=torch.float64)
    if len(set(profile.tolist())) == 1:
        assert correlated_key(profile)[1] == 0
        return
    keys = {
        Key(tonic, scale): np.corrcoef(profile.numpy(), np.roll(KEY_PROFILES[scale], tonic))[0, 1]
        for scale in KEY_PROFILES
        for tonic in range(12)
    }
    best, second = sorted(keys.values(), reverse=True)[:2]
    key, lead = correlated_key(profile.roll(steps))
    assert lead == pytest.approx(best - second, abs=1e-9)
    assert keys[Key((key.tonic - steps) % 12, key.scale)] == pytest.approx(best, abs=1e-9)


@given(PROFILES, st.integers(0, 11))
def test_transposition_moves_the_key_and_nothing_else(profile, steps):
    profile = torch.tensor(profile, dtype=torch.float64)
    key, share = best_key(profile)
    moved_key, moved_share = best_key(profile.roll(steps))
    assert moved_share == pytest.approx(share)
    ties = [
        other
        for other in KEYS
        if float(profile[list(other.pitch_classes)].sum() / profile.sum()) == pytest.approx(share, abs=2e-9)
    ]
    assert Key((moved_key.tonic - steps) % 12, moved_key.scale) in ties
    if len({frozenset(other.pitch_classes) for other in ties}) == 1:
        assert moved_key.relative_major == (key.relative_major + steps) % 12


@settings(max_examples=8, deadline=None)
@given(st.integers(-6, 6))
def test_a_transposed_recording_has_the_same_share_and_aligned_profile(steps):
    scale = (0, 2, 4, 5, 7, 9, 11)
    song = [60, 64, 67, 65, 69, 71, 62, 66]  # C major and one F sharp

    def play(shift):
        return torch.cat([chord([pitch + shift], RATE // 2, RATE) for pitch in song])

    here, there = analyse_clip(play(0), RATE), analyse_clip(play(steps), RATE)
    assert (there.key.relative_major - here.key.relative_major - steps) % 12 == 0
    assert there.in_key_fraction == pytest.approx(here.in_key_fraction, abs=0.03)
    assert profile_distance([here], [there]) < 0.02
    assert set(here.key.pitch_classes) == set(scale)


@pytest.mark.parametrize("profile", [torch.zeros(12), torch.ones(11), -torch.ones(12)])
def test_what_is_no_profile_is_refused(profile):
    for find in (best_key, correlated_key):
        with pytest.raises(ValueError, match="profile"):
            find(profile)


def test_songs_are_cut_into_clips_and_a_short_rest_is_left_out():
    audio = chord([60], 5 * RATE, RATE)
    assert len(analyse_song(audio, RATE, clip_seconds=2.0)) == 3  # the last lasts a second
    assert len(analyse_song(audio[: int(4.9 * RATE)], RATE, clip_seconds=2.0)) == 2
    assert len(analyse_song(audio[:RATE], RATE, clip_seconds=2.0)) == 1
    assert analyse_song(audio[:100], RATE) == []


def test_the_mean_profile_is_over_clips_with_a_key():
    clips = [clip_of([1] + [0] * 11, pitch_classes=3.0), clip_of([0] * 11 + [1], pitch_classes=6.0)]
    silent = ClipPitch(KEYS[0], math.nan, torch.zeros(12), math.nan)
    assert mean_profile([*clips, silent]).tolist() == [0.5] + [0.0] * 10 + [0.5]
    assert not mean_profile([silent]).any() and not mean_profile([]).any()


def test_profiles_are_aligned_to_the_key_without_sharps_and_flats():
    d_major = clip_of([0, 0, 1] + [0] * 9, Key(2, "major"))
    b_minor = clip_of([0] * 11 + [1], Key(11, "minor"))
    mean = mean_profile([d_major, b_minor])
    assert mean.tolist() == [0.5] + [0.0] * 8 + [0.5, 0.0, 0.0]  # C and A


@given(PROFILES, PROFILES)
def test_the_divergence_is_symmetric_and_between_0_and_1(first, second):
    p, q = torch.tensor(first).double(), torch.tensor(second).double()
    divergence = jensen_shannon(p, q)
    assert 0 <= divergence <= 1 + 1e-9
    assert divergence == pytest.approx(jensen_shannon(q, p), abs=1e-12)
    assert jensen_shannon(p, 3 * p) == pytest.approx(0, abs=1e-12)


def test_the_divergence_by_hand():
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
    middle = 0.5 * math.log2(1 / 0.75) + 0.25 * math.log2(0.5 / 0.75) + 0.25 * math.log2(0.5 / 0.25)
    assert jensen_shannon(p, q) == pytest.approx(middle)
    assert jensen_shannon(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])) == pytest.approx(1.0)
    assert math.isnan(jensen_shannon(p, torch.zeros(2)))


def test_the_floor_is_zero_for_equal_songs_and_higher_for_few_clips():
    same = [[clip_of([1] * 12)] for _ in range(6)]
    assert distance_within(same) == pytest.approx(0, abs=1e-9)
    generator = torch.Generator().manual_seed(0)
    various = [[clip_of(torch.rand(12, generator=generator)) for _ in range(3)] for _ in range(10)]
    halves, few = distance_within(various), distance_within(various, count=2)
    assert 0 < halves < few
    assert halves == distance_within(various)
    assert math.isnan(distance_within(various[:1]))
