import math

import pytest
import torch

from fast_jukebox.evaluation.comparison import compare_pitch, compare_sets
from fast_jukebox.evaluation.distance import frechet_distance, kernel_distance, tag_divergence
from fast_jukebox.evaluation.embeddings import EmbeddingSet
from fast_jukebox.evaluation.pitch import ClipPitch, Key, distance_within, profile_distance


def some_set(songs: int, shift: float = 0.0, seed: int = 0, tags: bool = True, version: str = "1") -> EmbeddingSet:
    generator = torch.Generator().manual_seed(seed)
    windows = torch.randn(songs * 4, 3, generator=generator) + shift
    probabilities = torch.sigmoid(windows[:, :2] - 2)
    return EmbeddingSet(
        "ears", version, windows, torch.arange(songs).repeat_interleave(4), probabilities if tags else None
    )


def test_all_numbers_are_named_after_the_embedding_and_are_those_of_the_plain_functions():
    samples, reference = some_set(10, 1.0), some_set(30, seed=1)
    found = compare_sets(samples, reference)
    assert set(found) == {"frechet_distance_ears", "kernel_distance_ears", "tag_divergence_ears"}
    values = [each.estimate.value for each in found.values()]
    assert values == pytest.approx(
        [
            frechet_distance(samples.windows, reference.windows),
            kernel_distance(samples.windows, reference.windows),
            tag_divergence(samples.tags, reference.tags),
        ]
    )
    for each in found.values():
        assert each.estimate.low < each.estimate.value < each.estimate.high
        assert each.floor.songs == 10
        assert each.floor.value < each.estimate.low


def test_few_windows_have_a_distance_of_another_name():
    found = compare_sets(EmbeddingSet("ears", "1", torch.randn(2, 3), torch.tensor([0, 1])), some_set(30))
    assert set(found) == {"frechet_distance_shrunk_ears", "kernel_distance_ears"}
    assert math.isfinite(found["frechet_distance_shrunk_ears"].estimate.value)


def test_two_songs_have_a_number_but_a_small_reference_no_floor():
    found = compare_sets(some_set(2), some_set(3, seed=1))
    assert all(math.isfinite(each.estimate.value) for each in found.values())
    assert all(math.isnan(each.floor.value) for each in found.values())


def test_a_reference_that_is_mostly_silent_has_floors_by_the_same_yardstick():
    generator = torch.Generator().manual_seed(0)
    windows = torch.cat([torch.zeros(5, 3), torch.randn(5, 3, generator=generator)])
    reference = EmbeddingSet("ears", "1", windows, torch.arange(10))
    found = compare_sets(some_set(4), reference, measures=("kernel_distance",))["kernel_distance_ears"]
    assert math.isfinite(found.floor.value)


@pytest.mark.parametrize("measure", ["frechet_distance", "kernel_distance", "tag_divergence"])
def test_sets_without_numbers_are_refused_by_name(measure):
    broken = some_set(5)
    (broken.tags if measure == "tag_divergence" else broken.windows)[2, 1] = float("nan")
    with pytest.raises(ValueError, match=f"`samples` of {measure} must be finite"):
        compare_sets(broken, some_set(9), measures=(measure,))


def test_unlike_embeddings_and_unknown_measures_are_refused():
    with pytest.raises(ValueError, match="the embedding ears 1, got one made with ears 2"):
        compare_sets(some_set(3), some_set(3, version="2"))
    with pytest.raises(ValueError, match="`measures` must be .*, got 'loudness'"):
        compare_sets(some_set(3), some_set(3), measures=("loudness",))


def test_musicnn_hears_more_noise_as_a_larger_distance_and_other_music_as_none():
    from fast_jukebox.evaluation.controls import random_notes
    from fast_jukebox.evaluation.embeddings import embed_songs
    from fast_jukebox.evaluation.musicnn import MusicnnEmbedding

    def songs(seeds):
        return [random_notes(3, 16000, seed, pitch_classes=(0, 2, 4, 5, 7, 9, 11)) for seed in seeds]

    network = MusicnnEmbedding("musicnn_msd")
    reference = embed_songs(network, songs(range(6)), sampling_rate=16000)
    others, noise = songs(range(10, 14)), torch.randn(4, 48000)
    ladder = []
    for decibels in (-60, -25, -12, 0):
        rms = [song.square().mean().sqrt() * 10 ** (decibels / 20) for song in others]
        noisy = [song + level * hiss for song, level, hiss in zip(others, rms, noise, strict=True)]
        found = compare_sets(embed_songs(network, noisy, sampling_rate=16000), reference, resamples=20)
        ladder.append([found[f"{name}_musicnn_msd"].estimate.value for name in ("kernel_distance", "tag_divergence")])
    for column in zip(*ladder, strict=True):
        assert list(column) == sorted(column)
        assert column[3] > 5 * max(column[0], 0.01)


def test_pitch_content_is_compared_by_the_mean_profiles_with_the_floor_of_as_many_clips():
    def song(tonic, *pitch_classes):
        profile = torch.zeros(12)
        profile[list(pitch_classes)] = 1 / len(pitch_classes)
        return [ClipPitch(Key(tonic, "major"), 1.0, profile, float(len(pitch_classes)))]

    silent = [ClipPitch(Key(0, "major"), math.nan, torch.zeros(12), math.nan)]
    reference = [song(0, 0, 4, 7), song(0, 0, 7), song(0, 0, 4)]
    songs = [song(2, 2, 6), song(2, 2, 9), silent]  # the same as fifths and thirds of C
    found = compare_pitch(songs, reference, resamples=50)
    assert found["pitch_classes"].estimate.value == 2.0 and found["pitch_classes"].estimate.songs == 2
    clips = [clip for each in songs for clip in each]
    expected = profile_distance(clips, [clip for each in reference for clip in each])
    assert found["pitch_distance"].estimate.value == pytest.approx(expected, abs=1e-6) and expected > 0
    assert found["pitch_distance"].floor.value == distance_within(reference, count=3)
    assert compare_pitch([silent], reference) == {}
