import re

import pytest

from fast_jukebox.demo.inside import card, estimate, information, sing
from fast_jukebox.demo.models import StudioModel
from fast_jukebox.demo.studio import Studio
from fast_jukebox.models.description import describe_model


@pytest.fixture
def saved(tiny_model, model_dir, tmp_path):
    """A studio of a model that lies in a folder, with a card."""
    (model_dir / "README.md").write_text("---\nlicense: mit\n---\n# Title\n\nA <b>bold</b> card.\n", encoding="utf-8")
    return Studio([StudioModel("tiny", tiny_model, str(model_dir))], tmp_path / "studio")


def test_what_a_model_is_stands_in_tables(saved, tiny_config):
    shown = information(saved, "tiny")
    described = describe_model(saved.model("tiny").source, tiny_config)
    for table in described.tables:
        assert f"<caption>{table.title}</caption>" in shown
    assert shown.count('<th scope="col">') == 6
    assert "license: mit" in shown
    assert "A &lt;b&gt;bold&lt;/b&gt; card." in shown
    assert 'role="alert"' in information(saved, "other")


def test_the_card_is_shown_without_its_metadata(saved, model_dir):
    assert card(saved, "tiny").strip().startswith("# Title")
    (model_dir / "README.md").write_text("---\nlicense: mit\n---\nSee ![a tone](https://example.com/tone.png).")
    assert card(saved, "tiny").strip() == "See *Picture: a tone*."
    (model_dir / "README.md").unlink()
    assert card(saved, "tiny") == "This model has no card."
    assert "Model must be one of tiny" in card(saved, "<b>")
    assert "<b>" not in card(saved, "<b>")


def test_an_estimate_comes_before_long_work(saved):
    views = list(estimate(saved, "ann", "tiny", 60, 2, "full"))
    assert "Measured." in views[-1][0]
    shown = views[-1][1]
    assert "2 songs of 60 s by tiny on cpu" in shown
    assert re.findall(r'<th scope="row">(\w+)</th>', shown) == ["top", "middle", "bottom", "decoding"]
    draft = list(estimate(saved, "ann", "tiny", 60, 1, "draft"))[-1][1]
    assert re.findall(r'<th scope="row">(\w+)</th>', draft) == ["top", "decoding"]


@pytest.mark.parametrize(("duration", "songs"), [(0, 1), (3601, 1), ("x", 1), (60, 0), (60, 1001)])
def test_bad_values_are_told(saved, duration, songs):
    assert 'role="alert"' in list(estimate(saved, "ann", "tiny", duration, songs, "full"))[-1][0]


def test_words_light_up_as_they_are_sung(studio_of, words_model):
    studio = studio_of(words=words_model)
    views = list(sing(studio, "ann", "words", "hymn", "ann lee", "Amen, <b>amen</b>", 1.0, "3"))
    assert "Done." in views[-1][0]
    shown = views[-1][1]
    token = re.search(r"studio/sound/(\w+)/wav", shown)[1]
    assert f'data-words="fj-words-{token}"' in shown and f'id="fj-words-{token}"' in shown
    times = [tuple(map(float, pair)) for pair in re.findall(r'data-start="([\d.]+)" data-end="([\d.]+)"', shown)]
    assert times == sorted(times)
    assert all(start <= end <= 1.1 for start, end in times)
    assert "<b>amen" not in shown
    assert studio.sounds.picture(token, "alignment").read_bytes()[:4] == b"\x89PNG"


def test_singing_needs_a_model_that_sings_and_words(studio_of, words_model, tiny_model):
    studio = studio_of(words=words_model, tiny=tiny_model)
    assert "takes no lyrics" in list(sing(studio, "ann", "tiny", "", "", "Amen", 1.0, "3"))[-1][0]
    assert "Lyrics are missing" in list(sing(studio, "ann", "words", "", "ann lee", "", 1.0, "3"))[-1][0]
