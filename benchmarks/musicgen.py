"""MusicGen-small's architecture with random weights, as transformers runs it."""

from __future__ import annotations

import time

import torch
from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    T5Config,
)

from benchmarks.report import wait


def small_config() -> MusicgenConfig:
    """Text encoder, audio codec and decoder of the published small size."""
    text = T5Config(d_model=768, d_ff=3072, d_kv=64, num_layers=12, num_decoder_layers=12, num_heads=12)
    codec = EncodecConfig(
        sampling_rate=32000, audio_channels=1, num_filters=64, upsampling_ratios=[8, 5, 4, 4], codebook_size=2048,
        codebook_dim=128, target_bandwidths=[2.2], norm_type="weight_norm", use_causal_conv=False, normalize=False,
    )  # fmt: skip
    decoder = MusicgenDecoderConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, ffn_dim=4096)
    return MusicgenConfig(text_encoder=text, audio_encoder=codec, decoder=decoder)


def measure_musicgen(
    duration: float, device: str, dtype: torch.dtype, config: MusicgenConfig | None = None
) -> tuple[float, int]:
    """Seconds to generate `duration` seconds of 32 kHz audio after a short warm-up, and the number of parameters."""
    torch.manual_seed(0)
    model = MusicgenForConditionalGeneration(config or small_config()).to(device, dtype).eval()
    rate = model.config.audio_encoder.frame_rate
    text = torch.full((1, 8), 5, device=device)
    frames = max(round(duration * rate), 1)
    model.generate(input_ids=text, max_new_tokens=8, do_sample=True, guidance_scale=1.0)
    wait(device)
    begin = time.perf_counter()
    model.generate(input_ids=text, max_new_tokens=frames, min_new_tokens=frames, do_sample=True, guidance_scale=1.0)
    wait(device)
    return time.perf_counter() - begin, sum(weight.numel() for weight in model.parameters())
