import pytest
import soundfile

from fast_jukebox_cli.options import Words
from fast_jukebox_cli.words import song_words


def words(offset=None, **given):
    return song_words(Words(**given), offset)


def test_options_become_metadata(tmp_path):
    assert words() is None
    assert words(unknown=True) == {"unknown": True}
    assert words(artist="Ann", genre="pop", lyrics="la\\nla", total_duration=60.0) == {
        "artist": "Ann", "genre": "pop", "lyrics": "la\nla", "total_duration": 60.0,
    }  # fmt: skip
    (tmp_path / "lyrics.txt").write_bytes("\ufeffOne\ntwo".encode())
    assert words(lyrics_file=tmp_path / "lyrics.txt") == {"lyrics": "One\ntwo"}


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="`--lyrics` must not"):
        words(lyrics="la", lyrics_file=tmp_path)
    with pytest.raises(FileNotFoundError, match="`--lyrics-file`"):
        words(lyrics_file=tmp_path / "none.txt")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="UTF-8"):
        words(lyrics_file=tmp_path / "bad.txt")
    (tmp_path / "long.txt").write_bytes(b"a" * (2**20 + 1))
    with pytest.raises(ValueError, match="bytes"):
        words(lyrics_file=tmp_path / "long.txt")
    with pytest.raises(ValueError, match="offset"):
        words(offset=-1.0)


@pytest.fixture
def words_dir(words_model, tmp_path):
    words_model.generation_config.duration = 0.05
    words_model.save_pretrained(tmp_path / "words-model")
    return tmp_path / "words-model"


def test_a_command_sings_words(run, words_dir, words_model):
    (run.folder / "lyrics.txt").write_text("Where the wind blows ♪")
    result = run(
        "generate", "--model", words_dir, "--seed", 1, "--artist", "Ann Lee", "--genre", "classic pop",
        "--lyrics-file", "lyrics.txt", "--total-duration", 10,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    audio, _ = soundfile.read(run.folder / "song.wav", dtype="float32")
    metadata = {
        "artist": "Ann Lee", "genre": "classic pop", "lyrics": "Where the wind blows", "total_duration": 10,
    }  # fmt: skip
    expected = words_model.generate(seed=1, metadata=metadata).audio[0].clamp(-1, 1).numpy()
    assert abs(audio - expected).max() < 1 / 16000
    assert "1 character of the lyrics was dropped: ♪" in result.stderr


def test_a_command_refuses_unknown_names(run, words_dir):
    result = run("generate", "--model", words_dir, "--artist", "An Lea")
    assert result.exit_code == 2
    assert "nearest" in result.stderr and "ann_lee" in result.stderr
    assert run("generate", "--model", words_dir, "--artist", "An Lea", "--unknown").exit_code == 0


def test_a_command_that_is_told_nothing_makes_a_song_of_nobody_known(run, words_dir, words_model):
    result = run("generate", "--model", words_dir, "--seed", 1, "--quiet")
    assert result.exit_code == 0, result.output
    audio, _ = soundfile.read(run.folder / "song.wav", dtype="float32")
    expected = words_model.generate(seed=1, metadata={}).audio[0].clamp(-1, 1).numpy()
    assert abs(audio - expected).max() < 1 / 16000
    result = run("session", "new", "song", "--model", words_dir, "--draft", "--seed", 1, "--quiet")
    assert result.exit_code == 0, result.output


def test_names_without_vocabularies_are_one_line(run, words_model, tmp_path):
    words_model.processor = None
    words_model.save_pretrained(tmp_path / "nameless")
    result = run("generate", "--model", tmp_path / "nameless", "--duration", 0.05, "--artist", "Ann Lee", "--quiet")
    assert result.exit_code == 2 and "(`--artist` and the like) must name no artist" in result.stderr
    result = run("generate", "--model", tmp_path / "nameless", "--duration", 0.05, "--lyrics", "Slowly", "--quiet")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (["--artist", "Annn"], "`--unknown` takes the unknown one"),
        (["--offset", 3, "--total-duration", 2], "`--offset` must be below `--total-duration`, 2 seconds, got 3"),
        (["--duration", 2, "--total-duration", 1], "(`--artist` and the like) must name a total length"),
    ],
)
def test_what_is_wrong_with_words_is_told_in_options(run, words_dir, told, message):
    result = run("generate", "--model", words_dir, "--quiet", *told)
    assert result.exit_code == 2 and message in result.stderr, result.stderr
