"""Words given to `generate`: what each prior is told of them, window by window."""

import pytest
import torch

from fast_jukebox.generation.metadata import (
    check_labels,
    check_song_lyrics,
    draw_metadata,
    encode_metadata,
    level_metadata,
    window_metadata,
    with_window_lyrics,
)
from fast_jukebox.generation.windows import Layout, Window

SONG = {"artist": "Ann Lee", "genre": "Classic Pop", "lyrics": "Where the wind blows, there I go, slowly, on."}


@pytest.fixture
def heard(words_model, monkeypatch):
    """What the top prior was told while it sampled, in its order."""
    told = []
    prior, condition = words_model.priors[2], words_model.priors[2].condition

    def listening(*args, metadata=None, **kwargs):
        told.append(metadata.clone())
        return condition(*args, metadata=metadata, **kwargs)

    monkeypatch.setattr(prior, "condition", listening)
    return told


def told_text(model, row):
    return model.processor.vocabularies[1].lyric_text(row[5:].tolist())


def test_each_window_is_told_its_part_of_the_lyrics(words_model, heard):
    made = words_model.generate(duration=1.2, seed=0, stop_level=2, metadata=SONG)
    samples = 1920
    rows = [told[0] for told in heard[2:]]  # the first two are the check before any sampling
    assert made.audio.shape == (1, samples) and made.dropped_lyrics == [""]
    assert rows[0][:5].tolist() == [samples, 0, 24 * 16, 1, 1]
    assert [int(row[1]) for row in rows] == sorted(int(row[1]) for row in rows)
    for row in rows:
        middle = len(SONG["lyrics"]) * (2 * int(row[1]) + 384) // (2 * samples)
        start = min(max(middle - 6, 0), len(SONG["lyrics"]) - 12)
        assert told_text(words_model, row) == SONG["lyrics"][start : start + 12]
    assert told_text(words_model, rows[0]) == "Where the wi"
    assert SONG["lyrics"].endswith(told_text(words_model, rows[-1]))


def test_a_part_of_a_longer_song(words_model, heard):
    words_model.generate(duration=0.3, seed=0, stop_level=2, metadata={**SONG, "total_duration": 10, "offset": 5})
    row = heard[-1][0]
    assert row[:2].tolist() == [16000, 8000 + int(heard[-1][0, 1]) - 8000]
    assert SONG["lyrics"].index(told_text(words_model, row)) > 10


def test_a_song_that_goes_on_beyond_its_end_is_refused(words_model):
    words_model.generate(duration=0.3, seed=0, stop_level=2, metadata={"total_duration": 0.2})  # within one window
    with pytest.raises(ValueError, match=r"`total_duration` in words.* got 1 seconds for 1.2 seconds from 0.5 on"):
        words_model.generate(duration=1.2, seed=0, metadata={"total_duration": 1, "offset": 0.5})


def test_songs_of_their_own_words_are_those_made_alone(words_model):
    other = {"genre": "hymn", "lyrics": "Amen"}
    both = words_model.generate(duration=0.1, seed=3, metadata=[SONG, other])
    assert both.audio.shape[0] == 2 and both.dropped_lyrics == ["", ""]
    alone = words_model.generate(duration=0.1, seed=3, song_ids=[1], metadata=other)
    for ours, theirs in zip(both.codes, alone.codes, strict=True):
        assert torch.equal(ours[1:], theirs)
    assert not torch.equal(both.codes[2][0], words_model.generate(duration=0.1, seed=3, metadata={}).codes[2][0])


def test_a_stream_is_told_the_same(words_model):
    whole = words_model.generate(duration=0.2, seed=1, metadata=SONG)
    chunks = list(words_model.stream(duration=0.2, seed=1, metadata=SONG))
    torch.testing.assert_close(torch.cat(chunks, dim=1), whole.audio, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="total length"):
        words_model.stream(seed=1, metadata=SONG)


def test_vectors_and_words_are_the_same_song(words_model):
    labels = words_model.processor(SONG).metadata
    by_vector = words_model.generate(duration=0.1, seed=2, metadata=labels)
    by_words = words_model.generate(duration=0.1, seed=2, metadata=SONG)
    assert by_vector.dropped_lyrics is None
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(by_vector.codes, by_words.codes, strict=True))


def test_words_that_nobody_can_read_are_refused(words_model, tiny_model):
    with pytest.raises(ValueError, match="`metadata` must be left out where no prior has labels"):
        tiny_model.generate(duration=0.1, metadata=SONG)
    with pytest.raises(ValueError, match="nearest"):
        words_model.generate(duration=0.1, metadata={"artist": "Nobody"})


def test_without_vocabularies_there_are_lyrics_and_lengths_but_no_names(words_model):
    told = {"lyrics": SONG["lyrics"] + " ♪", "total_duration": 10}
    known = words_model.generate(duration=0.1, seed=2, metadata=told)
    words_model.processor = None
    for metadata in (told, {**told, "artist": "Nobody", "unknown": True}):
        made = words_model.generate(duration=0.1, seed=2, metadata=metadata)
        assert made.dropped_lyrics == ["♪"] and words_model.processor is None
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(made.codes, known.codes, strict=True))
    for song in ({"artist": "Ann Lee"}, [{}, {"genre": ["classic", "pop"]}]):
        with pytest.raises(
            ValueError, match=r"`metadata` must name no artist .* no vocabularies .* got .*(Ann Lee|classic)"
        ):
            words_model.generate(duration=0.1, metadata=song)


def test_vectors_pass_untouched(words_model):
    for given in (None, torch.zeros(1, 5), [None, torch.zeros(1, 5)]):
        assert encode_metadata(words_model, given) == (given, None)


def test_lyrics_must_be_characters(words_model):
    config = words_model.priors[2].config
    labels = torch.zeros((1, 5 + 3), dtype=torch.int64)
    check_song_lyrics("metadata", labels, config)
    check_song_lyrics("metadata", labels[:, :5], config)
    for text, match in ([1, 2, 79], "to 79"), ([-2, 1, 1], "-2"), ([1, -1, 2], "after their end"):
        labels[0, 5:] = torch.tensor(text)
        with pytest.raises(ValueError, match=match):
            check_song_lyrics("metadata", labels, config)
    assert with_window_lyrics(None, config) is None
    assert with_window_lyrics(labels, words_model.priors[0].config) is labels


PAIRS = {("fiddle", "jig"), ("fiddle", "reel"), ("harp", "air")}


def test_labels_that_nobody_asked_for_are_drawn_by_the_seed(paired_model):
    made = paired_model.generate(duration=0.1, seed=5, num_samples=3)
    assert {(song["artist"], song["genre"]) for song in made.metadata} <= PAIRS
    for song in range(3):
        alone = paired_model.generate(duration=0.1, seed=5, song_ids=[song])
        assert alone.metadata == [made.metadata[song]]
        assert torch.equal(alone.audio[0], made.audio[song])
    told = paired_model.generate(duration=0.1, seed=5, num_samples=3, metadata=made.metadata)
    assert told.metadata is None
    assert torch.equal(told.audio, made.audio)


@pytest.mark.parametrize(
    ("told", "partners"),
    [
        ({"artist": "Fiddle"}, {("fiddle", "jig"), ("fiddle", "reel")}),
        ({"genre": "air"}, {("harp", "air")}),
        ({"genre": "jig", "artist": None}, {("fiddle", "jig")}),
    ],
)
def test_what_is_named_alone_is_completed_from_the_known_pairs(paired_model, told, partners):
    made = paired_model.generate(duration=0.1, seed=7, num_samples=4, metadata=told, stop_level=2)
    assert {(song["artist"].lower(), song["genre"]) for song in made.metadata} <= partners
    again = paired_model.generate(duration=0.1, seed=7, num_samples=4, metadata=made.metadata, stop_level=2)
    assert again.metadata is None
    assert torch.equal(again.codes[2], made.codes[2])
    third = paired_model.generate(duration=0.1, seed=7, song_ids=[2], metadata=told, stop_level=2)
    assert third.metadata == made.metadata[2:3]


def test_what_is_told_whole_or_as_unknown_is_left_alone(paired_model):
    for told in ({"artist": "fiddle", "genre": "jig"}, {"unknown": True}, {"artist": "fiddle", "unknown": True}):
        assert paired_model.generate(duration=0.1, seed=7, metadata=told, stop_level=2).metadata is None
    both = [{"artist": "harp"}, {"artist": "fiddle", "genre": "reel"}]
    made = paired_model.generate(duration=0.1, seed=7, metadata=both, stop_level=2)
    assert made.metadata == [{"artist": "harp", "genre": "air"}, both[1]]
    assert made.dropped_lyrics == ["", ""]


@pytest.mark.parametrize("told", [{}, {"total_duration": 30}, {"artist": "", "genre": []}, [{}, {"offset": 1}]])
def test_a_song_that_names_neither_is_drawn_both(paired_model, told):
    made = paired_model.generate(duration=0.1, seed=7, num_samples=2, metadata=told, stop_level=2)
    drawn = draw_metadata(paired_model, [7, 7], [0, 1])
    assert [{kind: song[kind] for kind in ("artist", "genre")} for song in made.metadata] == drawn
    again = paired_model.generate(duration=0.1, seed=7, metadata=made.metadata, stop_level=2)
    assert again.metadata is None and torch.equal(again.codes[2], made.codes[2])


@pytest.mark.parametrize("told", [{"artist": 5}, {"genre": ["jig", None]}, [{"genre": "jig"}, {"artist": ["fiddle"]}]])
def test_names_that_are_no_texts_are_refused_before_others_are_drawn(paired_model, told):
    with pytest.raises(ValueError, match="`(artist|genre)` must be a text"):
        paired_model.generate(duration=0.1, seed=7, metadata=told, stop_level=2)


def test_a_text_alone_is_no_metadata(paired_model):
    with pytest.raises(ValueError, match=r"`metadata` must be a dictionary .* such as \{'genre': 'jig'\}.* got a text"):
        paired_model.generate(duration=0.1, metadata="jig")


def test_a_seed_that_nobody_gave_makes_the_reported_song_again(paired_model):
    made = paired_model.generate(duration=0.1, metadata={"artist": "fiddle"}, stop_level=2)
    again = paired_model.generate(duration=0.1, metadata={"artist": "fiddle"}, seed=made.seed, stop_level=2)
    assert again.metadata == made.metadata and torch.equal(again.codes[2], made.codes[2])


def test_all_pairs_are_drawn_about_equally_often(paired_model):
    drawn = draw_metadata(paired_model, range(600), [0] * 600)
    for artist, genre in PAIRS:
        assert 140 < drawn.count({"artist": artist, "genre": genre}) < 260


def test_a_song_without_end_is_given_a_length(paired_model):
    (words,) = draw_metadata(paired_model, [0], [0], endless=True)
    assert words["total_duration"] > 2 * words["offset"] - 10 > 86000
    chunks = paired_model.stream(seed=0, round_duration=0.2)
    assert next(chunks).isfinite().all()
    chunks.close()


def test_nothing_is_drawn_where_no_pairs_are_known(words_model, tiny_model):
    assert draw_metadata(words_model, [0], [0]) is None
    assert draw_metadata(tiny_model, [0], [0]) is None
    with pytest.raises(ValueError, match="`metadata` must be given"):
        words_model.generate(duration=0.1)


def test_a_session_keeps_what_was_drawn_for_each_song(paired_model, tmp_path):
    session = paired_model.new_session(tmp_path / "session", duration=0.1, num_samples=2, seed=5, stop_level=2)
    drawn = draw_metadata(paired_model, [5, 5], [0, 1])
    assert [session.takes[number].metadata["words"] for number in (1, 2)] == drawn


def test_metadata_reaches_the_priors_that_take_it(stub_model, stub_labelled_model):
    labels = torch.arange(5).unsqueeze(0)
    assert level_metadata(None, stub_model.priors) == [None] * 3
    assert all(torch.equal(own, labels) for own in level_metadata(labels, stub_labelled_model.priors))
    mixed = [stub_model.priors[0], stub_labelled_model.priors[1], stub_labelled_model.priors[2]]
    assert level_metadata([None, labels, labels], mixed)[0] is None
    with pytest.raises(ValueError, match="metadata"):
        level_metadata(labels, stub_model.priors)
    with pytest.raises(ValueError, match=r"metadata\[0\]"):
        level_metadata([labels] * 3, mixed)
    with pytest.raises(ValueError, match="metadata.*bottom"):
        level_metadata(None, stub_labelled_model.priors)
    with pytest.raises(ValueError, match=r"metadata\[1\]"):
        level_metadata([None, None, labels], mixed)
    with pytest.raises(ValueError, match="metadata"):
        level_metadata(labels[:, :4], stub_labelled_model.priors)


def test_a_window_has_its_own_offset_and_length():
    labels = torch.tensor([[0, 0, 2, 8, 9], [5000, 0, 2, 8, 9], [5000, 7, 2, 8, 9], [0, 7, 2, 8, 9]])
    made = window_metadata(labels, Window(1, 12, 4, 20), n_ctx=32, hop_length=4, samples=999)
    assert made[:2].tolist() == [[999, 48, 128, 8, 9], [5000, 48, 128, 8, 9]]
    # What is made may begin within a song.
    assert made[2:].tolist() == [[5000, 55, 128, 8, 9], [1006, 55, 128, 8, 9]]
    assert labels[0].tolist() == [0, 0, 2, 8, 9]
    assert window_metadata(None, Window(1, 12, 4, 20), 32, 4, 999) is None


def test_a_song_without_end_stands_still_at_its_total_length():
    labels = torch.tensor([[400, 0, 0, 8, 9], [100, 0, 0, 8, 9]])
    made = [window_metadata(labels, Window(0, start, 0, 20), 32, 4, None)[:, :3].tolist() for start in (0, 40, 100)]
    assert made[0] == [[400, 0, 128], [100, 0, 128]]
    assert made[1] == [[400, 160, 128], [100, 0, 128]]
    assert made[2] == [[400, 272, 128], [100, 0, 128]]


def test_first_and_last_window_are_checked(stub_labelled_model):
    labels = [torch.tensor([[0, 0, 0, 1, 2]])] * 3
    layouts = [Layout(0, 44, 24, 12), None, Layout(2, 11, 16, 8)]
    check_labels(stub_labelled_model.priors, labels, layouts, [2, 4, 8], 88)
    seen = [[call.metadata[0, :2].tolist() for call in prior.calls] for prior in stub_labelled_model.priors]
    assert seen == [[[88, 0], [88, 40]], [], [[88, 0]]]
    stub_labelled_model.priors[0].config.use_timing = True
    with pytest.raises(ValueError, match="metadata.*total length"):
        check_labels(stub_labelled_model.priors, labels, [Layout(0, None, 24, 12), None, None], [2, 4, 8], None)


def test_lyrics_are_refused_by_models_that_do_not_sing(paired_model):
    for metadata in ({"lyrics": "la la"}, [{"artist": "fiddle", "genre": "jig", "lyrics": "la"}]):
        with pytest.raises(ValueError, match="`lyrics` must be left out.*does not sing"):
            paired_model.generate(duration=0.1, metadata=metadata)
    paired_model.generate(duration=0.1, stop_level=2, metadata={"lyrics": ""})
