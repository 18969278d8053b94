import math

import pytest
import torch

from fast_jukebox import FastJukeboxPrior
from fast_jukebox.models.prior.conditioning import PriorConditioning, check_codes


def test_labels_make_the_start(make_prior):
    prior = make_prior(num_artists=5, num_genres=4, max_genres=3)
    labels = prior.label_conditioner
    metadata = torch.tensor([[0, 0, 0, 3, 1, -1, 2], [0, 0, 0, 0, -1, -1, -1]])
    start = prior.condition(2, 6, metadata=metadata).start
    genres = labels.genre_embedding.weight
    torch.testing.assert_close(start[0, 0], labels.artist_embedding.weight[3] + genres[1] + genres[2])
    torch.testing.assert_close(start[1, 0], labels.artist_embedding.weight[0])
    assert prior.start_token is None


def test_timing_bins_by_hand(make_prior):
    prior = make_prior(
        num_artists=1,
        num_genres=1,
        use_timing=True,
        timing_bins=8,
        min_duration=2.0,
        max_duration=10.0,
        sampling_rate=100,
    )
    total, offset, window = 600, 300, 240
    metadata = torch.tensor([[total, offset, window, 0, 0]])
    positions = prior.condition(1, 10, metadata=metadata).positions
    labels = prior.label_conditioner
    for t in range(10):
        place = offset + window * t / 24
        bins = [math.floor(8 * (total - 200) / 800), math.floor(8 * place / 1000), math.floor(8 * place / total)]
        wanted = (
            labels.total_length_embedding.weight[bins[0]]
            + labels.absolute_position_embedding.weight[bins[1]]
            + labels.relative_position_embedding.weight[bins[2]]
        )
        torch.testing.assert_close(positions[0, t], wanted)


def test_relative_position_ends_with_the_song(make_prior):
    prior = make_prior(
        num_artists=1,
        num_genres=1,
        use_timing=True,
        timing_bins=4,
        min_duration=1.0,
        max_duration=10.0,
        sampling_rate=100,
    )
    # The window is twice as long as the song: its relative end is 1, so relative positions run over all bins.
    timing = prior.label_conditioner.timing(torch.tensor([[200, 0, 400, 0, 0]]), 24)
    labels = prior.label_conditioner
    rest = labels.total_length_embedding.weight[0]
    for t, relative in ((0, 0), (6, 1), (12, 2), (23, 3)):
        absolute = math.floor(4 * (400 * t / 24) / 1000)
        wanted = rest + labels.absolute_position_embedding.weight[absolute]
        torch.testing.assert_close(timing[0, t], wanted + labels.relative_position_embedding.weight[relative])


def test_conditioning_on_the_level_above_is_normalised_and_of_full_length(make_prior):
    prior = make_prior(upsampling_strides=[2, 2])
    torch.nn.init.ones_(prior.upper_conditioner.norm.weight)
    torch.nn.init.zeros_(prior.upper_conditioner.norm.bias)
    positions = prior.condition(2, 16, upper_codes=torch.randint(0, 13, (2, 4))).positions
    assert positions.shape == (2, 16, 32)
    torch.testing.assert_close(positions.mean(-1), torch.zeros(2, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(positions.var(-1, unbiased=False), torch.ones(2, 16), atol=1e-2, rtol=0)


def test_conditioning_of_a_song_does_not_depend_on_the_batch(make_prior, make_inputs):
    prior = make_prior(upsampling_strides=[2, 2], num_artists=5, num_genres=4, use_timing=True, min_duration=1.0)
    inputs = make_inputs(prior.config, songs=5)
    del inputs["codes"]
    together = prior.condition(5, 24, **inputs)
    for song in range(5):
        alone = prior.condition(1, 24, **{name: value[song : song + 1] for name, value in inputs.items()})
        assert torch.equal(alone.positions, together.positions[song : song + 1])
        assert torch.equal(alone.start, together.start[song : song + 1])
        assert torch.equal(together.songs(song, 1).positions, alone.positions)


def test_condition_without_conditions(make_prior):
    prior = make_prior()
    conditioning = prior.condition(3, 7)
    assert conditioning.positions is None
    assert conditioning.length == 7
    assert torch.equal(conditioning.start, prior.start_token.expand(3, 1, -1))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[1, 2]], "codes.*int64.*list"),
        (torch.ones(1, 2), "codes.*int64.*float32"),
        (torch.ones(1, 2, dtype=torch.int32), "codes.*int64.*int32"),
        (torch.ones(2, dtype=torch.int64), r"codes.*\(batch, length\).*\(2,\)"),
        (torch.tensor([[0, 13]]), r"codes.*from 0 to 12.*13"),
        (torch.tensor([[-1, 5]]), r"codes.*from 0 to 12.*-1"),
    ],
)
def test_bad_codes_are_named(codes, message):
    with pytest.raises(ValueError, match=message):
        check_codes("codes", codes, 13)


def test_ignored_labels_pass():
    check_codes("labels", torch.tensor([[-100, 3]]), 13, ignored=-100)
    with pytest.raises(ValueError, match=r"labels.*or -100.*-99"):
        check_codes("labels", torch.tensor([[-100, -99]]), 13, ignored=-100)


@pytest.mark.parametrize(
    ("length", "upper_codes", "message"),
    [
        (8, None, "upper_codes.*must be given"),
        (8, torch.zeros(2, 3, dtype=torch.int64), r"upper_codes.*\(2, 2\).*\(2, 3\)"),
        (8, torch.zeros(1, 2, dtype=torch.int64), r"upper_codes.*\(2, 2\).*\(1, 2\)"),
        (7, torch.zeros(2, 2, dtype=torch.int64), "upper_codes.*multiple of 4.*7"),
        (8, torch.full((2, 2), 7), r"upper_codes.*from 0 to 6"),
        (8, torch.zeros(2, 2), "upper_codes.*int64"),
    ],
)
def test_bad_upper_codes_are_named(make_prior, length, upper_codes, message):
    prior = make_prior(upsampling_strides=[2, 2], upper_codebook_size=7)
    with pytest.raises(ValueError, match=message):
        prior.condition(2, length, upper_codes=upper_codes)
    with pytest.raises(ValueError, match=message):
        prior(torch.zeros(2, length, dtype=torch.int64), upper_codes=upper_codes)


def test_unwanted_conditions_are_named(make_prior):
    prior = make_prior()
    with pytest.raises(ValueError, match=r"upper_codes.*None"):
        prior.condition(2, 8, upper_codes=torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"metadata.*None"):
        prior.condition(2, 8, metadata=torch.zeros(2, 5, dtype=torch.int64))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (None, "metadata.*must be given"),
        ([88200, 0, 100, 0, 0], r"metadata.*\(1, 6\).*\(1, 5\)"),
        ([88200.0, 0, 100, 0, 0, 0], "metadata.*int64.*float32"),
        ([88200, 0, 100, 5, 0, 0], r"artist.*\[0, 5\).*5"),
        ([88200, 0, 100, -1, 0, 0], r"artist.*\[0, 5\).*-1"),
        ([88200, 0, 100, 0, 4, 0], r"genre.*\[0, 4\).*4"),
        ([88200, 0, 100, 0, 0, -2], r"genre.*-2"),
        ([44099, 0, 100, 0, 0, 0], r"total length.*\[44100, 396900\).*44099"),
        ([396900, 0, 100, 0, 0, 0], "total length.*396900"),
        ([88200, 88200, 100, 0, 0, 0], "offset.*88200"),
        ([88200, -1, 100, 0, 0, 0], "offset.*-1"),
        ([88200, 0, -5, 0, 0, 0], "window length.*-5"),
        ([88200, 0, 400000, 0, 0, 0], "window length.*400000"),
    ],
)
def test_bad_metadata_is_named(make_prior, row, message):
    prior = make_prior(num_artists=5, num_genres=4, max_genres=2, use_timing=True, min_duration=1.0, max_duration=9.0)
    metadata = None if row is None else torch.tensor([row])
    with pytest.raises(ValueError, match=message):
        prior.condition(1, 8, metadata=metadata)
    with pytest.raises(ValueError, match=message):
        prior(torch.zeros(1, 8, dtype=torch.int64), metadata=metadata)


def test_each_genre_has_its_rhythm_counted_from_the_start_of_the_song(make_prior):
    fields = {"num_artists": 5, "num_genres": 4, "max_genres": 3, "use_timing": True, "min_duration": 1.0}
    prior = make_prior(**fields, genre_period=10)
    metadata = torch.tensor([[88200, 7 * 128, 24 * 128, 1, 2, 3, -1], [88200, 768, 24 * 128, 1, -1, -1, -1]])
    conditioner = prior.label_conditioner
    table = conditioner.rhythm_embedding.detach().clone()  # (genres, period, W)
    with_rhythm = conditioner.timing(metadata, 20)
    with torch.no_grad():
        conditioner.rhythm_embedding.zero_()
    added = with_rhythm - conditioner.timing(metadata, 20)
    for position in range(20):
        expected = table[2, (7 + position) % 10] + table[3, (7 + position) % 10]
        torch.testing.assert_close(added[0, position], expected, atol=1e-5, rtol=1e-5)
    assert not added[1].any()


def test_the_rhythm_begins_as_nothing_and_new_genres_have_that_of_the_unknown_one(tiny_config):
    prior = FastJukeboxPrior(tiny_config(num_artists=5, num_genres=4, use_timing=True, genre_period=10))
    table = prior.label_conditioner.rhythm_embedding
    assert table.shape == (4, 10, 32) and not table.any()
    with torch.no_grad():
        table.normal_()
    prior.label_conditioner.grow(5, 6, known_genres=[2])
    grown = prior.label_conditioner.rhythm_embedding
    assert torch.equal(grown[:4], table)
    assert torch.equal(grown[4], table[0]) and torch.equal(grown[5], table[0])
    assert grown.requires_grad


def test_songs_are_taken_apart_and_joined_again(make_prior, make_inputs, lyric_kind):
    prior = make_prior(**lyric_kind)
    inputs = make_inputs(prior.config, 3)
    whole = prior.condition(3, 24, metadata=inputs["metadata"])
    joined = PriorConditioning.joined([whole.songs(song, 1) for song in range(3)])
    for name in ("start", "positions", "lyrics", "lyric_states"):
        one, other = getattr(whole, name), getattr(joined, name)
        assert (one is None and other is None) or torch.equal(one, other)
    assert (whole.lyrics is None) == prior.config.has_lyric_encoder
    assert (whole.lyric_states is None) != prior.config.has_lyric_encoder
    if whole.lyrics is not None:
        assert not whole.positions[:, :8].any()
        assert whole.positions.shape == (3, 32, 32)


def test_parts_are_gathered_as_they_are_joined(make_prior, lyric_kind, make_inputs):
    for fields in (lyric_kind, {"upsampling_strides": [2, 2]}, {}):
        prior = make_prior(**fields)
        inputs = make_inputs(prior.config, 5)
        inputs.pop("codes")
        parts = [
            prior.condition(len(range(5)[songs]), 24, **{name: rows[songs] for name, rows in inputs.items()})
            for songs in (slice(0, 2), slice(2, 4), slice(4, 5))
        ]
        gathered, joined = PriorConditioning.gathered(iter(parts), 5), PriorConditioning.joined(parts)
        for name in ("start", "positions", "lyrics", "lyric_states"):
            own, wanted = getattr(gathered, name), getattr(joined, name)
            assert (own is None and wanted is None) or torch.equal(own, wanted)
        assert gathered.length == joined.length == 24
