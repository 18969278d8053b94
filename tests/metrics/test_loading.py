import math
from pathlib import Path

import pytest
import torch

import fast_jukebox.metrics
from fast_jukebox.audio.io import save_audio
from fast_jukebox.evaluation.embeddings import embed_songs
from fast_jukebox.evaluation.encoders import load_embedding
from fast_jukebox.metrics.loading import FOLDER, METRICS

SEPARATE = """
os.environ |= {{"HF_HOME": {home!r}, "HF_HUB_OFFLINE": "1"}}
import fast_jukebox.metrics
metric = fast_jukebox.metrics.load("kernel_audio_distance")
paths = {songs!r}
print(metric.compute(predictions=paths[:2], references=paths[2:]))
"""


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Two noises, and three tones, of 3 s."""
    folder = tmp_path_factory.mktemp("songs")
    generator = torch.Generator().manual_seed(0)
    seconds = torch.arange(3 * 16000) / 16000
    sounds = [0.1 * torch.randn(3 * 16000, generator=generator) for _ in range(2)]
    sounds += [0.3 * torch.sin(2 * torch.pi * hertz * seconds) for hertz in (220, 330, 440)]
    return [str(save_audio(folder / f"{index}.wav", sound, 16000)) for index, sound in enumerate(sounds)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Modules are copied into a folder of their own."""
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_CACHE", str(tmp_path / "evaluate"))
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "metrics"))


def test_every_metric_has_a_folder_and_loads_with_its_text():
    assert {path.name for path in FOLDER.iterdir() if (path / f"{path.name}.py").is_file()} == set(METRICS)
    for name in METRICS:
        metric = fast_jukebox.metrics.load(name)
        assert "predictions: paths of" in metric.inputs_description
        assert metric.citation.startswith("@")
    with pytest.raises(ValueError, match="`name` must be one of frechet_audio_distance, .*, got 'accuracy'"):
        fast_jukebox.metrics.load("accuracy")


def test_a_metric_works_in_a_fresh_process_without_network(run_afresh, songs, tmp_path):
    printed, _ = run_afresh(SEPARATE.format(home=str(tmp_path / "empty"), songs=songs))
    assert "kernel_distance_musicnn_mtt" in printed
    assert list((tmp_path / "empty").iterdir())  # it is the home that was used


def test_distances_take_references_of_another_number_and_saved_ones(songs, tmp_path):
    metric = fast_jukebox.metrics.load("kernel_audio_distance")
    found = metric.compute(predictions=songs[:2], references=songs[2:])
    assert found["kernel_distance_musicnn_mtt"] > 0.1
    assert math.isnan(found["kernel_distance_musicnn_mtt_floor"])  # three references cannot be parted
    saved = embed_songs(load_embedding("musicnn_mtt"), songs[2:]).save(tmp_path / "reference.safetensors")
    again = metric.compute(predictions=songs[:2], references=str(saved))
    assert again["kernel_distance_musicnn_mtt"] == pytest.approx(found["kernel_distance_musicnn_mtt"])
    with pytest.raises(ValueError, match="got one made with musicnn_mtt"):
        metric.compute(predictions=songs[:2], references=str(saved), embedding="musicnn_msd")
    with pytest.raises(ValueError, match="`references` must be paths"):
        metric.compute(predictions=songs[:2])


def test_paths_of_any_kind_are_taken_and_what_is_no_list_of_them_is_refused(songs, tmp_path):
    metric = fast_jukebox.metrics.load("tag_divergence")
    paths = [Path(song) for song in songs]
    found = metric.compute(predictions=paths[:2], references=paths[2:], resamples=20)
    assert found == pytest.approx(
        metric.compute(predictions=songs[:2], references=songs[2:], resamples=20), nan_ok=True
    )
    saved = embed_songs(load_embedding("musicnn_mtt"), songs[2:]).save(tmp_path / "reference.safetensors")
    again = metric.compute(predictions=songs[:2], references=saved, resamples=20)
    assert again["tag_divergence_musicnn_mtt"] == pytest.approx(found["tag_divergence_musicnn_mtt"])
    for name in METRICS:
        with pytest.raises(ValueError, match=r"`predictions` must be a list of paths, got '.*0.wav' alone"):
            fast_jukebox.metrics.load(name).compute(predictions=songs[0])
    with pytest.raises(ValueError, match="`references` must be paths of sound files"):
        metric.compute(predictions=songs[:2], references=tmp_path)


def test_the_others_compute(songs):
    few = fast_jukebox.metrics.load("frechet_audio_distance").compute(predictions=songs[:2], references=songs[2:])
    assert few["frechet_distance_shrunk_musicnn_mtt"] > 0
    tags = fast_jukebox.metrics.load("tag_divergence")
    found = tags.compute(predictions=songs[:2], references=songs[2:])
    assert found["tag_divergence_musicnn_mtt"] > 0
    assert found["tag_divergence_musicnn_mtt_low"] <= found["tag_divergence_musicnn_mtt_high"]
    with pytest.raises(ValueError, match="`model` must be the folder or Hub name of a ClapModel"):
        fast_jukebox.metrics.load("clap_score").compute(predictions=songs[:1], references=["noise"])


def test_predictions_may_come_in_batches(songs):
    metric = fast_jukebox.metrics.load("tag_divergence", keep_in_memory=True)
    metric.add_batch(predictions=songs[:1])
    metric.add(prediction=songs[1])
    found = metric.compute(references=songs[2:])
    whole = fast_jukebox.metrics.load("tag_divergence").compute(predictions=songs[:2], references=songs[2:])
    assert found == pytest.approx(whole, nan_ok=True)


def test_bits_per_code_are_measured_of_a_model(model_dir, tmp_path):
    paths = [str(save_audio(tmp_path / f"{n}.wav", (0.3 * torch.randn(1100)).clamp(-1, 1), 1600)) for n in range(2)]
    metric = fast_jukebox.metrics.load("bits_per_code")
    found = metric.compute(predictions=paths, model=str(model_dir))
    assert set(found) >= {"bits_per_code_0", "bits_per_code_2_low"}
    assert 0 < found["bits_per_code_1"] < 12
    with pytest.raises(ValueError, match="`model` must be"):
        metric.compute(predictions=paths)


def test_emotional_valence_needs_a_classifier_that_states_what_it_is_worth(songs, tmp_path):
    from fast_jukebox.models.valence import ValenceConfig, ValenceFeatureExtractor, ValenceModel

    config = ValenceConfig(
        num_slices=1, slice_frames=32, depth_multiplier=0.1, hidden_size=8, num_attention_heads=2, intermediate_size=8
    )
    ValenceModel(config).save_pretrained(tmp_path / "valence")
    ValenceFeatureExtractor(num_frames=32).save_pretrained(tmp_path / "valence")
    metric = fast_jukebox.metrics.load("emotional_valence")
    with pytest.raises(ValueError, match="must state roc_auc"):
        metric.compute(predictions=songs[:2], model=str(tmp_path / "valence"))
    config.held_out = {name: 0.6 for name in ("roc_auc", "pr_auc", "accuracy", "pleasantness_auc", "activation_auc")}
    config.held_out |= {"held_out_by": "artist", "songs": 9}
    config.save_pretrained(tmp_path / "valence")
    metric = fast_jukebox.metrics.load("emotional_valence")
    found = metric.compute(predictions=songs, model=str(tmp_path / "valence"))
    assert {"AP", "DP_low", "AU_high", "DU"} <= set(found)
    assert 0 < found["AP"] < 1


def test_what_a_metric_does_not_take_is_named():
    for name in METRICS:
        metric = fast_jukebox.metrics.load(name)
        with pytest.raises(TypeError, match=f"`modle` is no argument of {name}, which takes predictions, .*resamples"):
            metric.compute(predictions=["a.wav"], modle="m")
        with pytest.raises(ValueError, match="`predictions` must be a list of paths, got 3 among them"):
            metric.compute(predictions=["a.wav", 3])
        if name in ("bits_per_code", "emotional_valence"):
            with pytest.raises(ValueError, match=f"`references` must not be given: {name} judges"):
                metric.compute(predictions=["a.wav"], references=["b.wav"], model="m")
