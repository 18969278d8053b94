import json

import numpy as np
import pytest
import soundfile
import torch

from fast_jukebox import FastJukeboxVQVAE
from fast_jukebox.audio import load_audio
from fast_jukebox.data.codes import load_codes
from fast_jukebox.data.songs import load_songs
from fast_jukebox.utils.workers import MOST_WORKERS
from fast_jukebox_cli.options import _MOST_WORKERS, Sharing
from fast_jukebox_cli.words import read_requests


@pytest.fixture
def songs(tmp_path):
    folder = tmp_path / "songs"
    folder.mkdir()
    for number in range(3):
        tone = 0.5 * np.sin(2 * np.pi * (220 + 40 * number) * np.arange(3 * 8000) / 8000)
        soundfile.write(folder / f"{number}.wav", tone.astype(np.float32), 8000)
    return folder


def test_songs_are_labelled(run, songs):
    arguments = ("label", songs, "--output", "out", "--clip-seconds", 2, "--sampling-rate", 8000, "--labeller", "key")
    found = run(*arguments)
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[-1] == "out"
    assert "clips: 4 of train, 2 of test" in found.stderr or "clips: 2 of train, 4 of test" in found.stderr
    rows = [json.loads(line) for line in (run.folder / "out" / "metadata.jsonl").read_text().splitlines()]
    assert {row["start"] for row in rows} == {0.0, 2.0}
    assert sum(len(split) for split in load_songs(run.folder / "out").values()) == 6
    again = run(*arguments, "--quiet")
    assert again.exit_code == 0 and "labelling" not in again.stderr
    refused = run(*arguments[:-1], "tags")
    assert refused.exit_code == 2
    assert "name another folder" in refused.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--labeller", "loudness"), "`--labeller` must be key, tempo, tags or MODULE:NAME"),
        (("--labeller", "key", "--tempo-centre", 90), "`--tempo-centre` must go with `--labeller tempo`"),
        (("--labeller", "key", "--clip-seconds", 0), "`--clip-seconds` must be from 1 to 3600"),
        (("--labeller", "key", "--test-fraction", 1), "`--test-fraction` must be in [0, 1)"),
        (("--labeller", "key", "--workers", 0), "--workers"),
    ],
)
def test_what_cannot_be_is_told_before_the_first_clip(run, songs, options, message):
    found = run("label", songs, "--output", "out", *options)
    assert found.exit_code == 2
    assert message in found.output
    assert not (run.folder / "out" / "clips").exists() or not list((run.folder / "out" / "clips").iterdir())


def test_songs_are_encoded_as_priors_read_them(run, songs, model_dir):
    arguments = ("encode", songs, "--output", "codes", "--model", model_dir, "--test-fraction", 0.3)
    found = run(*arguments)
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[-1] == "codes" and "train: 1 song," in found.stderr
    codes = load_codes(run.folder / "codes", vqvae=FastJukeboxVQVAE.from_pretrained(model_dir))
    assert len(codes["train"][0]["codes_0"]) == 3 * 1600 // 4
    before = {path: path.stat().st_mtime_ns for path in (run.folder / "codes").glob("*.parquet")}
    assert run(*arguments, "--workers", 2).exit_code == 0
    assert before == {path: path.stat().st_mtime_ns for path in (run.folder / "codes").glob("*.parquet")}
    other = run("encode", songs, "--output", "codes", "--model", model_dir, "--test-fraction", 0.01)
    assert other.exit_code == 2 and "holds codes made with songs" in other.output


def test_many_songs_are_made_the_same_by_any_workers_and_after_any_stop(run, model_dir):
    shared = ("generate-many", "--model", model_dir, "--duration", 0.1, "--batch-size", 2, "--seed", 3, "--output")
    found = run(*shared, "one", "--num-samples", 3)
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[-1] == "one" and "3 songs, seed 3" in found.stderr
    (run.folder / "one" / "song-00001.flac").unlink()
    kept = (run.folder / "one" / "song-00000.flac").stat().st_mtime_ns
    assert run(*shared, "one", "--num-samples", 5).exit_code == 0
    assert (run.folder / "one" / "song-00000.flac").stat().st_mtime_ns == kept
    assert run(*shared, "two", "--num-samples", 5, "--workers", 2).exit_code == 0
    one, two = ({path.name: path.read_bytes() for path in (run.folder / name).iterdir()} for name in ("one", "two"))
    assert one == two and len(one) == 7
    alone = run("generate", "--model", model_dir, "--duration", 0.1, "--seed", 3, "--output", "alone.flac")
    assert alone.exit_code == 0
    assert torch.equal(
        load_audio(run.folder / "alone.flac", 1600), load_audio(run.folder / "two/song-00000.flac", 1600)
    )
    fewer = run(*shared, "one", "--num-samples", 4)
    assert fewer.exit_code == 2 and "`--num-samples` must be at least the number of songs" in fewer.output
    assert len((run.folder / "one" / "metadata.jsonl").read_text().splitlines()) == 5
    refused = run(*shared, "one", "--num-samples", 5, "--temperature", 0.5)
    assert refused.exit_code == 2 and "songs sampled with temperature" in refused.output


def test_many_songs_are_what_is_asked_of_each(run, paired_model, tmp_path):
    paired_model.save_pretrained(tmp_path / "paired")
    shared = ("generate-many", "--model", tmp_path / "paired", "--duration", 0.1, "--quiet", "--output")
    wanted = [{"artist": "harp", "genre": "air"}, {"artist": "fiddle"}]
    (run.folder / "wanted.jsonl").write_text("".join(f"{json.dumps(song)}\n" for song in wanted))
    found = run(*shared, "asked", "--requests", "wanted.jsonl")
    assert found.exit_code == 0, found.output
    rows = [json.loads(line) for line in (run.folder / "asked" / "metadata.jsonl").read_text().splitlines()]
    assert [(row["artist"], row["genre"], row["song"]) for row in rows[:1]] == [("harp", "air", 0)]
    assert (rows[1]["artist"], rows[1]["genre"]) in {("fiddle", "jig"), ("fiddle", "reel")}  # what it was told
    alone = paired_model.generate(duration=0.1, seed=0, song_ids=[1], metadata=wanted[1])
    assert alone.metadata == [{"artist": rows[1]["artist"], "genre": rows[1]["genre"]}]
    assert run(*shared, "drawn", "--num-samples", 6).exit_code == 0
    rows = [json.loads(line) for line in (run.folder / "drawn" / "metadata.jsonl").read_text().splitlines()]
    assert {(row["artist"], row["genre"]) for row in rows} <= {("fiddle", "jig"), ("fiddle", "reel"), ("harp", "air")}
    assert run(*shared, "same", "--num-samples", 2, "--artist", "harp").exit_code == 0
    rows = [json.loads(line) for line in (run.folder / "same" / "metadata.jsonl").read_text().splitlines()]
    assert [(row["artist"], row["genre"]) for row in rows] == [("harp", "air")] * 2


def test_requests_are_lines_as_json_lines_has_them(tmp_path):
    lyrics = "one\u2028two\x85three"
    lines = [{"lyrics": lyrics}, {"genre": "air"}]
    text = "\ufeff" + "\r\n\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (tmp_path / "wanted.jsonl").write_bytes(text.encode())
    assert read_requests(tmp_path / "wanted.jsonl") == lines


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (None, (), "one of `--num-samples` and `--requests` must be given"),
        ('{"artist": "harp"}', ("--num-samples", 2), "one of `--num-samples` and `--requests` must be given"),
        ('{"artist": "harp"}', ("--artist", "harp"), "must be given, the latter without `--artist`"),
        ('{"artist": "harp"}\n{"singer": 1}', (), "wanted.jsonl, line 2: "),
        ("\n{", (), "wanted.jsonl, line 2"),
        ('{"artist": "\\ud800"}', (), "wanted.jsonl, line 1"),
        ("\xef", (), "wanted.jsonl, line 1: no UTF-8 text"),
        ("", (), "`--requests` must have a song a line"),
        ('{"artist": "nobody"}', (), "nobody"),
        (None, ("--num-samples", 0), "`--num-samples` must be from 1"),
        (None, ("--num-samples", 1, "--batch-size", 0), "`--batch-size` must be from 1"),
        (None, ("--num-samples", 1, "--temperature", -1), "temperature"),
    ],
)
def test_requests_that_cannot_be_are_refused_before_the_first_song(
    run, paired_model, tmp_path, lines, options, message
):
    paired_model.save_pretrained(tmp_path / "paired")
    if lines is not None:
        (run.folder / "wanted.jsonl").write_text(lines, encoding="latin-1")
        options = (*options, "--requests", "wanted.jsonl")
    found = run("generate-many", "--model", tmp_path / "paired", "--duration", 0.1, "--output", "out", *options)
    assert found.exit_code == 2
    assert message in found.output
    assert not (run.folder / "out").exists()


@pytest.mark.parametrize("command", ["label", "encode", "generate_many", "evaluate"])
def test_ctrl_c_says_that_the_command_resumes(run, command, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    work = {
        "label": "fast_jukebox.labelling.dataset.label_songs",
        "encode": "fast_jukebox.data.songs.load_songs",
        "generate_many": "fast_jukebox_cli.words.song_words",
        "evaluate": "fast_jukebox.evaluation.settings.EvaluationSettings",
    }
    monkeypatch.setattr(work[command], interrupted)
    songs = ("--num-samples", 1) if command == "generate_many" else ("songs",)
    found = run(command.replace("_", "-"), *songs, "--output", "out", *(("--songs", "x") * (command == "evaluate")))
    assert found.exit_code == 130
    assert found.stderr == "fast-jukebox: interrupted; the same command resumes\n"


def test_ray_may_stand_alone_or_with_an_address(run, songs, monkeypatch):
    asked = []

    def label(songs, output, settings, workers, **options):
        asked.append((workers.count, workers.ray))
        return ""

    monkeypatch.setattr("fast_jukebox.labelling.dataset.label_songs", label)
    command = ("label", songs, "--output", "out")
    for options in ((), ("--ray",), ("--ray", "auto"), ("--ray=ray://host:1",), ("--ray", "--quiet"), ("--workers", 3)):
        found = run(*command, *options)
        assert found.exit_code == 0, found.output
    assert asked == [(1, None), (None, ""), (None, "auto"), (None, "ray://host:1"), (None, ""), (3, None)]


@pytest.mark.parametrize(
    ("device", "ray", "there", "gpus"),
    [
        ("auto", "", True, 1),
        ("auto", "", False, 0),
        ("cuda", "", True, 1),
        ("cpu", "", True, 0),
        ("auto", None, True, 0),
    ],
)
def test_on_ray_a_worker_has_the_gpu_that_it_computes_on(monkeypatch, device, ray, there, gpus):
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    assert Sharing(None, ray).chosen(device).gpus == gpus


def test_many_songs_leave_a_folder_of_something_else_alone(run, model_dir):
    mine = run.folder / "mine"
    mine.mkdir()
    (mine / "metadata.jsonl").write_text('{"file_name": "a.wav"}')
    found = run("generate-many", "--model", model_dir, "--duration", 0.1, "--output", "mine", "--num-samples", 1)
    assert (found.exit_code, "`--output` must be a new or empty folder" in found.output) == (2, True)
    assert [path.name for path in mine.iterdir()] == ["metadata.jsonl"]
    assert (mine / "metadata.jsonl").read_text() == '{"file_name": "a.wav"}'


def test_the_options_allow_as_many_workers_as_there_may_be():
    assert _MOST_WORKERS == MOST_WORKERS
