import re

import numpy as np
import pytest
import soundfile
import torch

from fast_jukebox.demo.limits import Limits, within
from fast_jukebox.demo.play import play, song
from fast_jukebox.demo.studio import seed_of


def last(views):
    """The last of each part of a page."""
    shown = {"live": None, "status": None, "result": None}
    for view in views:
        shown |= {name: getattr(view, name) for name in shown if getattr(view, name) is not None}
    return shown


def token_of(result):
    return re.search(r"studio/sound/([0-9a-f]{32})/wav", result)[1]


def test_a_song_is_the_one_of_its_seed(studio, tiny_model):
    shown = last(play(studio, "ann", "tiny", "", "", "", 0.3, "7", None))
    assert "Done." in shown["status"]
    assert "<dd>7</dd>" in shown["result"]
    audio, _ = soundfile.read(studio.sounds.file(token_of(shown["result"]), "wav"), dtype="float32")
    np.testing.assert_allclose(audio, tiny_model.generate(duration=0.3, seed=7).audio[0].clamp(-1, 1), atol=1e-4)


def test_what_is_heard_live_is_the_song(studio):
    views = list(play(studio, "ann", "tiny", "", "", "", 0.3, "7", None))
    token = next(re.search(r"studio/live/(\w+)", view.live)[1] for view in views if view.live)
    heard = np.frombuffer(b"".join(studio.sounds.live(token).chunks()), "<i2") / 32767
    audio, _ = soundfile.read(studio.sounds.file(token_of(views[-1].result), "wav"), dtype="float32")
    np.testing.assert_allclose(heard, audio, atol=2e-4)


def test_labels_that_are_drawn_are_shown(studio_of, paired_model):
    studio = studio_of(paired=paired_model)
    assert studio.model("paired").names("artists") == ["fiddle", "harp"]
    drawn = song(studio, "paired", duration=0.1, seed="3")
    assert drawn.labels in ("jig by fiddle", "reel by fiddle", "air by harp")
    shown = last(play(studio, "ann", "paired", "", "", "", 0.1, "3", None))
    assert drawn.labels in shown["result"]
    assert song(studio, "paired", "jig", "harp", duration=0.1).labels == "jig by harp"
    assert "the five nearest" not in last(play(studio, "ann", "paired", "polka", "", "", 0.1, "3", None))["status"]


def test_lyrics_are_for_models_that_sing_and_what_cannot_be_spelt_is_told(studio_of, words_model, tiny_model):
    studio = studio_of(words=words_model, tiny=tiny_model)
    asked = song(studio, "words", "hymn", "ann lee", "Amen ☃", 0.2, "1")
    assert asked.request.metadata == {"artist": "ann lee", "genre": "hymn", "lyrics": "Amen ☃"}
    assert asked.dropped == "☃"
    assert asked.labels == "hymn by ann lee, with lyrics"
    assert song(studio, "tiny", "hymn", "ann lee", "Amen", 0.2).request.metadata is None


def test_the_temperature_is_that_of_the_top(studio, tiny_model):
    tiny_model.generation_config.temperature = [0.8, 0.9, 1.0]
    assert song(studio, "tiny", temperature=0.5).request.temperature == [0.8, 0.9, 0.5]
    assert song(studio, "tiny").request.temperature == [0.8, 0.9, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "<b>other</b>"}, "Model must be one of tiny, got &#x27;&lt;b&gt;other"),
        ({"duration": 121}, "Duration must be from 0.05 to 120 s, got &#x27;121&#x27;"),
        ({"duration": float("nan")}, "Duration must be"),
        ({"duration": "a/../b"}, "Duration must be"),
        ({"duration": [3]}, "Duration must be"),
        ({"seed": "-1"}, "Seed must be a whole number"),
        ({"seed": 2**70}, "Seed must be a whole number"),
        ({"temperature": 0}, "Temperature must be from 0.1 to 2"),
        ({"lyrics": "la" * 20_000}, "Lyrics must have at most 20000 characters"),
    ],
)
def test_bad_values_are_told_before_anything_is_made(studio, change, message):
    fields = {"model": "tiny", "genre": "", "artist": "", "lyrics": "", "duration": 1, "seed": "", "temperature": 1.0}
    (view,) = play(studio, "ann", *(fields | change).values())
    assert 'role="alert"' in view.status
    assert message in view.status
    assert len(studio.queue) == 0


def test_a_song_that_is_stopped_leaves_what_there_is(studio):
    shown = {}
    for count, view in enumerate(play(studio, "ann", "tiny", "", "", "", 100, "7", None)):
        shown |= {name: part for name, part in vars(view).items() if part is not None}
        if count >= 1 and studio.sounds._live and any(live._data for live in studio.sounds._live.values()):
            studio.stop("ann", "play")
    assert "Stopped" in shown["status"]
    kept = studio.sounds.get(token_of(shown["result"]))
    assert 0 < kept.duration < 100


def test_others_wait_and_see_how_many(studio, busy):
    release = busy(studio)
    views = play(studio, "ann", "tiny", "", "", "", 0.1, "7", None)
    first, second = next(views), next(views)
    assert "In the queue: 1 before you, 2 in all" in second.status
    assert not first.live and not second.live
    assert "not done yet" in next(play(studio, "ann", "tiny", "", "", "", 0.1, "8", None)).status
    release()
    assert "Done." in last(views)["status"]


def test_errors_of_ours_are_told_and_others_only_logged(studio, monkeypatch, caplog):
    assert studio.message(OSError(28, "No space left", str(studio.folder / "x"))) == (
        '[Errno 28] No space left: "the studio\'s folder/x"'
    ) or "the studio's folder" in studio.message(OSError(28, "No space left", str(studio.folder / "x")))
    assert "that should not" in studio.message(KeyError("secret"))
    assert "secret" in caplog.text

    def broken(*args, **kwargs):
        raise KeyError("secret")

    monkeypatch.setattr(type(studio.model("tiny").model), "stream", broken)
    assert "secret" not in last(play(studio, "ann", "tiny", "", "", "", 0.1, "7", None))["status"]


def test_a_browser_that_goes_away_ends_its_song(studio):
    views = play(studio, "ann", "tiny", "", "", "", 100, "7", None)
    next(views), next(views)
    work = studio._works["ann", "play"]
    views.close()
    work.result()
    assert len(studio.queue) == 0


def test_numbers_from_a_browser():
    assert within("X", "3.5", 1, 4) == 3.5
    for value in (True, None, "x", "9" * 400, float("inf"), 0, 5):
        with pytest.raises(ValueError, match="X must be"):
            within("X", value, 1, 4)
    assert seed_of("12") == 12
    assert seed_of(" ") != seed_of(None)


def test_a_studio_of_no_models_or_of_two_of_one_name_is_refused(studio_of, tiny_model, tmp_path):
    from fast_jukebox.demo.models import StudioModel
    from fast_jukebox.demo.studio import Studio

    with pytest.raises(ValueError, match="models"):
        Studio([], tmp_path)
    twice = [StudioModel("a", tiny_model, "a"), StudioModel("a", tiny_model, "b")]
    with pytest.raises(ValueError, match="different names"):
        Studio(twice, tmp_path)
    assert Limits().duration == 120
    assert torch.is_tensor(
        studio_of(tiny=tiny_model).sounds.audio(studio_of(tiny=tiny_model).sounds.add(torch.zeros(9), 9, "x"))
    )
