"""A folder of songs is made once, whole and resumably, by one process or by several."""

import json

import pytest
import soundfile

from fast_jukebox.audio.io import load_audio
from fast_jukebox.data.tunes import rendering
from fast_jukebox.data.tunes.recipe import SongRecipe
from fast_jukebox.data.tunes.rendering import render_songs

pytestmark = pytest.mark.usefixtures("synthesiser")
RECIPE = SongRecipe(sampling_rate=22050, longest=4.0)


@pytest.fixture
def render(score, tmp_path):
    plan = [(score("tune-1"), 0), (score("tune-1"), 1), (score("tune-2", pitches=[72, 71, 69, 67] * 3), 0)]

    def run(recipe=RECIPE, **options):
        splits = {"tune-1": "train", "tune-2": "test"}
        return render_songs(tmp_path / "songs", plan, splits, recipe, progress=False, **{"processes": 1, **options})

    run.folder = tmp_path / "songs"
    return run


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


def test_songs_are_files_with_rows(render):
    report = render()
    assert [song["file_name"] for song in report.songs] == ["tune-1.1.flac", "tune-1.flac", "tune-2.flac"]
    assert [song["split"] for song in report.songs] == ["train", "train", "test"]
    assert report.rendered == 3 and not report.failed
    assert rows_of(render.folder) == report.songs
    for song in report.songs:
        info = soundfile.info(str(render.folder / song["file_name"]))
        assert (info.samplerate, info.channels, info.subtype) == (22050, 1, "PCM_16")
        assert info.frames / 22050 == pytest.approx(song["duration"], abs=1e-4)
        loudest = load_audio(render.folder / song["file_name"], 22050).abs().max()
        assert 0.7079 * 10 ** (-3 / 20) - 1e-3 < loudest < 0.7079 + 1e-3  # a step of 3 dB below, at most
    assert report.seconds == pytest.approx(sum(song["duration"] for song in report.songs))


def test_finished_songs_are_kept_and_lost_ones_made_again(render):
    render()
    before = {path.name: path.read_bytes() for path in render.folder.iterdir()}
    assert render().rendered == 0
    (render.folder / "tune-1.flac").unlink()
    assert render().rendered == 1
    assert {path.name: path.read_bytes() for path in render.folder.iterdir()} == before


def test_scores_that_are_one_file_on_other_disks_are_refused(score, tmp_path):
    plan = [(score("tune-1"), 0), (score("Tune-1"), 0)]
    with pytest.raises(ValueError, match="scores of `plan` must have names that differ, got 'tune-1' beside 'Tune-1'"):
        render_songs(tmp_path / "songs", plan, {"tune-1": "train", "Tune-1": "train"}, RECIPE, progress=False)


def test_another_recipe_makes_them_again(render):
    render()
    report = render(SongRecipe(seed=5, instruments=("harp",), sampling_rate=22050, longest=4.0))
    assert report.rendered == 3
    assert {song["artist"] for song in rows_of(render.folder)} == {"harp"}


def test_an_interrupted_rendering_goes_on_where_it_was(render, monkeypatch):
    real = rendering.save_audio

    def interrupted(path, *rest):
        if path.name == "tune-2.flac":
            raise KeyboardInterrupt
        return real(path, *rest)

    monkeypatch.setattr(rendering, "save_audio", interrupted)
    with pytest.raises(KeyboardInterrupt):
        render()
    assert sorted(path.name for path in render.folder.iterdir()) == ["metadata.jsonl", "tune-1.1.flac", "tune-1.flac"]
    monkeypatch.setattr(rendering, "save_audio", real)
    report = render()
    assert (report.rendered, len(report.songs)) == (1, 3)


def test_a_song_that_fails_is_named_and_the_rest_is_made(render, monkeypatch):
    real = rendering.render_song

    def render_song(score, *rest, **options):
        if score.name == "tune-2":
            raise ValueError("tune-2 is silent")
        return real(score, *rest, **options)

    monkeypatch.setattr(rendering, "render_song", render_song)
    report = render()
    assert report.failed == {"tune-2": "tune-2 is silent"}
    assert report.rendered == 2


@pytest.mark.slow
def test_two_processes_make_the_same_songs(render):
    render()
    before = {path.name: path.read_bytes() for path in render.folder.iterdir()}
    for path in render.folder.iterdir():
        path.unlink()
    render(processes=2)
    assert {path.name: path.read_bytes() for path in render.folder.iterdir()} == before
