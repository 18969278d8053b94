"""Speed and memory, side by side in one run: `python -m benchmarks.sampling`, `python -m benchmarks.vqvae`."""
