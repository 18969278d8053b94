import json

import pytest
import torch
from transformers import (
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    HubertConfig,
    HubertModel,
    Wav2Vec2FeatureExtractor,
)

from fast_jukebox.evaluation.encoders import EncoderEmbedding, load_embedding

RATE = 8000


def encodec():
    config = EncodecConfig(
        sampling_rate=RATE,
        num_filters=4,
        hidden_size=8,
        codebook_dim=8,
        codebook_size=8,
        upsampling_ratios=[4, 2],
        num_lstm_layers=1,
        target_bandwidths=[6.0],
    )
    return EncodecModel(config)


def dac():
    return DacModel(
        DacConfig(
            encoder_hidden_size=8,
            downsampling_ratios=[4, 2],
            decoder_hidden_size=16,
            n_codebooks=2,
            codebook_size=8,
            codebook_dim=4,
            sampling_rate=RATE,
        )
    )


def hubert():
    return HubertModel(
        HubertConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            conv_dim=[8, 8],
            conv_stride=[5, 4],
            conv_kernel=[10, 8],
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        )
    )


@pytest.mark.parametrize(("kind", "build", "dimensions"), [("encodec", encodec, 8), ("dac", dac, 32)])
def test_codecs_embed_by_their_encoders_mean(tmp_path, kind, build, dimensions):
    model = build()
    model.save_pretrained(tmp_path / "tiny-codec")
    found = load_embedding(f"{kind}:{tmp_path / 'tiny-codec'}")
    assert (found.name, found.sampling_rate, found.dimensions) == (f"{kind}_tiny_codec", RATE, dimensions)
    audio = 0.1 * torch.randn(2, 2 * RATE + 50)
    vectors = found(audio)
    assert vectors.shape == (2, 2, dimensions)
    with torch.no_grad():
        frames = model.eval().encoder(audio[1:, None, RATE : 2 * RATE])
    torch.testing.assert_close(vectors[1, 1], frames[0].mean(dim=1), atol=1e-5, rtol=1e-4)


def test_mert_is_loaded_without_its_own_code(tmp_path):
    model = hubert()
    model.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=True).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "mert_model", "auto_map": {"AutoModel": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("raise SystemExit('code beside the weights was run')")
    found = load_embedding(f"mert:{tmp_path}")
    audio = 0.1 * torch.randn(1, 5 * RATE)
    normal = (audio - audio.mean()) / audio.std(correction=0)
    with torch.no_grad():
        expected = model.eval()(normal).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(found(audio)[0], expected, atol=1e-4, rtol=1e-3)
    assert found.sampling_rate == RATE


def test_another_model_is_refused(tmp_path):
    encodec().save_pretrained(tmp_path)
    with pytest.raises((ValueError, RuntimeError), match="dac|Dac|missing|size"):
        EncoderEmbedding.from_pretrained("dac", str(tmp_path))
    with pytest.raises(ValueError, match="`kind` must be one of encodec, dac, mert, got 'bert'"):
        EncoderEmbedding("bert", encodec(), "x", RATE)
