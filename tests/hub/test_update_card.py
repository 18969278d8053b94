"""New figures on a card that stands."""

import pytest
from huggingface_hub import ModelCard

from fast_jukebox import hub

ARGUMENTS = {
    "name": "ann/student",
    "description": "A student.",
    "training": "### The top\n\nIn two stages.",
    "metrics": {"bits per code": {"top": 9.5}, "agreement": 0.5},
    "license": "other",
    "license_name": "nc",
    "license_link": "LICENSE.md",
    "base_model": "ann/teacher",
    "datasets": ["ann/songs"],
    "tags": ["knowledge-distillation"],
    "limits": "It plays one voice.",
}


def without(text, *names):
    """The text of a card without some of its sections."""
    parts = text.split("\n## ")
    return "\n## ".join(part for part in parts if part.split("\n")[0] not in names)


def test_all_but_the_figures_is_kept_to_the_letter(tmp_path):
    path = hub.write_model_card(tmp_path, **ARGUMENTS)
    old = ModelCard.load(path)
    assert hub.update_model_card(tmp_path, metrics={"bits per code": {"top": 4.25}}, metrics_note="Anew.") == path
    new = ModelCard.load(path)
    assert without(new.text, "Metrics").strip() == without(old.text, "Metrics").strip()
    assert "| bits per code | top | 4.25 |" in new.text and "Anew." in new.text and "9.5" not in new.text
    assert [result.metric_value for result in new.data.eval_results] == [4.25]
    assert new.data.eval_results[0].dataset_type == "ann/songs"
    for data in (old.data, new.data):
        data.eval_results = None
    assert new.data.to_dict() == old.data.to_dict()
    assert [entry.name for entry in tmp_path.iterdir()] == ["README.md"]


def test_to_renew_twice_is_to_renew_once(tmp_path):
    hub.write_model_card(tmp_path, **ARGUMENTS)
    (tmp_path / "song.png").write_bytes(b"picture")
    texts = [
        hub.update_model_card(tmp_path, metrics={"loss": 1.5}, picture="song.png", training="Anew.").read_text("utf-8")
        for _ in range(2)
    ]
    assert texts[0] == texts[1]
    assert "In two stages." not in texts[0] and "## How it was trained\n\nAnew.\n" in texts[0]
    assert texts[0].index("Anew.") < texts[0].index("![mel spectrogram](song.png)") < texts[0].index("## Metrics")


def test_the_picture_takes_the_place_of_the_one_before(tmp_path):
    (tmp_path / "song.png").write_bytes(b"old")
    hub.write_model_card(tmp_path, picture="song.png", picture_caption="old", **ARGUMENTS)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "song.png").write_bytes(b"new")
    path = hub.update_model_card(tmp_path, metrics={}, picture=tmp_path / "runs" / "song.png", picture_caption="new")
    text = path.read_text(encoding="utf-8")
    assert text.count("](song.png)") == 1 and "![new](song.png)" in text
    assert (tmp_path / "song.png").read_bytes() == b"new"


@pytest.mark.parametrize("end", ["## Limits\n\nMany.\n", ""])
def test_a_card_by_hand_keeps_its_words_and_code(tmp_path, end):
    code = "```python\n## not a heading\nplay()\n```"
    text = f"---\nlicense: mit\nlanguage: en\n---\n# Mine\n\nHello.\n\n## Call\n\n{code}\n\n{end}"
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    path = hub.update_model_card(tmp_path, metrics={"loss": 1.5}, training="Long.")
    card = ModelCard.load(path)
    assert f"Hello.\n\n## Call\n\n{code}\n\n## How it was trained\n\nLong.\n\n## Metrics\n\n|" in card.text
    assert card.text.endswith(f"| 1.5 |\n\n{end}" if end else "| 1.5 |\n") and card.text.count("\n## ") == 4 + bool(end)
    assert (card.data.license, card.data.language, card.data.model_name) == ("mit", "en", "Mine")


@pytest.mark.parametrize("text", [None, "# Mine\n", "---\nlicense: unknown\n---\n# Mine\n", "---\nlicense: [\n---\n"])
def test_a_card_that_is_not_there_or_states_no_license_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "README.md").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="`license`"):
        hub.update_model_card(tmp_path, metrics={"loss": 1.5})
    assert text is None or (tmp_path / "README.md").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(("stated", "read"), [("ann/songs", "ann/songs"), ("[b/c, d]", "b/c"), ("", "audio")])
def test_the_data_may_be_stated_as_one_name_or_a_list(tmp_path, stated, read):
    (tmp_path / "README.md").write_text(f"---\nlicense: mit\ndatasets: {stated}\n---\n# x\n")
    hub.update_model_card(tmp_path, metrics={"bits": 1.0})
    (result,) = ModelCard.load(tmp_path / "README.md").data.eval_results
    assert result.dataset_type == read


def test_data_that_are_no_names_are_refused(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\ndatasets: 7\n---\n# x\n")
    with pytest.raises(ValueError, match="`datasets` of the card must be a list of names, got \\[?7"):
        hub.update_model_card(tmp_path, metrics={"bits": 1.0})


def test_the_figures_of_a_group_are_read_from_the_card(tmp_path):
    assert hub.stated_metrics(tmp_path, ["agreement"]) == {}
    figures = {"KL, bits": {"top": 0.25, "bottom": 0.5}, "KL, bits more": 3.0, "agreement": 0.5}
    hub.write_model_card(tmp_path, **{**ARGUMENTS, "metrics": figures})
    found = hub.stated_metrics(tmp_path, ["KL, bits", "agreement", "loss"])
    assert found == {"KL, bits": {"top": 0.25, "bottom": 0.5}, "agreement": {"": 0.5}}
