import json

import numpy as np
import pytest
import transformers.pipelines
from transformers import TextToAudioPipeline, VitsConfig, VitsModel, VitsTokenizer, pipeline

from fast_jukebox.pipelines import FastJukeboxPipeline
from fast_jukebox.text_to_audio import TextToAudio, register_text_to_audio


@pytest.fixture
def folder(paired_model, tmp_path):
    paired_model.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.mark.parametrize("task", ["text-to-audio", "text-to-speech", None])
def test_a_folder_plays_by_any_task_that_its_card_may_state(task, folder, paired_model):
    pipe = pipeline(task, model=folder, device="cpu", progress=False)
    assert isinstance(pipe, FastJukeboxPipeline)
    expected = paired_model.generate(duration=0.1, seed=3).audio[0].numpy()
    assert np.array_equal(pipe(duration=0.1, seed=3)["audio"], expected)


def test_a_model_that_is_loaded_already_plays_too(paired_model):
    assert isinstance(pipeline("text-to-audio", model=paired_model, device="cpu"), FastJukeboxPipeline)


def test_the_arguments_of_transformers_are_taken(folder, paired_model):
    artist, genre = paired_model.processor.pairs[0]
    pipe = pipeline("text-to-audio", model=folder, device="cpu", progress=False)
    expected = paired_model.generate(duration=0.1, seed=3, metadata={"artist": artist, "genre": genre}).audio[0].numpy()
    song = pipe(f"{genre} by {artist}", forward_params={"duration": 0.1, "seed": 1}, generate_kwargs={"seed": 3})
    assert np.array_equal(song["audio"], expected)
    several = pipe([f"{genre} by {artist}", ""], duration=0.1, seed=3)
    assert np.array_equal(several[0]["audio"], expected)
    assert np.array_equal(pipe(duration=0.1, seed=3)["audio"], several[1]["audio"])
    with pytest.raises(ValueError, match="did you mean `duration`"):
        pipe(genre, forward_params={"duratoin": 1})


def test_a_text_of_unknown_names_tells_the_known_ones(folder):
    pipe = pipeline("text-to-audio", model=folder, device="cpu", progress=False)
    with pytest.raises(ValueError, match="a text must be a genre, an artist or `GENRE by ARTIST`.*'a merry tune'"):
        pipe("a merry tune")
    with pytest.raises(ValueError, match="there is no file 'recordng.flac'"):
        pipe("recordng.flac")


def test_a_text_is_sung_where_a_model_sings(words_model):
    pipe = FastJukeboxPipeline(words_model, device="cpu", progress=False)
    words = "Where the wind blows, there I go"
    expected = words_model.generate(duration=0.1, seed=1, metadata={"artist": "Ann Lee", "lyrics": words}).audio[0]
    song = pipe(words, duration=0.1, seed=1, metadata={"artist": "Ann Lee"})
    assert np.array_equal(song["audio"], expected.numpy())


def test_a_model_without_labels_takes_no_text(tiny_model):
    with pytest.raises(ValueError, match="the model takes no words, got 'a merry tune'"):
        FastJukeboxPipeline(tiny_model, device="cpu")("a merry tune", duration=0.1)


def test_a_part_of_a_model_is_refused_by_name(tiny_model, tmp_path):
    tiny_model.vqvae.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"`model` must be a FastJukeboxModel.*got FastJukeboxVQVAE"):
        pipeline(model=str(tmp_path), device="cpu")


@pytest.fixture
def voice(tmp_path):
    """A tiny model of another make for the same task, in a folder."""
    config = VitsConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, ffn_dim=8, flow_size=8,
        spectrogram_bins=9, upsample_initial_channel=16, upsample_rates=[2, 2], upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]], prior_encoder_num_flows=1,
        prior_encoder_num_wavenet_layers=1, posterior_encoder_num_wavenet_layers=1, duration_predictor_num_flows=1,
    )  # fmt: skip
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "<pad>": 2, "<unk>": 3}))
    tokenizer = VitsTokenizer(str(tmp_path / "vocab.json"), phonemize=False, is_uroman=False)
    folder = tmp_path / "voice"
    VitsModel(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, tokenizer


def test_models_of_others_get_the_pipeline_of_transformers(voice):
    folder, tokenizer = voice
    pipe = pipeline("text-to-audio", model=str(folder), device="cpu")
    assert type(pipe) is TextToAudioPipeline
    assert pipe("abba")["audio"].ndim == 1
    model = VitsModel.from_pretrained(folder)
    assert type(pipeline("text-to-audio", model=model, tokenizer=tokenizer, device="cpu")) is TextToAudioPipeline
    (folder / "vocab.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises((OSError, ValueError, TypeError)):
        pipeline("text-to-audio", model=str(folder), device="cpu")
    model.name_or_path = ""
    with pytest.raises(ValueError, match="`tokenizer` must be given"):
        pipeline("text-to-audio", model=model, device="cpu")


def test_registering_again_is_harmless():
    ask = transformers.pipelines.get_task
    register_text_to_audio()
    assert transformers.pipelines.get_task is ask
    assert transformers.pipelines.PIPELINE_REGISTRY.supported_tasks["text-to-audio"]["impl"] is TextToAudio
