import yaml
from huggingface_hub import parse_eval_result_entries

from fast_jukebox.hub.cards import eval_results
from fast_jukebox.hub.update_card import eval_results_file, model_index


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
