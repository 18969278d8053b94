import copy
import json
import logging
import re
import shlex
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox import FastJukeboxModel, FastJukeboxProcessor
from fast_jukebox.processing import LabelVocabulary, LevelLabels
from fast_jukebox.processing.vocabulary import FIELDS

SONG = {"artist": "Ann Lee", "genre": "Classic Pop", "lyrics": "Lo, là", "total_duration": 10, "offset": 2.5}


@pytest.fixture
def processor(words_config, words_files):
    return FastJukeboxProcessor.from_vocabulary_files(words_config, **words_files)


def test_each_level_has_its_own_words(processor):
    labels = processor(SONG)
    below, middle, top = labels.metadata
    assert below.tolist() == middle.tolist() == [[16000, 4000, 0, 1, 2, 1, -1]]
    assert top[0, :5].tolist() == [16000, 4000, 0, 1, 1]
    assert processor.vocabularies[processor.levels[2].vocabulary].lyric_text(top[0, 5:].tolist()) == "Lo, la"
    assert labels.dropped == [""]
    assert processor.levels[0].label_length == 7


@pytest.mark.parametrize("field", ["vocabulary", "max_genres", "lyric_length"])
@pytest.mark.parametrize("value", [-1, 10**30, 1.5, True, "3", None])
def test_numbers_that_no_level_has_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"`{field}` must be an integer from [01] to 1000000, got"):
        LevelLabels(**{field: value})


def test_several_songs_at_once(processor, caplog):
    with caplog.at_level(logging.WARNING):
        labels = processor([SONG, {}, {"artist": "nobody", "unknown": True, "lyrics": "♪ la ♪"}])
    top = labels.metadata[2]
    assert top.shape == (3, 5 + 6)
    assert top[1].tolist() == [0, 0, 0, 0, 0, *[-1] * 6]
    assert top[2, 3:5].tolist() == [0, 0] and (top[2, 5:] >= 0).sum() == 4
    assert labels.dropped == ["", "", "♪♪"]
    assert "song 2, 2 characters" in caplog.text and "♪" in caplog.text


def test_unknown_names(processor):
    with pytest.raises(ValueError, match=r"'zoe' of 'Zoe'|got 'zoe'.*prior of level 0"):
        processor({"artist": "zoe"})  # known at the top only
    below, _, top = processor({"artist": "zoe"}, unknown=True).metadata
    assert below[0, 3] == 0 and top[0, 3] == 4
    with pytest.raises(ValueError, match="nearest are"):
        processor({"artist": "zoe", "unknown": False}, unknown=True)
    with pytest.raises(ValueError, match="`genre` must be at most 3 words.*level 0"):
        processor({"genre": "slow classic folk pop"})
    for nothing in ([], ["Ann"]):
        with pytest.raises(ValueError, match="`metadata`"):
            processor(nothing)


def test_saved_and_loaded_alone_and_by_auto(processor, tmp_path):
    from transformers import AutoProcessor

    paths = processor.save_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["processor_config.json", "vocabulary.json"]
    assert len(paths) == 2
    for loaded in (
        FastJukeboxProcessor.from_pretrained(tmp_path / "saved"),
        AutoProcessor.from_pretrained(tmp_path / "saved"),
    ):
        assert type(loaded) is FastJukeboxProcessor
        assert vars(loaded) == vars(processor)
        assert torch.equal(loaded(SONG).metadata[2], processor(SONG).metadata[2])


def test_it_goes_with_the_model(words_model, tmp_path):
    words_model.save_pretrained(tmp_path / "model")
    loaded = FastJukeboxModel.from_pretrained(tmp_path / "model")
    assert vars(loaded.processor) == vars(words_model.processor)
    for level, prior in enumerate(loaded.priors):
        prior.save_pretrained(tmp_path / f"prior-{level}")
    parts = [tmp_path / f"prior-{level}" for level in range(3)]
    assert FastJukeboxModel.from_levels(loaded.vqvae, parts).processor is None
    for level, part in enumerate(parts):
        loaded.processor.only(level).save_pretrained(part)
    for sources in (parts, [tmp_path / "model"] * 3):
        joined = FastJukeboxModel.from_levels(loaded.vqvae, sources)
        assert vars(joined.processor) == vars(words_model.processor)


def test_the_layout_of_transformers_4_is_read(words_model, words_files, tmp_path):
    def names(kind):
        older, newer = (path.read_text(encoding="utf-8").splitlines() for path in words_files[kind])
        pairs = [(f"{line.split(';')[0]}.v2", int(line.split(";")[1])) for line in older]
        return dict(pairs + [(line.split(";")[0], int(line.split(";")[1])) for line in newer])

    own, words_model.processor = words_model.processor, None
    words_model.save_pretrained(tmp_path / "model")
    for kind in ("artists", "genres"):
        (tmp_path / "model" / f"{kind}.json").write_text(json.dumps(names(kind)), encoding="utf-8")
    loaded = FastJukeboxModel.from_pretrained(tmp_path / "model")
    assert vars(loaded.processor) == vars(own)


def test_published_lists_that_do_not_fit_are_left_alone(words_model, words_files, tmp_path, caplog):
    own, words_model.processor = words_model.processor, None
    words_model.save_pretrained(tmp_path / "model")
    for path in [*words_files["artists"], *words_files["genres"]]:
        shutil.copy(path, tmp_path / "model")
    assert vars(FastJukeboxModel.from_pretrained(tmp_path / "model").processor) == vars(own)
    for version in ("v2", "v3"):
        (tmp_path / "model" / f"{version}_artist_ids.txt").write_text("somebody;99\n")
    assert FastJukeboxModel.from_pretrained(tmp_path / "model").processor is None
    assert "cannot be used: `artists` must hold a list of at most 4 ids" in caplog.text


def test_a_processor_without_names_tells_of_lyrics_and_lengths(words_config, processor):
    nameless = FastJukeboxProcessor.without_names(words_config)
    nameless.check(words_config)
    told = {"lyrics": "Lo, là", "total_duration": 10, "offset": 2.5}
    for ours, theirs in zip(nameless(told).metadata, processor(told).metadata, strict=True):
        assert torch.equal(ours, theirs)
    assert nameless({**SONG, "unknown": True}).metadata[0].tolist() == [[16000, 4000, 0, 0, 0, 0, -1]]
    words_config.prior_configs[2].lyric_vocab_size = 10  # of characters that nobody knows
    labels = FastJukeboxProcessor.without_names(words_config)(told)
    assert labels.metadata[2].tolist() == [[16000, 4000, 0, 0, 0]] and labels.dropped == ["Lo, là"]


def test_the_processor_of_another_model_is_refused_with_its_file_and_what_to_do(words_config, processor, tmp_path):
    processor.only(0).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"processor_config.json of `.*` is of another model: .*`levels`.*3, got 1; save"
    ):
        FastJukeboxProcessor.find(tmp_path, words_config)


def test_models_without_labels_have_none(tiny_model, tmp_path, processor):
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    assert FastJukeboxModel.from_pretrained(tmp_path / "model").processor is None


def test_a_compilations_own(words_config):
    rows = [{"artist": "Ann", "genre": "Slow Pop"}, {"artist": "Bob", "genre": None}]
    with pytest.raises(ValueError, match="`num_genres`|`lyric_vocab_size`"):
        FastJukeboxProcessor.from_metadata(rows * 1 + [{"genre": "a b c d e f g"}], words_config)
    top = words_config.prior_configs[2]
    processor = FastJukeboxProcessor.from_metadata(rows, top)
    assert processor({"artist": "bob", "genre": "slow pop"}).metadata[0][0, 3:].tolist() == [2, 1]
    own, vocabulary = processor.for_prior(top)
    assert own.lyric_length == 12 and len(vocabulary.characters) == 78
    with pytest.raises(ValueError, match="max_genres"):
        processor.for_prior(words_config.prior_configs[0])


@pytest.mark.parametrize(
    ("name", "value"), [("num_artists", 3), ("num_genres", 2), ("lyric_length", 16), ("lyric_vocab_size", 80)]
)
def test_it_must_fit_the_model(processor, words_config, name, value):
    processor.check(words_config)
    setattr(words_config.prior_configs[2], name, value)
    with pytest.raises(ValueError, match=f"`{name}` of the prior of level 2"):
        processor.check(words_config)


def test_other_misfits(processor, words_config, tiny_config, words_files):
    with pytest.raises(ValueError, match="`levels` have labels for level 0"):
        processor.check(tiny_config)
    with pytest.raises(ValueError, match="`levels` must be as many as the model's, 1, got 3"):
        processor.check(words_config.prior_configs[0])
    with pytest.raises(ValueError, match="`level` must be from 0 to 2"):
        processor.only(3)
    with pytest.raises(ValueError, match="one level each"):
        FastJukeboxProcessor.join([processor])
    with pytest.raises(ValueError, match="sampling rate"):
        FastJukeboxProcessor.join([None])
    small = copy.deepcopy(words_config.prior_configs[0])
    small.num_artists = 2
    with pytest.raises(ValueError, match=r"`artists` must hold a list of at most 2 ids .* got 4, 5"):
        FastJukeboxProcessor.from_vocabulary_files(small, **words_files)
    odd = copy.deepcopy(words_config.prior_configs[2])
    odd.lyric_vocab_size = 10
    with pytest.raises(ValueError, match="`lyric_vocab_size` must be 79 or 80"):
        FastJukeboxProcessor.from_vocabulary_files(odd, **words_files)
    letters = LabelVocabulary({"ann": 1}, {"pop": 1}, characters="abcdefghi")
    assert FastJukeboxProcessor.from_vocabulary(letters, odd)({"lyrics": "bad"}).metadata[0][0, 5:].tolist() == [
        2,
        1,
        4,
    ]
    with pytest.raises(ValueError, match="vocabularies"):
        FastJukeboxProcessor([], processor.levels)


@pytest.mark.parametrize("name", ["processor_config.json", "vocabulary.json"])
@pytest.mark.parametrize(
    "content",
    [
        *("{", "{}", "[]", '{"levels": [{"voice": 1}], "vocabularies": [{"a": 1}]}'),
        '{"levels": [{"max_genres": 0}], "vocabularies": [{"artists": 3}]}',
    ],
)
def test_damaged_files_are_told(processor, tmp_path, name, content):
    processor.save_pretrained(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name}.*(damaged|must hold).*save .* again, or fetch"):
        FastJukeboxProcessor.from_pretrained(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(OSError, match=f"no {name}"):
        FastJukeboxProcessor.from_pretrained(tmp_path)


SMALL = FastJukeboxProcessor(
    [
        LabelVocabulary({"ann_lee": 1}, {"pop": 1, "slow": 2}, genre_words=True),
        LabelVocabulary({"ann lee": 1}, {"slow pop": 1}),
    ],
    [LevelLabels(0, 3), None, LevelLabels(1, 1, 12)],
    1600,
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.text(), max_size=4)
)


@settings(deadline=None)
@given(st.dictionaries(st.one_of(st.sampled_from(FIELDS), st.text(max_size=3)), VALUES), st.booleans())
def test_whatever_is_written_is_encoded_or_refused(song, unknown):
    try:
        below, _, top = SMALL(song, unknown=unknown).metadata
    except ValueError as error:
        assert "`" in str(error)
        return
    assert below.shape == (1, 7) and below[0, 3] in (0, 1) and (below[0, 4:] <= 2).all()
    assert (top[0, 5:] > 0).all() and (top[0, 5:] < 80).all()


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["processor_config.json", "vocabulary.json"]), st.integers(0, 10**6), st.binary(max_size=3))
def test_damage_anywhere_is_a_clear_error_or_none(tmp_path_factory, name, place, bytes_there):
    folder = tmp_path_factory.mktemp("damaged")
    SMALL.save_pretrained(folder)
    content = bytearray((folder / name).read_bytes())
    place %= len(content)
    content[place : place + len(bytes_there)] = bytes_there
    (folder / name).write_bytes(content)
    try:
        FastJukeboxProcessor.from_pretrained(folder)
    except ValueError as error:
        assert str(error)


def test_the_page_runs_as_written(words_model, words_files, tmp_path, monkeypatch, docs_section, capsys):
    """Each snippet on labels in docs, on a tiny model and in tiny durations."""
    from typer.testing import CliRunner

    from fast_jukebox_cli import app as cli

    sections = ("play.md", "Artists, genres and lyrics"), ("train.md", "The priors"), ("train.md", "Labels and lyrics")
    page = "".join(docs_section(*section) for section in sections)
    page = re.sub(r"(\bduration[= ])20\b", r"\g<1>0.05", page)
    words_model.save_pretrained(tmp_path / "my-jukebox")
    words_model.vqvae.save_pretrained(tmp_path / "runs" / "vqvae")
    for level, prior in enumerate(words_model.priors):
        prior.save_pretrained(tmp_path / "runs" / f"prior-{level}")
        words_model.processor.only(level).save_pretrained(tmp_path / "runs" / f"prior-{level}")
    words_model.processor = None
    words_model.save_pretrained(tmp_path / "converted")
    for path in [*words_files["artists"], *words_files["genres"]]:
        shutil.copy(path, tmp_path)
    (tmp_path / "lyrics.txt").write_text("Where the wind blows")
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```(python|bash)\n(.*?)```", page, flags=re.DOTALL)
    assert len(snippets) >= 9
    names = {}
    for language, code in snippets:
        if language == "python":
            exec(compile(code, "docs/play.md", "exec"), names)
            continue
        for line in code.splitlines():
            if line.startswith("fast-jukebox "):
                result = CliRunner().invoke(cli.app, shlex.split(line)[1:])
                assert result.exit_code == 0, result.output
    assert "| text | start | end | attention |" in capsys.readouterr().out
    assert names["model"].processor is not None
    assert {"alignment.csv", "alignment.png", "song.wav"} <= {path.name for path in tmp_path.iterdir()}
