import threading
import time

import numpy as np
import pytest
import soundfile
import torch

from fast_jukebox.demo.sounds import Live, Sounds, is_token, new_token, waveform


@pytest.fixture
def sounds(tmp_path):
    return Sounds(tmp_path / "sounds", 3, 10**6, 2.0)


def test_names_cannot_be_guessed_and_others_are_no_path():
    assert is_token(new_token())
    assert len({new_token() for _ in range(100)}) == 100
    for text in ("", "..", "../" + "a" * 32, "a" * 31, "A" * 32, "a" * 33, "a" * 31 + "\n", None, 3):
        assert not is_token(text)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_a_sound_comes_back_in_every_format_with_its_tags(sounds, sound, suffix):
    kept = sounds.add(sound, 8000, "Jig by Fiddle! 7", {"title": "a jig"})
    assert (kept.title, kept.duration, kept.formats) == ("jig-by-fiddle-7", 1.0, ("wav", "flac", "mp3"))
    assert sounds.get(kept.token) == kept
    path = sounds.file(kept.token, suffix)
    audio, rate = soundfile.read(path, dtype="float32")
    assert rate == 8000
    assert len(audio) == 8000
    if suffix != "mp3":
        np.testing.assert_allclose(audio, sound, atol=1 / 32000)
    assert soundfile.SoundFile(path).title == "a jig"


def test_formats_and_pictures_that_a_sound_cannot_have(sounds):
    kept = sounds.add(torch.zeros(100), 1600, "song")
    assert kept.formats == ("wav", "flac")
    assert not kept.has_notes
    assert sounds.file(kept.token, "mp3") is None
    assert sounds.file(kept.token, "json") is None
    assert sounds.picture(kept.token, "notes") is None
    assert sounds.picture(kept.token, "facts") is None
    assert sounds.file("../sounds", "wav") is None
    assert sounds.file(new_token(), "wav") is None


@pytest.mark.parametrize("kind", ["notes", "spectrogram"])
def test_pictures_are_drawn_when_asked_for(sounds, sound, kind):
    kept = sounds.add(sound, 8000, "song")
    path = sounds.picture(kept.token, kind)
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert path.stat().st_mtime == sounds.picture(kept.token, kind).stat().st_mtime


def test_the_oldest_make_room(sounds, sound):
    kept = []
    for _ in range(5):
        kept.append(sounds.add(sound, 8000, "song"))
        time.sleep(0.01)
    assert [sounds.get(each.token) is not None for each in kept] == [False, False, True, True, True]


def test_room_is_counted_in_bytes_too(tmp_path, sound):
    sounds = Sounds(tmp_path / "sounds", 100, 45_000, 2.0)
    first = sounds.add(sound, 8000, "song")
    time.sleep(0.01)
    second = sounds.add(sound, 8000, "song")
    time.sleep(0.01)
    third = sounds.add(sound, 8000, "song")
    assert sounds.get(first.token) is None
    assert sounds.get(second.token) and sounds.get(third.token)


def test_every_listener_hears_live_sound_from_its_beginning(sound):
    live, heard = Live(8000, 10.0), {}

    def listen(name):
        heard[name] = b"".join(live.chunks())

    listeners = [threading.Thread(target=listen, args=(name,), daemon=True) for name in "ab"]
    listeners[0].start()
    live.write(sound[:1000])
    listeners[1].start()
    live.write(2 * sound[1000:])
    live.end()
    for each in listeners:
        each.join(10)
    expected = torch.cat([sound[:1000], (2 * sound[1000:]).clamp(-1, 1)])
    for data in heard.values():
        np.testing.assert_allclose(np.frombuffer(data, "<i2") / 32767, expected, atol=1e-4)


def test_live_sound_is_bounded_and_the_oldest_ends(sounds):
    token, live = sounds.new_live(100)
    live.write(torch.zeros(100_000))
    live.end()
    assert len(b"".join(live.chunks())) == 2 * 2 * 100
    assert sounds.live(token) is live
    others = [sounds.new_live(100) for _ in range(32)]
    assert sounds.live(token) is None
    assert sounds.live(others[-1][0]) is others[-1][1]


def test_a_waveform_has_every_peak():
    audio = torch.zeros(10_000)
    audio[1234], audio[8765] = 0.9, -0.7
    low, high = waveform(audio, 50)
    assert (len(low), len(high)) == (50, 50)
    assert (max(high), min(low)) == (0.9, -0.7)
    assert high.index(0.9) == 1234 * 50 // 10_000
    assert waveform(torch.zeros(0)) == ((), ())
