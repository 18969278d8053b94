"""Features of a prior are its layers' states, window by window."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fast_jukebox.models.prior.features_prior import window_starts


def conditions(inputs):
    return {name: value for name, value in inputs.items() if name != "codes"}


def song(prior, make_inputs, length, songs=2):
    """Codes of songs longer than the context, with what the prior is conditioned on."""
    inputs = make_inputs(prior.config, songs=songs)
    inputs["codes"] = torch.randint(0, prior.config.codebook_size, (songs, length))
    if "upper_codes" in inputs:
        size = prior.config.upper_codebook_size or prior.config.codebook_size
        inputs["upper_codes"] = torch.randint(0, size, (songs, length // prior.config.upper_ratio))
    return inputs


def naive(prior, inputs, hop):
    """States (layers, N, L, W): each code's out of the first window that it lies in."""
    config, codes = prior.config, inputs["codes"]
    length, ratio, states = codes.shape[1], config.upper_ratio, []
    for position in range(length):
        start = next(start for start in window_starts(length, config.n_ctx, hop) if position < start + config.n_ctx)
        given = {"codes": codes[:, start : start + config.n_ctx]}
        if "upper_codes" in inputs:
            given["upper_codes"] = inputs["upper_codes"][:, start // ratio : (start + config.n_ctx) // ratio]
        if "metadata" in inputs:
            labels = inputs["metadata"].clone()
            labels[:, 1] += start * config.hop_length
            labels[:, 2] = config.n_ctx * config.hop_length
            given["metadata"] = labels
        with torch.no_grad():
            hidden = prior(**given, output_hidden_states=True).hidden_states
        states.append(torch.stack([layer[:, config.lyric_prefix_length + position - start] for layer in hidden]))
    return torch.stack(states, dim=2)


def test_a_song_of_one_context_has_the_states_of_forward(make_prior, make_inputs, kind):
    assert_are_states(make_prior(**kind), make_inputs)


def test_with_lyrics_too(make_prior, make_inputs, lyric_kind):
    assert_are_states(make_prior(**lyric_kind), make_inputs)


def assert_are_states(prior, make_inputs):
    inputs, depth = make_inputs(prior.config), prior.config.num_hidden_layers
    found = prior.features(**inputs, layers=range(depth))
    with torch.no_grad():
        states = prior(**inputs, output_hidden_states=True).hidden_states
    assert list(found.layers) == list(range(depth)) and found.level == prior.config.level
    for layer in range(depth):
        wanted = states[layer][:, prior.config.lyric_prefix_length :]
        torch.testing.assert_close(found[layer], wanted, atol=1e-5, rtol=1e-5)
        assert found[layer].dtype == torch.float32 and not found[layer].is_inference()
    assert found.frame_rate == prior.config.sampling_rate / prior.config.hop_length


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_songs_of_any_length_are_read_in_windows(make_prior, make_inputs, data):
    fields = data.draw(st.sampled_from([{}, {"upsampling_strides": [2, 2], "level": 0}]))
    prior = make_prior(**fields)
    ratio = prior.config.upper_ratio
    length = ratio * data.draw(st.integers(1, 100 // ratio), label="length")
    overlap = data.draw(st.sampled_from([0.0, 0.3, 0.5, 0.9]), label="overlap")
    inputs = song(prior, make_inputs, length)
    states = naive(prior, inputs, max(int(24 * (1 - overlap)) // ratio, 1) * ratio)
    found = prior.features(**inputs, layers=[0, -1], overlap=overlap)
    torch.testing.assert_close(found[0], states[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[2], states[-1], atol=1e-5, rtol=1e-5)

    rate = found.frame_rate * data.draw(st.floats(0.01, 1.0), label="share")
    frames = prior.features(**inputs, layers=[1], overlap=overlap, frame_rate=rate)
    codes_of = [[] for _ in range(frames[1].shape[1])]
    for position in range(length):
        codes_of[int(position * (rate / found.frame_rate))].append(position)
    for frame, positions in enumerate(codes_of):
        wanted = states[1][:, positions].mean(dim=1)
        torch.testing.assert_close(frames[1][:, frame], wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(frames.times, torch.arange(len(codes_of), dtype=torch.float64) / rate)
    pooled = prior.features(**inputs, layers=[1], overlap=overlap, pool="mean")
    torch.testing.assert_close(pooled[1], states[1].mean(dim=1), atol=1e-5, rtol=1e-4)
    assert pooled.frame_rate is None


def test_labels_move_on_with_the_windows(make_prior, make_inputs):
    labels = {"num_artists": 5, "num_genres": 4, "max_genres": 2}
    prior = make_prior(**labels, use_timing=True, timing_bins=64, min_duration=1.0, max_duration=9.0)
    inputs = song(prior, make_inputs, 80)
    inputs["metadata"][:, 1] = 0
    states = naive(prior, inputs, 12)
    torch.testing.assert_close(prior.features(**inputs, layers=[2])[2], states[2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [4, 30, 60000])
def test_without_labels_songs_of_any_length_are_of_nobody(make_prior, make_inputs, lyric_kind, length):
    # From far under a second to far more than the 9 seconds that the prior can be told of.
    prior = make_prior(**lyric_kind, hop_length=44100 // 100 if length > 24 else 128)
    codes = torch.randint(0, 13, (1, min(length, 1200)))
    found = prior.features(codes, layers=[0], pool="mean")
    assert found[0].isfinite().all()
    labels = torch.zeros(1, prior.config.label_length, dtype=torch.int64)
    labels[:, 5:] = -1
    labels[:, 4] = 0
    torch.testing.assert_close(prior.features(codes, metadata=labels, layers=[0], pool="mean")[0], found[0])


def test_nothing_above_the_highest_layer_runs_and_windows_are_bounded(make_prior, make_inputs):
    prior, seen = make_prior(num_hidden_layers=5), []
    for layer, block in enumerate(prior.blocks):
        block.register_forward_hook(lambda _, inputs, __, layer=layer: seen.append((layer, inputs[0].shape)))
    prior.train()
    prior.features(torch.randint(0, 13, (2, 100)), layers=[2, 0])
    assert {layer for layer, _ in seen} == {0, 1, 2}
    assert {shape for _, shape in seen} == {(1, 24, 32)}
    assert all(module.training for module in prior.modules())


def test_features_do_not_depend_on_the_batch_and_can_be_trained_on(make_prior):
    prior, codes = make_prior(), torch.randint(0, 13, (3, 50))
    together = prior.features(codes, layers=[1], frame_rate=100)[1]
    for index in range(3):
        assert torch.equal(prior.features(codes[index : index + 1], layers=[1], frame_rate=100)[1][0], together[index])
    probe = torch.nn.Linear(32, 2)
    probe(together).sum().backward()
    assert probe.weight.grad.abs().sum() > 0
    assert list(prior.features(codes).layers) == [1]


def test_half_precision_gives_float32(make_prior):
    found = make_prior().to(torch.bfloat16).features(torch.randint(0, 13, (1, 30)), layers=[1])
    assert found[1].dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"layers": [3]}, "`layers` must be integers from -3 to 2, got 3"),
        ({"layers": [True]}, "got True"),
        ({"layers": []}, "at least one layer"),
        ({"layers": -1}, "`layers` must be a list of integers from -3 to 2, got -1"),
        ({"pool": "max"}, "`pool` must be 'mean' or None, got 'max'"),
        ({"pool": "mean", "frame_rate": 3}, "`frame_rate` must be None with `pool`, got 3"),
        ({"frame_rate": 0}, "`frame_rate` must be above 0 and at most 344.531, the rate of the codes, got 0"),
        ({"frame_rate": 345}, "got 345"),
        ({"overlap": 1.0}, r"`overlap` must be in \[0, 1\), got 1.0"),
        ({"codes": torch.full((1, 4), 13)}, "`codes` must hold codes from 0 to 12, got 13 to 13"),
        ({"codes": torch.zeros((1, 0), dtype=torch.int64)}, "at least one song and one code"),
        ({"upper_codes": torch.zeros((1, 4), dtype=torch.int64)}, "`upper_codes` must be None"),
        ({"metadata": torch.zeros((1, 6), dtype=torch.int64)}, "`metadata` must be None: the prior has no labels"),
    ],
)
def test_bad_input_is_named(make_prior, arguments, match):
    with pytest.raises(ValueError, match=match):
        make_prior().features(**{"codes": torch.zeros((1, 4), dtype=torch.int64), **arguments})


def test_layers_are_read_as_they_are_asked_for(make_prior):
    found = make_prior().features(torch.zeros((1, 4), dtype=torch.int64), layers=[-1, 0])
    assert list(found.layers) == [2, 0]
    assert found[-1] is found[2] is found.layers[2] and found[-3] is found[0]
    with pytest.raises(ValueError, match=r"`layers` must name what is read of the features, which hold 2, 0; got -2"):
        found[-2]
    with pytest.raises(ValueError, match="`layers` must be integers from -3 to 2, got 3"):
        found[3]


def test_bad_conditions_are_named(make_prior):
    codes = torch.zeros((1, 8), dtype=torch.int64)
    upsampler = make_prior(upsampling_strides=[2, 2], level=0)
    with pytest.raises(ValueError, match="`upper_codes` must be given"):
        upsampler.features(codes)
    with pytest.raises(ValueError, match=r"shape \(1, 2\) for 1 x 8 codes, got \(1, 3\)"):
        upsampler.features(codes, torch.zeros((1, 3), dtype=torch.int64))
    labelled = make_prior(num_artists=2, num_genres=2)
    with pytest.raises(ValueError, match=r"int64 \(1 or 1, at least 5\), got \(2, 5\)"):
        labelled.features(codes, metadata=torch.zeros((2, 5), dtype=torch.int64))


def test_pooled_features_have_no_times(make_prior):
    with pytest.raises(ValueError, match="`times` must be asked of features with frames"):
        _ = make_prior().features(torch.zeros((1, 4), dtype=torch.int64), pool="mean").times
