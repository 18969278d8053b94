import math

import pytest
import torch
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

from fast_jukebox.evaluation.clap import Clap, clap_score
from fast_jukebox.evaluation.encoders import load_embedding

RATE = 8000


@pytest.fixture(scope="module")
def clap_dir(tmp_path_factory):
    """A tiny random CLAP model that hears 1 s at 8 kHz, saved with its parts."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny-clap")
    text = {
        "vocab_size": 12,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 20,
        "pad_token_id": 1,
    }
    audio = {
        "spec_size": 32,
        "num_mel_bins": 8,
        "patch_size": 2,
        "patch_stride": [2, 2],
        "window_size": 4,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "hidden_size": 32,
        "patch_embeds_hidden_size": 16,
        "num_hidden_layers": 2,
    }
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=16)
    ClapModel(config).save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=8,
        sampling_rate=RATE,
        hop_length=64,
        max_length_s=1,
        fft_window_size=256,
        frequency_max=4000,
        truncation="rand_trunc",
    ).save_pretrained(folder)
    words = ["<s>", "<pad>", "</s>", "<unk>", "piano", "music", "loud", "drums"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=16
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clap(clap_dir):
    return load_embedding(f"clap:{clap_dir}")


def test_it_is_an_embedding_named_after_its_folder(clap):
    assert clap.name.startswith("clap_tiny_clap")
    assert (clap.sampling_rate, clap.window_samples, clap.dimensions) == (RATE, RATE, 16)
    found = clap(0.1 * torch.randn(2, 2 * RATE + 100))
    assert found.shape == (2, 2, 16)
    torch.testing.assert_close(found.norm(dim=2), torch.ones(2, 2))


def test_windows_are_deterministic_and_independent(clap):
    audio = 0.1 * torch.randn(1, 12 * RATE)
    whole = clap(audio)
    torch.testing.assert_close(whole, clap(audio))
    torch.testing.assert_close(whole[:, 10:11], clap(audio[:, 10 * RATE : 11 * RATE]), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="at least 8000 samples"):
        clap(audio[:, :100])


def test_the_score_is_the_mean_cosine_of_the_models_own_features(clap):
    sounds = [0.1 * torch.randn(RATE) for _ in range(3)]
    texts = ["piano music", "loud drums", "music"]
    found = clap_score(clap, sounds, texts, sampling_rate=RATE)
    cosines = []
    for sound, text in zip(sounds, texts, strict=True):
        features = clap.feature_extractor(sound.numpy(), sampling_rate=RATE, return_tensors="pt")
        tokens = clap.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            audio = clap.model.get_audio_features(features["input_features"]).pooler_output[0]
            words = clap.model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output[0]
        cosines.append(float(torch.cosine_similarity(audio, words, dim=0)))
    assert found.value == pytest.approx(sum(cosines) / 3, abs=1e-5)
    assert found.low < found.value < found.high


def test_one_text_serves_all_sounds_and_one_song_has_no_interval(clap):
    sound = 0.1 * torch.randn(RATE)
    once = clap_score(clap, [sound], "piano", sampling_rate=RATE)
    assert math.isnan(once.low)
    twice = clap_score(clap, [sound, sound], "piano", sampling_rate=RATE)
    assert twice.value == pytest.approx(once.value, abs=1e-6)


def test_bad_texts_are_refused(clap):
    sound = torch.zeros(RATE)
    with pytest.raises(ValueError, match="one for each of the sounds, got 1 for 2"):
        clap_score(clap, [sound, sound], ["piano"], sampling_rate=RATE)
    with pytest.raises(ValueError, match="must not be empty"):
        clap_score(clap, [sound], " ", sampling_rate=RATE)


def test_another_model_is_refused(tmp_path):
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=8, **sizes)).save_pretrained(tmp_path)
    with pytest.raises((ValueError, TypeError), match="CLAP|clap"):
        Clap.from_pretrained(str(tmp_path))
    with pytest.raises(OSError, match="nowhere"):
        Clap.from_pretrained(str(tmp_path / "nowhere"))
