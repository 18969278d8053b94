import numpy as np
import pytest

pytest.importorskip("music21")
pytest.importorskip("tinysoundfont")


@pytest.fixture
def script(scripts):
    return scripts["prepare_valence_songs"]


def scale(script, mode):
    steps = [0, 2, 4, 5, 7, 9, 11] if mode == "major" else [0, 2, 3, 5, 7, 8, 11]
    notes = tuple(script.ScoreNote(float(index), 1.0, 62 + step, 0) for index, step in enumerate(steps))
    return script.Score("bwv1.1", "a scale", "chorale", "Bach's chorales", 2, mode, (4, 4), notes)


def test_the_mode_changes_degrees_and_the_rest_stays(script):
    major, minor = scale(script, "major"), scale(script, "minor")
    for before, quadrant, after in ((major, "AU", minor), (minor, "DP", major), (major, "DP", major)):
        changed, _ = script.in_manner(before, quadrant, 60)
        assert [note.pitch for note in changed.notes] == [note.pitch for note in after.notes]
        assert changed.mode == after.mode


def test_activated_clips_are_faster_shorter_and_louder(script):
    fast, slow = (script.in_manner(scale(script, "major"), quadrant, 60) for quadrant in ("AP", "DP"))
    assert fast[1].tempo > 2 * slow[1].tempo
    assert fast[0].notes[0].duration == 0.5 * slow[0].notes[0].duration
    player = script.Player(None, 8000)
    loud, soft = (script.play(scale(script, "major"), "piano", quadrant, 3.0, player) for quadrant in ("AP", "DP"))
    assert len(loud) <= 24000
    assert 20 * np.log10(np.abs(loud).max() / np.abs(soft).max()) == pytest.approx(12.0, abs=0.1)


def test_unknown_instruments_are_refused(script, tmp_path):
    with pytest.raises(ValueError, match="`--instruments` must be known"):
        script.main(["--output_dir", str(tmp_path), "--instruments", "kazoo"])
