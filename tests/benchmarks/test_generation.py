import json

import pytest
import torch
from transformers import EncodecConfig, MusicgenConfig, MusicgenDecoderConfig, T5Config

from benchmarks import generation, musicgen
from fast_jukebox import FastJukeboxModel
from fast_jukebox.models.fast_jukebox import configuration_fast_jukebox


@pytest.fixture
def tiny_presets(tiny_config, monkeypatch):
    monkeypatch.setitem(configuration_fast_jukebox.PRESETS, "fastjukebox-tiny", (lambda depth: tiny_config, 3))


def test_steps_have_a_row_for_each_level_model_and_batch(tiny_presets, tmp_path):
    line = ["--models", "fastjukebox-tiny", "--steps", "4", "--duration", "0.2", "--batches", "1", "2", "--published"]
    tables = generation.main([*line, "--output", str(tmp_path / "table")])
    rows = tables["steps"]
    assert [(row["level"], row["windows"]) for row in rows] == [
        (level, batch) for level in (2, 1, 0) for batch in (1, 2)
    ]
    for row in rows:
        assert row["step ms"] > 0 and row["floor ms"] > 0 and row["speed-up"] == 1.0
        assert row["codes/s"] == pytest.approx(1e3 * row["windows"] / row["step ms"])
        assert row["over published"] == pytest.approx(row["published ms"] / row["step ms"])
    assert json.loads((tmp_path / "table-steps.json").read_text())["rows"] == rows
    assert tables["songs"] == []


def test_songs_have_a_row_for_each_schedule_and_yardstick(tiny_config, tmp_path):
    torch.manual_seed(0)
    FastJukeboxModel(tiny_config).save_pretrained(tmp_path / "model")
    line = ["--models", "--songs", str(tmp_path / "model"), "--duration", "0.2", "--published"]
    rows = generation.main([*line, "--schedules", "parallel", "sequential"])["songs"]
    assert [row["schedule"] for row in rows] == ["parallel", "sequential", "sequential"]
    for row in rows:
        assert row["RTF"] == pytest.approx(row["s"] / row["audio s"])
    assert all(row["first sound s"] > 0 and row["expected s"] > 0 for row in rows[:2])


def test_songs_are_made_in_the_windows_asked_for(tiny_presets, monkeypatch):
    asked = []
    for name in ("estimate", "generate", "stream"):
        method = getattr(FastJukeboxModel, name)

        def noting(self, *args, method=method, **kwargs):
            asked.append(kwargs["window_fractions"])
            return method(self, *args, **kwargs)

        monkeypatch.setattr(FastJukeboxModel, name, noting)
    generation.main(["--models", "--songs", "fastjukebox-tiny", "--duration", "0.1", "--window_fractions", "0.5"])
    assert asked == [0.5] * 4


def test_windows_of_a_song_are_those_that_generation_samples(tiny_config):
    for level, prior in enumerate(tiny_config.prior_configs):
        for schedule in ("parallel", "sequential"):
            windows = generation.windows_of(tiny_config, level, 1.0, schedule)
            codes = -(-tiny_config.sampling_rate // tiny_config.hop_lengths[-1]) * tiny_config.hop_lengths[-1]
            assert windows[-1].end == codes // tiny_config.hop_lengths[level]
            assert max(window.length for window in windows) <= prior.n_ctx


def test_musicgen_generates_as_long_as_asked():
    config = MusicgenConfig(
        text_encoder=T5Config(
            d_model=8, d_ff=8, d_kv=4, num_layers=1, num_decoder_layers=1, num_heads=2, vocab_size=16
        ),
        audio_encoder=EncodecConfig(
            sampling_rate=320, num_filters=2, upsampling_ratios=[4, 2], codebook_size=16, codebook_dim=4,
            hidden_size=4, target_bandwidths=[0.32], num_lstm_layers=1, use_causal_conv=False, normalize=False,
        ),
        decoder=MusicgenDecoderConfig(
            vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, ffn_dim=8, num_codebooks=2,
            pad_token_id=16, bos_token_id=16,
        ),
    )  # fmt: skip
    seconds, parameters = musicgen.measure_musicgen(0.5, "cpu", torch.float32, config)
    assert seconds > 0 and parameters > 0
    small = musicgen.small_config()
    assert (small.decoder.num_hidden_layers, small.decoder.hidden_size, small.audio_encoder.frame_rate) == (
        24,
        1024,
        50,
    )
