import re

import numpy as np
import pytest
import torch

from fast_jukebox.demo import compose
from fast_jukebox.demo.limits import Limits
from fast_jukebox.demo.songs import ComposedSong, remember_song, songs_of, sound_name
from fast_jukebox.demo.sounds import new_token


def draft(studio, model="tiny", title="My song", duration=1.0, genre="", artist="", visitor="ann"):
    steps = list(compose.draft(studio, visitor, title, model, genre, artist, "", duration, "7", None))
    assert "Done." in steps[-1].status, steps[-1].status
    return steps[-1].key


def last(steps):
    steps = list(steps)
    assert "Done." in steps[-1].status, steps[-1].status
    return steps[-1]


def branch(studio, key, selected=1, ways=4, seconds=0.5, genre="", artist="", temperature=1.0):
    return compose.branch(studio, "ann", key, selected, ways, seconds, genre, artist, "", temperature)


def test_a_draft_is_the_top_level_of_its_seed(studio, tiny_model):
    song = ComposedSong.open(studio, draft(studio))
    take = song.session.take(1)
    assert (song.record.title, song.level(take)) == ("My song", 2)
    expected = tiny_model.generate(duration=1.0, seed=7, stop_level=2)
    assert torch.equal(song.session.codes(1)[2], expected.codes[2])
    heard = studio.sounds.audio(song.sound(take))
    np.testing.assert_allclose(heard, expected.audio[0].clamp(-1, 1), atol=1e-4)


def test_four_branches_are_kept_cut_and_finished(studio):
    key = draft(studio)
    last(branch(studio, key))
    assert len(ComposedSong.open(studio, key).session.takes) == 5
    tree, view, branches = compose.shown(studio, compose.opened(studio, key))
    assert tree.count('data-action="select"') == 5
    assert view.count("<audio") == 1
    assert branches.count("<audio") == branches.count('data-action="keep"') == 4
    assert branches.count("new from here; before it, take 1") == 4
    step = list(compose.act(studio, "ann", key, 1, "keep", "3"))[-1]
    assert step.selected == 3
    assert ComposedSong.open(studio, key).session.kept.number == 3
    step = last(compose.cut(studio, "ann", key, 3, 1.25))
    assert step.selected == 6
    last(branch(studio, key, 6, ways=1))
    step = last(compose.finish(studio, "ann", key, 6, 0, 0))
    song = ComposedSong.open(studio, key)
    assert song.level(song.session.take(6)) == 0
    assert song.level(song.session.take(3)) == 2
    assert "full" in compose.shown(studio, step)[0]
    assert list(compose.act(studio, "ann", key, 6, "select", "1"))[-1].selected == 1  # back to any take


def test_a_part_is_finished_with_the_codes_of_the_whole(studio):
    key = draft(studio)
    last(compose.finish(studio, "ann", key, 1, 0.25, 0.5))
    song = ComposedSong.open(studio, key)
    ((part, sound),) = song.parts(song.session.take(1))
    assert part == [0.25, 0.5]
    assert song.level(song.session.take(1)) == 2
    assert "In full quality from 0.2 to 0.5 s" in compose.shown(studio, compose.opened(studio, key))[1]
    piece = studio.sounds.audio(sound)
    last(compose.finish(studio, "ann", key, 1, 0, None))
    song = ComposedSong.open(studio, key)
    assert song.parts(song.session.take(1)) == []
    whole = studio.sounds.audio(song.sound(song.session.take(1)))
    np.testing.assert_allclose(piece, whole[400:800], atol=1e-3)


def test_a_song_goes_on_with_other_labels(studio_of, paired_model):
    studio = studio_of(paired=paired_model)
    key = draft(studio, "paired", genre="jig", artist="fiddle")
    last(branch(studio, key, ways=1, genre="reel"))
    song = ComposedSong.open(studio, key)
    assert song.labels(song.session.take(1)) == "jig by fiddle"
    assert song.labels(song.session.take(2)) == "reel by fiddle"
    assert "the nearest ar" in list(branch(studio, key, genre="polka"))[-1].status


def test_what_was_stopped_goes_on_to_the_same_codes(studio, tiny_model):
    steps = compose.draft(studio, "ann", "", "tiny", "", "", "", 4, "7", None)
    key = ""
    for count, step in enumerate(steps):
        key = step.key
        if count == 1:
            studio.stop("ann", "compose")
    assert "Stopped" in step.status
    assert "1 take is not finished" in compose.shown(studio, step)[1]
    last(compose.act(studio, "ann", key, 1, "resume", "0"))
    expected = tiny_model.generate(duration=4, seed=7, stop_level=2).codes[2]
    assert torch.equal(ComposedSong.open(studio, key).session.codes(1)[2], expected)


def test_what_was_stopped_is_given_up(studio):
    steps = compose.draft(studio, "ann", "", "tiny", "", "", "", 4, "7", None)
    key = next(steps).key
    steps.close()
    studio._works["ann", "compose"].result()
    assert ComposedSong.open(studio, key).session.jobs
    list(compose.act(studio, "ann", key, 1, "forget", "0"))
    assert not ComposedSong.open(studio, key).session.jobs


def test_sounds_that_made_room_are_made_again(studio):
    import shutil

    key = draft(studio)
    shutil.rmtree(studio.sounds.folder)
    studio.sounds.folder.mkdir()
    assert "Its sound is not at hand." in compose.shown(studio, compose.opened(studio, key))[1]
    last(compose.act(studio, "ann", key, 1, "hear", "1"))
    assert "<audio" in compose.shown(studio, compose.opened(studio, key))[1]


def test_another_studio_on_the_folder_finds_the_songs(studio, studio_of, tiny_model):
    key = draft(studio)
    other = studio_of(tiny=tiny_model)
    assert compose.titles(other, [key, "nothing", None, "../" + key, new_token()]) == [("My song", key)]
    step = compose.opened(other, key)
    assert (step.key, step.selected) == (key, 1)
    tree, view, _ = compose.shown(other, step)
    assert "My song" in tree
    assert "<audio" in view


def test_songs_of_two_visitors_do_not_meet(studio):
    first, second = draft(studio, visitor="ann"), draft(studio, title="Another", visitor="bob")
    last(branch(studio, first))
    assert len(ComposedSong.open(studio, second).session.takes) == 1
    assert first != second


@pytest.mark.parametrize("key", ["", "..", "x" * 32, "../songs/" + "a" * 32, None, 7, ["a"], "0" * 32])
def test_keys_are_no_paths(studio, key):
    draft(studio)
    step = compose.opened(studio, key)
    assert (step.key, step.selected) == ("", 0)
    assert "there is no song of this key" in step.status
    for steps in (
        branch(studio, key),
        compose.cut(studio, "ann", key, 1, 1),
        compose.finish(studio, "ann", key, 1, 0, 0),
    ):
        assert 'role="alert"' in list(steps)[-1].status


def test_titles_are_text(studio):
    key = draft(studio, title='<img src=x onerror="alert(1)">\n../..' + "y" * 200)
    tree, view, _ = compose.shown(studio, compose.opened(studio, key))
    assert "<img src=x" not in tree + view
    assert len(ComposedSong.open(studio, key).record.title) <= 60


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda s, k: branch(s, k, ways=5), "Ways must be a whole number from 1 to 4"),
        (lambda s, k: branch(s, k, seconds=2), "The song&#x27;s duration must be from 0 to 2 s"),
        (lambda s, k: branch(s, k, selected=9), "9"),
        (lambda s, k: compose.cut(s, "ann", k, 1, 0), "Cut at must be from 0.05 to"),
        (lambda s, k: compose.cut(s, "ann", k, 1, 3), "Cut at must be"),
        (lambda s, k: compose.finish(s, "ann", k, 1, 0.9, 0.1), "end"),
        (lambda s, k: compose.act(s, "ann", k, 1, "keep", "x"), "Take must be a whole number"),
        (lambda s, k: compose.draft(s, "ann", "", "tiny", "", "", "", 3, "", None), "Duration must be"),
    ],
)
def test_bad_values_are_told_and_change_nothing(studio_of, tiny_model, act, message):
    studio = studio_of(Limits(duration=2.0, takes=4), tiny=tiny_model)
    key = draft(studio)
    before = ComposedSong.open(studio, key).session.tree()
    assert re.search(message, list(act(studio, key))[-1].status)
    assert ComposedSong.open(studio, key).session.tree() == before


def test_songs_and_takes_are_bounded(studio_of, tiny_model):
    studio = studio_of(Limits(takes=3, songs=1), tiny=tiny_model)
    key = draft(studio)
    assert "a song may have 3 takes" in list(branch(studio, key, ways=4))[-1].status
    steps = list(compose.draft(studio, "ann", "", "tiny", "", "", "", 1, "", None))
    assert "keeps 1 songs already" in steps[-1].status


def test_a_refused_draft_leaves_no_folder(studio, monkeypatch):
    monkeypatch.setattr(type(studio.model("tiny").model), "new_session", lambda *args, **kwargs: 1 / 0)
    steps = list(compose.draft(studio, "ann", "", "tiny", "", "", "", 1, "", None))
    assert 'role="alert"' in steps[-1].status
    assert list(studio.songs_folder.iterdir()) == []


def test_names_of_sounds():
    assert sound_name(3, 2) == "3/2"
    assert sound_name(3, 0, [0.25, 1]) == "3/0/0.25-1"


def test_pages_of_one_browser_share_its_songs(studio):
    browser, (first, second) = new_token(), (draft(studio), draft(studio, title="Second", visitor="bob"))
    remember_song(studio, browser, first)
    remember_song(studio, browser, second)  # by another page, which did not know of the first
    assert songs_of(studio, browser) == [first, second]
    remember_song(studio, browser, first)
    assert songs_of(studio, browser) == [second, first]
    assert [title for title, _ in compose.titles(studio, songs_of(studio, browser))] == ["Second", "My song"]
    for name in ("", None, "../songs", browser[:-1], new_token()):
        assert songs_of(studio, name) == []
    (studio.browsers_folder / f"{browser}.json").write_text("[1, null, {}]")
    assert songs_of(studio, browser) == []


def test_a_song_that_cannot_begin_leaves_nothing_and_says_why(studio, monkeypatch):
    def broken(folder, **request):
        folder.mkdir()
        (folder / "half").touch()
        raise ValueError("no room for a song")

    monkeypatch.setattr(studio.models["tiny"].model, "new_session", broken)
    (step,) = compose.draft(studio, "ann", "", "tiny", "", "", "", 1, "7", None)
    assert "no room for a song" in step.status and not list(studio.songs_folder.iterdir())
