import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from fast_jukebox.hub import write_model_card
from fast_jukebox.hub.cards import eval_results
from fast_jukebox.hub.update_card import eval_results_file, merge_eval_results, model_index


@pytest.fixture
def card(tmp_path):
    write_model_card(
        tmp_path, name="a model", description="It plays.", training="For an hour.", license="apache-2.0",
        metrics={"bits per code": 5.5},
    )  # fmt: skip
    return tmp_path / "README.md"


def results(path):
    return {entry.metric_type: entry.metric_value for entry in ModelCard.load(path).data.eval_results}


def test_results_are_added_to_a_card_and_replace_their_own_kind(card):
    before = ModelCard.load(card).text
    for value in (1.0, 2.0):
        merge_eval_results(card.parent, eval_results({"kernel_distance_ears": value}, "songs", "songs"))
    assert results(card) == {"bits_per_code": 5.5, "kernel_distance_ears": 2.0}
    assert ModelCard.load(card).text == before
    assert ModelCard.load(card).data.license == "apache-2.0"
    merge_eval_results(card.parent, eval_results({"kernel_distance_ears": 3.0}, "songs", "other songs"))
    assert len(ModelCard.load(card).data.eval_results) == 3


def test_a_model_without_a_card_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no README.md"):
        merge_eval_results(tmp_path, [])


def test_a_model_index_is_what_the_hub_reads():
    text = model_index("a model", eval_results({"clap_score": 0.3}, "songs", "songs"))
    found = yaml.safe_load(text)["model-index"][0]
    assert found["name"] == "a model"
    assert found["results"][0]["metrics"][0]["value"] == 0.3


def test_a_file_of_results_is_what_the_client_parses():
    text = eval_results_file({"kernel_distance_ears": 0.25}, "ann/songs", "by a command")
    (entry,) = parse_eval_result_entries(yaml.safe_load(text))
    assert (entry.dataset_id, entry.task_id, entry.value, entry.notes) == (
        "ann/songs", "kernel_distance_ears", 0.25, "by a command",
    )  # fmt: skip
