"""Sampling of a prior: its caches, its pass over a prompt, its step, and the choice of an engine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fast_jukebox.models.prior.attention import LayerCache
from fast_jukebox.models.prior.block import BlockList, BlockStep, PriorCache, rows_for
from fast_jukebox.models.prior.conditioning import (
    LyricEncoder,
    PriorConditioning,
    UpperConditioner,
    check_codes,
    check_label_vectors,
    check_upper_codes,
)
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig
from fast_jukebox.models.prior.engines.cuda_graph import GraphDecoder
from fast_jukebox.models.prior.engines.fused import FusedDecoder
from fast_jukebox.models.prior.engines.fused_trial import trusted_decoder
from fast_jukebox.models.prior.engines.interface import EnginePrior
from fast_jukebox.models.prior.engines.native import NativeDecoder, packed_nbytes, unsupported
from fast_jukebox.models.prior.engines.native_library import NativeUnavailable, library
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.engine import EngineDecoder
from fast_jukebox.sampling.machine import NARROW, share_out

_CONDITIONED_AT_ONCE = 8
"""Windows that an accelerator conditions at once at most."""


class PriorSamplingMixin:
    """The sampling protocol of a prior, see [`~fast_jukebox.sampling.protocols.SamplingPrior`]."""

    config: FastJukeboxPriorConfig
    device: torch.device
    code_embedding: nn.Embedding
    position_embedding: nn.Parameter
    output: nn.Linear | None
    blocks: BlockList
    upper_conditioner: UpperConditioner | None
    lyric_encoder: LyricEncoder | None
    _embed: Callable[[Tensor, PriorConditioning], Tensor]
    _condition: Callable[[int, int, Tensor | None, Tensor | None], PriorConditioning]
    _check_window: Callable[[int, int, str], None]

    def new_cache(self, batch_size: int) -> PriorCache:
        """An empty cache for sampling `batch_size` windows: bounded, allocated once, dtype and device of the weights.

        Raises:
            ValueError: `batch_size` is less than 1.
        """
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
        dtype = self.position_embedding.dtype
        layers = []
        for block in self.blocks:
            attention = block.attention
            heads, head_dim, device = attention.num_heads, attention.head_dim, attention.qkv.weight.device
            layers.append(LayerCache(attention.pattern, batch_size, heads, head_dim, dtype, device))
        return PriorCache(layers, batch_size)

    def block_steps(self, cache: PriorCache) -> list[BlockStep]:
        """Each block made ready to step with a cache; they hold the weights themselves, and not the prior."""
        return [BlockStep(block, layer) for block, layer in zip(self.blocks, cache.layers, strict=True)]

    def cache_nbytes(self, batch_size: int) -> int:
        """Bytes of the cache that `new_cache` makes for so many windows."""
        slots = sum([block.attention.pattern.capacity for block in self.blocks])
        return batch_size * slots * 2 * self.config.attention_size * self.position_embedding.element_size()

    def packed_nbytes(self, engine: str, device: torch.device | None = None) -> int:
        """Bytes of the copies of the weights that the steps of an engine, one of
        [`~fast_jukebox.sampling.engine.ENGINES`], read on a device, by default the prior's own; 0 where they read the
        weights themselves.
        """
        chosen = choose_engine(cast(EnginePrior, self), device) if engine == "auto" else engine
        return packed_nbytes(cast(EnginePrior, self)) if chosen == "native" else 0

    def new_decoder(
        self, batch_size: int, settings: SamplingSettings, engine: str = "auto", threads: int = 1
    ) -> EngineDecoder[PriorConditioning, PriorCache] | None:
        """A decoder that samples windows; None for the eager one.

        Args:
            batch_size: songs.
            settings: how a code is drawn.
            engine: one of [`~fast_jukebox.sampling.engine.ENGINES`].
            threads: that `"native"` may use.

        Raises:
            NativeUnavailable: `"native"` was asked for and could not be built.
            ValueError: `"native"` was asked for and does not know the prior.
        """
        prior = cast(EnginePrior, self)
        if engine == "auto":
            engine = choose_engine(prior)
            if engine == "graph" and (decoder := trusted_decoder(prior, batch_size, settings)) is not None:
                return decoder
        if engine == "native":
            return NativeDecoder(prior, batch_size, settings, threads)
        if engine in ("graph", "compiled"):
            return GraphDecoder(prior, batch_size, settings, compiled=engine == "compiled")
        return FusedDecoder(prior, batch_size, settings) if engine == "fused" else None

    def overlaps(self, engine: str, device: torch.device | None = None) -> bool:
        """Whether its windows are sampled while those of other levels are, each by a thread of its own: where steps
        are taken in C, which leaves the interpreter to other threads, and codes depend neither on the batch nor on the
        number of threads.

        Recorded steps on a GPU are left out: recordings of several levels would share the workspace that cuBLAS keeps
        for the stream they are recorded on, and no GPU has run them side by side.

        Args:
            engine: one of [`~fast_jukebox.sampling.engine.ENGINES`].
            device: where it would be; by default where it is.
        """
        weight = self.position_embedding
        if (
            (device or weight.device).type != "cpu"
            or weight.dtype != torch.float32
            or self.config.hidden_size >= NARROW
        ):
            return False
        return engine == "native" or (engine == "auto" and _has_library())

    @torch.no_grad()
    def condition(
        self,
        batch_size: int,
        length: int,
        upper_codes: Tensor | None = None,
        metadata: Tensor | None = None,
        after_song: Callable[[int], None] | None = None,
    ) -> PriorConditioning:
        """Conditioning of windows of `length` codes to sample, 1 <= length <= n_ctx.

        Args:
            batch_size: windows, N.
            length: codes of each, the prompt included.
            upper_codes: int64 (N, length / upper_ratio), or None, as in `forward`.
            metadata: int64 (N, metadata_length), or None, as in `forward`.
            after_song: called with how many windows are done where they are done one by one, for progress; what it
                raises ends the work.

        Raises:
            ValueError: as in `forward`.
        """
        self._check_window(batch_size, length, "length")
        check_upper_codes(upper_codes, self.config, batch_size, length)
        check_label_vectors(metadata, self.config, batch_size)
        if self.upper_conditioner is None and self.lyric_encoder is None:
            return self._condition(batch_size, length, upper_codes, metadata)

        def some(songs: slice) -> PriorConditioning:
            upper, own = [None if rows is None else rows[songs] for rows in (upper_codes, metadata)]
            return self._condition(len(range(batch_size)[songs]), length, upper, own)

        if self.device.type != "cpu":
            if batch_size <= _CONDITIONED_AT_ONCE:
                return some(slice(0, batch_size))
            # What the layers of the conditioner leave would take several times the memory of the result.
            parts = (slice(start, start + _CONDITIONED_AT_ONCE) for start in range(0, batch_size, _CONDITIONED_AT_ONCE))
            return PriorConditioning.gathered(map(some, parts), batch_size)
        # Song by song: the same numbers in any batch, and less memory.
        one_by_one = share_out(lambda song: some(slice(song, song + 1)), batch_size, after_song)
        return PriorConditioning.joined(one_by_one)

    @torch.no_grad()
    def prefill(self, codes: Tensor, conditioning: PriorConditioning, cache: PriorCache) -> Tensor:
        """Fill a cache with a prompt in one parallel pass.

        Args:
            codes: int64 (N, P), the prompt, 0 <= P < the conditioning's length.
            conditioning: of the window, from `condition`.
            cache: from `new_cache`; whatever it held is overwritten.

        Returns:
            Logits of position P, (N, K); where lyrics and codes share a vocabulary, (N, K + lyric_vocab_size), the
            codes first: as published, a character may be drawn and goes into the next step as such. It stands for
            code 0 in the song.

        Raises:
            ValueError: the prompt is too long, of another batch size or dtype, or outside the codebook.
        """
        check_codes("codes", codes, self.config.codebook_size)
        songs, prompt = codes.shape
        if prompt >= conditioning.length:
            raise ValueError(f"`codes` must be a prompt of fewer than {conditioning.length} codes, got {prompt}")
        if songs != cache.batch_size or songs != conditioning.start.shape[0]:
            raise ValueError(
                f"`codes` must have the batch size of the cache ({cache.batch_size}) and of the conditioning "
                f"({conditioning.start.shape[0]}), got {songs}"
            )
        if prompt == 0 and not self.config.has_lyrics:
            hidden = self._embed(codes, conditioning).squeeze(1)
            logits = self._step(hidden, 0, conditioning, cache)
        elif codes.device.type == "cpu" and songs > 1:
            # Song by song: the same numbers in any batch, and less memory.
            def one(song: int) -> Tensor:
                return self._prefill(codes[song : song + 1], conditioning.songs(song, 1), cache.songs(song, 1))

            logits = torch.cat(share_out(one, songs))
        else:
            logits = self._prefill(codes, conditioning, cache)
        cache.length = prompt + 1
        return logits

    @torch.no_grad()
    def step(self, code: Tensor, position: int, conditioning: PriorConditioning, cache: PriorCache) -> Tensor:
        """One step of sampling, whose cost does not depend on the position.

        Args:
            code: int64 (N,), the code at `position - 1`, or what was drawn there from the last logits.
            position: 1 <= position < the conditioning's length; positions follow one another.
            conditioning: of the window, as given to `prefill`.
            cache: as left by `prefill` or by the last step.

        Returns:
            Logits of `position`, as `prefill` gives them. On a CPU in float32 a song's logits do not depend on the
            other songs of the batch or on their number.

        Raises:
            ValueError: `position` does not follow the cache's last one, or is outside the window.
        """
        if position != cache.length or not 0 < position < conditioning.length:
            raise ValueError(
                f"`position` must follow the {cache.length} positions that the cache has seen (`prefill` comes first) "
                f"and be less than {conditioning.length}, the window's length; got {position}"
            )
        place = self.config.lyric_prefix_length + position
        hidden = self.code_embedding(self._ids(code))
        hidden = hidden + self.position_embedding.select(0, place)
        if conditioning.positions is not None:
            hidden.add_(conditioning.positions.select(1, place))
        logits = self._step(hidden, place, conditioning, cache)
        cache.length = position + 1
        return logits

    def _logits(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary: (..., W) -> (..., vocab_size)."""
        return F.linear(hidden, self.code_embedding.weight) if self.output is None else self.output(hidden)

    def drawn_rows(self, table: Tensor) -> Tensor:
        """A matrix over the vocabulary with its rows as they are drawn while sampling: the codes first, then the
        characters where lyrics and codes share one. The matrix itself where they do not.
        """
        offset = self.config.code_offset
        return table.roll(-offset, dims=0) if offset else table

    def _next_logits(self, hidden: Tensor) -> Tensor:
        """Logits of what can be drawn, as in `prefill`: (N, W) -> (N, ids)."""
        logits = self._logits(hidden)
        offset = self.config.code_offset
        return logits.roll(-offset, dims=-1) if offset else logits

    def _ids(self, drawn: Tensor) -> Tensor:
        """Ids in the vocabulary of what was drawn."""
        offset = self.config.code_offset
        return (drawn + offset) % self.config.vocab_size if offset else drawn

    def _prefill(self, codes: Tensor, conditioning: PriorConditioning, cache: PriorCache) -> Tensor:
        hidden = self._embed(codes, conditioning)
        for block, layer_cache in zip(self.blocks, cache.layers, strict=True):
            hidden = block(hidden, False, layer_cache, conditioning.lyric_states)[0]
        last = hidden.shape[1] - 1
        hidden = hidden[:, last]
        if conditioning.positions is not None and self.config.add_conditioning_after:
            hidden = hidden + conditioning.positions[:, last]
        return self._next_logits(hidden)

    def _step(self, hidden: Tensor, position: int, conditioning: PriorConditioning, cache: PriorCache) -> Tensor:
        """Blocks and head for one position: (N, W) -> (N, K)."""
        songs = hidden.shape[0]
        spare = rows_for(songs, hidden.device, self.config.hidden_size) - songs
        if spare:
            hidden = F.pad(hidden, (0, 0, 0, spare))
        if not cache.steps:
            cache.steps = self.block_steps(cache)
        for block_step in cache.steps:
            hidden = block_step(hidden, position)
        if conditioning.positions is not None and self.config.add_conditioning_after:
            hidden.narrow(0, 0, songs).add_(conditioning.positions.select(1, position))
        if hidden.device.type == "cpu" and self.config.hidden_size < NARROW:
            logits = torch.cat([self._next_logits(part) for part in hidden.split(rows_for(1, hidden.device, 1))])
        else:
            logits = self._next_logits(hidden)
        return logits.narrow(0, 0, songs) if spare else logits


logger = logging.getLogger(__name__)

NATIVE_WIDEST = 1024
"""Widest prior that `"auto"` steps in C, where each thread takes songs. With a wider prior it is faster to share each
product among the threads.
"""

_warned: set[str] = set()


def choose_engine(prior: EnginePrior, device: torch.device | None = None) -> str:
    """The engine that `"auto"` means for a prior on a device, by default its own.

    `"graph"` on a GPU, where `new_decoder` takes `"fused"` if a trial has shown it right and no slower; `"native"` on a
    CPU with a C compiler for priors in float32 up to `NATIVE_WIDEST`; else `"eager"`. On a CPU the choice does not
    depend on the batch, so that the codes do not either.
    """
    kind = (device or prior.position_embedding.device).type
    if kind == "cuda":
        return "graph"
    if kind != "cpu" or prior.config.hidden_size > NATIVE_WIDEST or unsupported(prior, device) is not None:
        return "eager"
    return "native" if _has_library() else "eager"


def _has_library() -> bool:
    """Whether the steps in C can be had; says once why they cannot."""
    try:
        library()
    except NativeUnavailable as error:
        if str(error) not in _warned:
            _warned.add(str(error))
            logger.warning("sampling falls back to the slower `engine='eager'`: %s", error)
        return False
    return True
