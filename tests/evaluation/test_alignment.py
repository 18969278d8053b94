import csv
import itertools
import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_jukebox import FastJukeboxPrior, FastJukeboxProcessor
from fast_jukebox.evaluation.alignment import LyricsAlignment, lyrics_alignment, monotone_path
from fast_jukebox.evaluation.pictures import plot_alignment

LYRICS = "Where the wind blows,\nthere I go, slowly, on."


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 999))
def test_the_path_is_the_best_of_all_that_never_fall(moments, characters, seed):
    weights = torch.rand(moments, characters, generator=torch.Generator().manual_seed(seed)) ** 3
    path = monotone_path(weights)
    logs = (weights.double() + 1e-6).log()

    def score(chosen):
        return sum(float(logs[moment, character]) for moment, character in enumerate(chosen))

    rising = itertools.combinations_with_replacement(range(characters), moments)
    assert path.tolist() == sorted(path.tolist())
    assert score(path.tolist()) == pytest.approx(max(map(score, rising)))


def singing(weights, text="ab cd", moment=0.5):
    path = monotone_path(weights)
    from fast_jukebox.evaluation.alignment import _times

    return LyricsAlignment(text, *_times(path, len(text), moment, len(path) * moment), weights, path, moment)


def test_times_follow_a_clear_attention(tmp_path):
    # Six moments sing b, b, blank, c, c, d; nothing sings a.
    weights = torch.full((6, 5), 0.01)
    for moment, character in enumerate([1, 1, 2, 3, 3, 4]):
        weights[moment, character] = 0.9
    alignment = singing(weights)
    assert math.isnan(alignment.starts[0]) and alignment.starts[1:] == [0.0, 1.0, 1.5, 2.5]
    assert math.isnan(alignment.ends[0]) and alignment.ends[1:] == [1.0, 1.5, 2.5, 3.0]
    words = alignment.rows("word")
    assert [(row.text, row.start, row.end) for row in words] == [("ab", 0.0, 1.0), ("cd", 1.5, 3.0)]
    assert words[0].attention == pytest.approx(0.9)
    assert [row.text for row in alignment.rows("line")] == ["ab cd"]
    alignment.to_csv(tmp_path / "times.csv")
    with open(tmp_path / "times.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == list("ab cd")
    assert rows[0]["start"] == "" and rows[3] == {"text": "c", "start": "1.500", "end": "2.500", "attention": "0.900"}
    table = alignment.to_markdown("character").splitlines()
    assert table[0] == "| text | start | end | attention |" and table[4] == "| ␣ | 1.000 | 1.500 | 0.900 |"
    assert alignment.to_markdown().splitlines()[2] == "| ab | 0.000 | 1.000 | 0.900 |"
    with pytest.raises(ValueError, match="`unit` must be one of character, word, line"):
        alignment.rows("verse")
    picture = plot_alignment(tmp_path / "alignment.png", alignment)
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_characters_that_are_skipped_have_no_length():
    weights = torch.full((3, 4), 0.01)
    for moment, character in enumerate([0, 3, 3]):
        weights[moment, character] = 0.9
    alignment = singing(weights, "abcd")
    assert alignment.starts == [0.0, 0.5, 0.5, 0.5]
    assert alignment.ends == [0.5, 0.5, 0.5, 1.5]


@pytest.fixture(params=["prefix", "encoder"])
def prior(request, words_config):
    config = words_config.prior_configs[2]
    if request.param == "prefix":
        prefix = {
            "layer_types": ["row", "column", "previous_row", "lyric_prefix"],
            "lyric_encoder_layers": None,
            "alignment_layer": 3,
        }
        config = type(config)(**{**config.to_dict(), **prefix})
    return FastJukeboxPrior(config).eval()


@pytest.fixture
def processor(prior):
    return FastJukeboxProcessor.from_metadata([], prior.config)


@pytest.mark.parametrize("lyrics", [LYRICS, "Amen"])
@pytest.mark.parametrize("length", [10, 24, 61])
def test_attention_is_that_of_the_whole_windows(prior, processor, lyrics, length):
    codes = torch.randint(0, 16, (1, length))
    alignment = lyrics_alignment(prior, codes, {"lyrics": lyrics}, processor, codes_per_moment=1)
    assert alignment.text == lyrics and alignment.attention.shape == (length, len(lyrics))
    config, total = prior.config, length * 16
    starts = sorted({*range(0, max(length - 24, 0), 12), max(length - 24, 0)})
    done = 0
    for start in starts:
        window = codes[:, start : start + 24]
        count = len(lyrics)
        middle = count * (2 * start * 16 + 384) // (2 * total)
        first = min(max(middle - 6, 0), count - 12) if count >= 12 else count - 12
        ids = [processor.vocabularies[0].characters.index(each) + 1 for each in lyrics]
        part = [ids[place] if place >= 0 else 0 for place in range(first, first + 12)]
        metadata = torch.tensor([[total, start * 16, 384, 0, 0, *part]])
        with torch.no_grad():
            whole = prior(window, metadata=metadata, output_attentions=True).attentions[config.alignment_layer]
        own = whole[0, 1, config.lyric_prefix_length :, :12]
        expected = torch.zeros(own.shape[0], count)
        for column, place in enumerate(range(first, first + 12)):
            if place >= 0:
                expected[:, place] = own[:, column]
        end = start + window.shape[1]
        torch.testing.assert_close(alignment.attention[done:end], expected[done - start :], atol=1e-6, rtol=1e-5)
        done = end
    pooled = lyrics_alignment(prior, codes[0], {"lyrics": lyrics}, processor, codes_per_moment=4)
    parts = [part.mean(0) for part in alignment.attention.split(4)]
    torch.testing.assert_close(pooled.attention, torch.stack(parts))
    assert pooled.moment == pytest.approx(4 * 16 / 1600)
    known = [start for start in pooled.starts if not math.isnan(start)]
    assert known == sorted(known) and known[0] == 0.0
    assert max(end for end in pooled.ends if not math.isnan(end)) == pytest.approx(total / 1600)


def test_a_model_aligns_what_it_sang(words_model, tmp_path):
    song = words_model.generate(duration=0.5, seed=0, stop_level=2, metadata={"lyrics": LYRICS})
    alignment = lyrics_alignment(words_model, song.codes[2], {"lyrics": LYRICS})
    assert alignment.text == LYRICS
    assert plot_alignment(tmp_path / "a.png", alignment).stat().st_size > 1000
    empty = lyrics_alignment(words_model, song.codes[2], {})
    assert empty.text == "" and empty.rows() == []
    with pytest.raises(ValueError, match="`alignment` must be of some lyrics"):
        plot_alignment(tmp_path / "b.png", empty)


def test_what_cannot_be_aligned(words_model, tiny_model):
    codes, words = torch.zeros((1, 8), dtype=torch.int64), {"lyrics": "la"}
    for model in (tiny_model, words_model.priors[0]):
        with pytest.raises(ValueError, match="`prior` must be one with lyrics"):
            lyrics_alignment(model, codes, words)
    with pytest.raises(ValueError, match=r"`layer` must be one that attends to lyrics, of \[1\], got 0"):
        lyrics_alignment(words_model, codes, words, layer=0)
    for field, value in (("layer", 4), ("head", -1), ("head", True)):
        with pytest.raises(ValueError, match=f"`{field}` must be from 0 to"):
            lyrics_alignment(words_model, codes, words, **{field: value})
    with pytest.raises(ValueError, match="`codes` must be those of one song"):
        lyrics_alignment(words_model, codes.expand(2, -1), words)
    with pytest.raises(ValueError, match="`codes_per_moment`"):
        lyrics_alignment(words_model, codes, words, codes_per_moment=0)
    with pytest.raises(ValueError, match="`metadata` must be of one song"):
        lyrics_alignment(words_model, codes, [words, words])
    with pytest.raises(ValueError, match="`processor` must be given"):
        lyrics_alignment(words_model.priors[2], codes, words)
    words_model.priors[2].config.alignment_head = None
    with pytest.raises(ValueError, match="no `alignment_head`"):
        lyrics_alignment(words_model, codes, words)


def test_the_page_of_playing_aligns_as_it_is_written(words_model, tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "play.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "lyrics_alignment(" in block]
    monkeypatch.chdir(tmp_path)
    names = {"model": words_model}
    exec(compile(code.replace("duration=20", "duration=0.5"), "play.md", "exec"), names)
    assert {"alignment.csv", "alignment.png"} <= {path.name for path in tmp_path.iterdir()}
    assert [row.text for row in names["alignment"].rows("word")][:3] == ["Where", "the", "wind"]
