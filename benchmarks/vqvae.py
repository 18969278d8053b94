"""Real-time factors of the VQ-VAE: seconds of compute a second of audio, encoding and decoding.

    python -m benchmarks.vqvae --presets fastjukebox-72 fastjukebox-mini-9 --seconds 20

`fastjukebox-72` has the published VQ-VAE size. Weights are random: the cost does not depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.report import Row, machine, parse, parser_of, report, timed
from fast_jukebox import FastJukeboxConfig, FastJukeboxVQVAE


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure and print; returns the table's rows."""
    parser = parser_of(__doc__)
    parser.add_argument("--presets", nargs="+", default=["fastjukebox-72", "fastjukebox-mini-9"])
    parser.add_argument("--seconds", type=float, default=10.0, help="of audio")
    args = parse(parser, arguments)
    rows = []
    for preset in args.presets:
        vqvae = FastJukeboxVQVAE(FastJukeboxConfig.preset(preset).vqvae_config).to(args.device).eval()
        rows += measure(vqvae, preset, args.seconds)
    report({"": rows}, {"machine": machine(args.device), "seconds": args.seconds}, args.output)
    return rows


def measure(vqvae: FastJukeboxVQVAE, preset: str, seconds: float) -> list[Row]:
    """A row for each level."""
    config = vqvae.config
    hop = config.hop_lengths[-1]
    samples = max(int(seconds * config.sampling_rate) // hop, 1) * hop
    audio = torch.rand(1, samples, device=vqvae.device) * 2 - 1
    length = samples / config.sampling_rate
    rows = []
    for level in range(config.num_levels):
        (codes,) = vqvae.encode(audio, levels=[level])
        encoding = timed(lambda level=level: vqvae.encode(audio, levels=[level]), str(vqvae.device), repeats=1)
        decoding = timed(lambda level=level, codes=codes: vqvae.decode([codes], level), str(vqvae.device), repeats=1)
        rows.append(
            {
                "model": preset,
                "level": level,
                "parameters": sum(parameter.numel() for parameter in vqvae.levels[level].parameters()),
                "encode s/s": encoding / length,
                "decode s/s": decoding / length,
            }
        )
    return rows


if __name__ == "__main__":
    main()
