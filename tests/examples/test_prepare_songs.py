"""The script renders what its arguments ask for, and says what came of it."""

import json

import pytest

from fast_jukebox.data.songs import load_songs
from fast_jukebox.data.tunes.folk import read_folk_tunes


@pytest.fixture
def main(scripts):
    return scripts["prepare_songs"].main


def test_three_songs_by_given_instruments_in_a_given_key(main, tmp_path, capsys, monkeypatch):
    """They are of a collection of a thousand tunes of every kind."""
    for module in ("music21", "pretty_midi", "tinysoundfont"):
        pytest.importorskip(module)
    tunes = []

    def noting(names):
        scores, skipped = read_folk_tunes(names)
        tunes.append((list(scores), dict(skipped)))
        return scores, skipped

    monkeypatch.setattr("fast_jukebox.data.tunes.recipe.read_folk_tunes", noting)
    folder = tmp_path / "songs"
    arguments = ["--output_dir", str(folder), "--songs", "3", "--instruments", "fiddle", "piano", "--processes", "1"]
    arguments += ["--collections", "ryan", "--genres", "strathspey", "slip jig", "--longest", "20", "--balance", "1"]
    arguments += [
        "--scales",
        "written",
        "--lowest_transposition",
        "1",
        "--highest_transposition",
        "1",
        "--sampling_rate",
        "22050",
    ]
    main(arguments)
    ((scores, skipped),) = tunes
    assert len(scores) > 950
    assert len(scores) + len(skipped) == 1059
    assert {score.genre for score in scores} == {"hornpipe", "jig", "reel", "slip jig", "strathspey"}
    assert len({score.name for score in scores}) == len(scores)
    acacia = next(score for score in scores if score.title == "Acacia Reel")
    assert (acacia.genre, acacia.metre, acacia.tonic, acacia.mode) == ("reel", (2, 4), 7, "major")
    printed = capsys.readouterr().out
    summary = json.loads(printed[printed.index("{") :])
    assert (summary["songs"], summary["rendered_now"], summary["failed"]) == (4, 4, 0)  # two of each kind
    assert summary["fewest_notes_heard"] > 0.8
    rows = [row for split in load_songs(folder).values() for row in split]
    assert {row["genre"] for row in rows} == {"strathspey", "slip jig"}
    assert {row["artist"] for row in rows} <= {"fiddle", "piano"}
    assert {row["collection"] for row in rows} == {"Ryan's Mammoth Collection (1883)"}
    assert all(row["transposition"] % 12 == 1 and row["sampling_rate"] == 22050 for row in rows)
    assert all("TimGM6mb.sf2 (GPL-2.0-only)" in row["license"] for row in rows)
    assert sum(row["duration"] for row in rows) == pytest.approx(summary["seconds"], abs=0.01)
    main(arguments)
    printed = capsys.readouterr().out
    assert json.loads(printed[printed.index("{") :])["rendered_now"] == 0


def test_a_bad_argument_is_named(main, tmp_path):
    with pytest.raises(ValueError, match="`instruments`"):
        main(["--output_dir", str(tmp_path), "--instruments", "kazoo"])
    with pytest.raises(ValueError, match="`songs`"):
        main(["--output_dir", str(tmp_path), "--songs", "0"])
