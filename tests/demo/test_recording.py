import re

import numpy as np
import pytest
import soundfile
import torch

from fast_jukebox.demo.limits import Limits
from fast_jukebox.demo.recording import continuation, continue_recording, see, trimmed, uploaded

RATE = 1600


@pytest.fixture
def upload(studio):
    """A second of a tone, uploaded."""
    path = studio.uploads_folder / "abc" / "phone.wav"
    path.parent.mkdir()
    soundfile.write(path, 0.4 * np.sin(np.arange(RATE) / 5), RATE, subtype="FLOAT")
    return str(path)


def fields(path, start=0, end=None, seconds=0.5, ways=2, seed="3"):
    return ("tiny", path, start, end, seconds, ways, "", "", "", seed, None)


def test_a_recording_is_continued_as_generate_does_it(studio, upload, tiny_model):
    views = list(continue_recording(studio, "ann", *fields(upload, 0.25, 0.75)))
    assert "Done." in views[-1][0]
    tokens = re.findall(r'src="studio/sound/(\w+)/wav"', views[-1][1])
    assert len(tokens) == 2
    audio = torch.from_numpy(soundfile.read(upload, dtype="float32")[0])
    prompt = audio[round(0.25 * RATE) :]
    expected = tiny_model.generate(duration=1.0, num_samples=2, prompt=prompt, prompt_duration=0.5, seed=3).audio
    for token, song in zip(tokens, expected, strict=True):
        made, _ = soundfile.read(studio.sounds.file(token, "wav"), dtype="float32")
        np.testing.assert_allclose(made, song.clamp(-1, 1), atol=1e-4)
    np.testing.assert_allclose(expected[0, : RATE // 4], prompt[: RATE // 4], atol=1e-3)


def test_a_recording_is_seen_with_its_trim_and_kept_once(studio, upload):
    first, second = see(studio, "tiny", upload, 0, None), see(studio, "tiny", upload, 0.25, 0.5)
    assert 'data-pick="end" data-duration="1.0000"' in first
    assert "#t=0.250,0.500" in second
    assert "0.25 to 0.50 s" in second
    assert len(list(studio.sounds.folder.iterdir())) == 1
    assert see(studio, "tiny", None, 0, None) == ""


def test_a_long_recording_is_read_to_the_bound(studio_of, tiny_model):
    studio = studio_of(Limits(recording=0.5), tiny=tiny_model)
    path = studio.uploads_folder / "long.flac"
    soundfile.write(path, np.zeros(10 * RATE), RATE)
    assert "0.00 to 0.50 s" in see(studio, "tiny", str(path), 0, None)


@pytest.mark.parametrize(
    "name", ["secret.wav", "uploads/../secret.wav", "uploads/link.wav", "uploads", "uploads/a\0b", ""]
)
def test_only_uploads_are_read(studio, name):
    soundfile.write(studio.folder / "secret.wav", np.zeros(RATE), RATE)
    (studio.uploads_folder / "link.wav").symlink_to(studio.folder / "secret.wav")
    with pytest.raises(ValueError, match="Recording is (gone|missing)"):
        uploaded(studio, str(studio.folder / name) if name else name)


def test_what_is_no_sound_is_told_without_the_servers_paths(studio):
    path = studio.uploads_folder / "text.wav"
    path.write_text("no sound")
    shown = see(studio, "tiny", str(path), 0, None)
    assert 'role="alert"' in shown and "text.wav" in shown
    assert str(studio.folder) not in shown


def test_uploads_are_bounded(studio_of, tiny_model):
    studio = studio_of(Limits(upload_bytes=1000), tiny=tiny_model)
    path = studio.uploads_folder / "large.wav"
    path.write_bytes(bytes(1001))
    with pytest.raises(ValueError, match="at most 1,000 bytes"):
        uploaded(studio, str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": 1.0}, "From must be from 0 to 0.95 s"),
        ({"start": 0.5, "end": 0.52}, "To must be at least 0.05 s after From"),
        ({"end": 7}, "To must be from 0 to 1.01 s"),
        ({"seconds": 500}, "Seconds to add must be from 0.05 to 120 s"),
        ({"ways": 5}, "Ways must be a whole number from 1 to 4"),
        ({"ways": 1.5}, "Ways must be a whole number"),
        ({"seed": "x"}, "Seed must be a whole number"),
    ],
)
def test_bad_values_are_told(studio, upload, change, message):
    ((status, result),) = continue_recording(studio, "ann", *fields(**({"path": upload} | change)))
    assert message in status
    assert result is None


def test_the_end_of_a_recording_is_its_default():
    audio = torch.zeros(RATE)
    assert trimmed(audio, RATE, None, "") == (0.0, 1.0)
    assert trimmed(audio, RATE, 0.25, 1.005) == (0.25, 1.0)


def test_the_duration_is_what_is_kept_and_what_is_added(studio, upload):
    asked = continuation(studio, *fields(upload, 0.5, None, 0.5))
    assert asked.request.duration == 1.0
    assert asked.request.prompt_duration == 0.5


def test_a_continuation_that_is_stopped_is_told(studio, upload):
    views = continue_recording(studio, "ann", *fields(upload, seconds=100))
    next(views)
    studio.stop("ann", "continue")
    assert "Stopped; nothing was made." in list(views)[-1][0]
