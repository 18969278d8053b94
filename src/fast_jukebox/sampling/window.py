"""Windows of one shape on their way from a prompt to codes: conditioned, stepped through, and paused where asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

import torch
from torch import Tensor

from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.engine import Cache, Conditioning, SamplingPrior, WindowRun, check_logits, open_decoder
from fast_jukebox.sampling.machine import suited_threads


class WindowSampling(Generic[Conditioning, Cache]):
    """The sampling of windows of one shape, N of them at once, which may pause after any code or row of codes.

    How often it pauses changes no code. While it is paused, it holds its caches.

    Args:
        prior: the level's prior.
        length: codes of a window.
        prompt: int64 (N, P), P from 0 to `length` - 1.
        upper_codes: int64 (N, `length` / upper ratio) codes of the level above, or `None`.
        metadata: int64 (N, width), or `None`.
        settings: how codes are drawn.
        noise: float32 (N, `length` - P).
        engine: see [`~fast_jukebox.sampling.engine.open_decoder`].
        after_code: called with how many codes of each row are sampled, 0 after each row that is conditioned; what it
            raises ends the sampling.
    """

    def __init__(
        self,
        prior: SamplingPrior[Conditioning, Cache],
        length: int,
        prompt: Tensor,
        upper_codes: Tensor | None,
        metadata: Tensor | None,
        settings: SamplingSettings,
        noise: Tensor,
        engine: str = "auto",
        after_code: Callable[[int], None] | None = None,
    ) -> None:
        self.prior, self.length, self.count, self.after_code = prior, length, len(prompt), after_code
        spare = usual_rows(self.count) - self.count if prompt.device.type == "cuda" else 0
        if spare:
            prompt, noise = _repeated(prompt, spare), _repeated(noise, spare)
            upper_codes = None if upper_codes is None else _repeated(upper_codes, spare)
            metadata = None if metadata is None else _repeated(metadata, spare)
        with suited_threads(prior):
            conditioning = prior.condition(
                len(prompt),
                length,
                upper_codes=upper_codes,
                metadata=metadata,
                after_song=None if after_code is None else lambda row: after_code(0),
            )
            self._run = WindowRun(open_decoder(prior, conditioning, len(prompt), settings, engine), prompt, noise)

    @property
    def known(self) -> int:
        """Codes of each window that are there, the prompt included."""
        return self._run.known + self._run.done

    @property
    def engine(self) -> str:
        """Engine of the steps, one of [`~fast_jukebox.sampling.engine.ENGINES`], never "auto"."""
        return self._run.decoder.engine

    @property
    def codes(self) -> Tensor:
        """int64 (N, known)."""
        codes = self._run.codes[: self.count, : self.known]
        # Where lyrics share the codes' vocabulary a character may be drawn, which as published stands for code 0.
        return codes.masked_fill(codes >= self.prior.config.codebook_size, 0)

    def sample(self, known: int | None = None) -> Tensor:
        """Resume until so many codes of each window are there, or a few more; by default to the end. Returns `codes`.

        Raises:
            FloatingPointError: the prior's logits are NaN, so the codes mean nothing.
        """
        run, end = self._run, self.length if known is None else min(known, self.length)
        if self.known >= end:
            return self.codes
        with suited_threads(self.prior):
            run.resume(end - run.known, self.after_code)
            if self.known == self.length:
                run.decoder.close(finished=True)
            else:
                check_logits(run.decoder.logits, self.prior.config.level)
        return self.codes

    def leave(self) -> None:
        """End before the last code; the decoder may serve other windows. It cannot be resumed."""
        self._run.decoder.close(finished=False)


def _repeated(rows: Tensor, times: int) -> Tensor:
    """Rows (N, any) and the last of them so many times more."""
    return torch.cat([rows, rows[-1:].expand(times, *rows.shape[1:])])


def usual_rows(count: int) -> int:
    """The next number of rows that GPUs sample: up to 8 a power of two, then a multiple of an eighth of the power of
    two above it. So decoders that are costly to make are made for few sizes; the spare rows repeat the last one.
    """
    unit = 1 << max((count - 1).bit_length() - 3, 0) if count > 8 else 1 << (count - 1).bit_length()
    return -(-count // unit) * unit
