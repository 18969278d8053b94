"""The prior: a sparse transformer over the codes of one level."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init

from fast_jukebox.models.loading import SubmodelLoadingMixin
from fast_jukebox.models.prior.block import BlockList, BlockStep, PriorBlock, rows_for
from fast_jukebox.models.prior.cache import LayerCache, PriorCache
from fast_jukebox.models.prior.conditioning import (
    LabelConditioner,
    PriorConditioning,
    UpperConditioner,
    check_codes,
    check_metadata,
    check_upper_codes,
)
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig
from fast_jukebox.models.prior.engines.interface import EngineDecoder
from fast_jukebox.models.prior.engines.selection import new_decoder
from fast_jukebox.models.prior.generation_prior import PriorGenerationMixin
from fast_jukebox.models.prior.losses import IGNORED_LABEL, cross_entropy, join_losses, share_of_batch, shifted
from fast_jukebox.models.prior.lyrics import LyricEncoder
from fast_jukebox.models.prior.outputs import FastJukeboxPriorOutput
from fast_jukebox.sampling.filtering import SamplingSettings
from fast_jukebox.sampling.threads import share_out


class FastJukeboxPriorPreTrainedModel(PreTrainedModel):
    """Base of the prior for loading, saving and initialising."""

    config_class = FastJukeboxPriorConfig
    base_model_prefix = "prior"
    main_input_name = "codes"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["PriorBlock"]  # noqa: RUF012 (transformers reads it from the class)
    _supports_sdpa = True
    # The loss is a sum over labels divided by `num_items_in_batch` where Trainer gives it.
    accepts_loss_kwargs = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=std)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            # torch's own default for convolutions.
            init.kaiming_uniform_(module.weight, a=5**0.5)
            init.zeros_(module.bias)
        elif isinstance(module, PriorBlock):
            # What is added to the residual stream is small at first, the smaller the deeper the model.
            for linear in (module.attention.projection, module.mlp.contract):
                init.normal_(linear.weight, std=std / (2 * self.config.num_hidden_layers) ** 0.5)
        elif isinstance(module, FastJukeboxPrior | LyricEncoder):
            init.copy_(module.position_embedding, sinusoids(*module.position_embedding.shape) * std)
            if module.start_token is not None:
                init.normal_(module.start_token, std=std)


class FastJukeboxPrior(SubmodelLoadingMixin, PriorGenerationMixin, FastJukeboxPriorPreTrainedModel):
    """Decoder-only transformer with factored attention over the codes of one level (Jukebox, section 4; Fast Jukebox,
    "Prior"): p(codes), p(codes | upper codes) for an upsampler, either given labels, and lyrics with them.

    At position t the transformer sees the embedding of code t-1 (at position 0 a start token, or the labels) plus a
    learned position plus the conditioning, and predicts code t.

    For distillation, a window can be walked block by block, so that no more activations live than are used:

    ```python
    hidden, conditioning = prior.embed(codes, upper_codes, metadata)
    for block in prior.blocks:
        hidden, attention_residual, attentions = block(hidden, True, lyric_states=conditioning.lyric_states)
    logits = prior.head(hidden, conditioning)
    ```

    Attention weights are computed explicitly where they are asked for (`output_attentions`, also under
    `attn_implementation="sdpa"`) and everywhere under `attn_implementation="eager"`.
    """

    composite_part = "priors"

    def __init__(self, config: FastJukeboxPriorConfig) -> None:
        config.validate()  # its fields may have changed since it was made
        super().__init__(config)
        width = config.hidden_size
        self.code_embedding = nn.Embedding(config.vocab_size, width)
        self.position_embedding = nn.Parameter(torch.empty(config.sequence_length, width))
        self.start_token = None if config.has_labels else nn.Parameter(torch.empty(1, width))
        self.upper_conditioner = UpperConditioner(config) if config.has_upper_level else None
        self.label_conditioner = LabelConditioner(config) if config.has_labels else None
        self.lyric_encoder = LyricEncoder(config) if config.has_lyric_encoder else None
        self.blocks = BlockList(PriorBlock(config, layer) for layer in range(config.num_hidden_layers))
        self.output = None if config.tie_word_embeddings else nn.Linear(width, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.code_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.code_embedding = cast(nn.Embedding, value)

    def get_output_embeddings(self) -> nn.Module | None:
        return self.output

    def forward(
        self,
        codes: Tensor,
        upper_codes: Tensor | None = None,
        metadata: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> FastJukeboxPriorOutput:
        """Score windows of codes.

        Args:
            codes: int64 (N, L) in [0, K), any 1 <= L <= n_ctx.
            upper_codes: int64 (N, L / upper_ratio), codes of the level above over the same span; None where there is
                no level above.
            metadata: int64 (N, metadata_length): total length, offset and window length in audio samples, artist,
                genres (-1 for an empty slot), then `lyric_length` characters (0 for none); the window length is that of
                a whole context. None without labels.
            labels: int64 (N, L), aligned with `codes` (often `codes` themselves); -100 is not counted.
            output_hidden_states: return each block's output and its state after the attention's residual.
            output_attentions: return each layer's attention weights.
            num_items_in_batch: divide the summed loss by this and not by the number of labels.

        Raises:
            ValueError: an input of another dtype, rank or length, a value out of its range, or a condition that is
                missing or that the prior does not have; names the input, the value and what is allowed.
        """
        hidden, conditioning = self.embed(codes, upper_codes, metadata)
        if labels is not None and labels is not codes:
            check_codes("labels", labels, self.config.codebook_size, ignored=IGNORED_LABEL)
            if labels.shape != codes.shape:
                raise ValueError(
                    f"`labels` must have the shape of `codes`, {tuple(codes.shape)}, got {tuple(labels.shape)}"
                )
        states: list[Tensor] = []
        residuals: list[Tensor] = []
        attentions: list[Tensor] = []
        for block in self.blocks:
            hidden, residual, weights = block(hidden, output_attentions, None, conditioning.lyric_states)
            if output_hidden_states:
                states.append(hidden)
                residuals.append(residual)
            if output_attentions:
                attentions.append(weights)
        output = FastJukeboxPriorOutput(
            hidden_states=tuple(states) if output_hidden_states else None,
            attention_residuals=tuple(residuals) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )
        if self.config.has_lyrics:
            return self._with_lyrics(output, hidden, conditioning, cast(Tensor, metadata), labels, num_items_in_batch)
        output.logits = self.head(hidden, conditioning)
        if labels is not None:
            output.loss = cross_entropy(output.logits, labels, num_items_in_batch)
        return output

    def embed(
        self, codes: Tensor, upper_codes: Tensor | None = None, metadata: Tensor | None = None
    ) -> tuple[Tensor, PriorConditioning]:
        """Input of the first block, (N, L, W), and the conditioning, for inputs as in `forward`."""
        check_codes("codes", codes, self.config.codebook_size)
        songs, length = codes.shape
        self._check_window(songs, length, "codes")
        check_upper_codes(upper_codes, self.config, songs, length)
        check_metadata(metadata, self.config, songs)
        conditioning = self._condition(songs, length, upper_codes, metadata)
        return self._embed(codes[:, :-1], conditioning), conditioning

    def head(self, hidden: Tensor, conditioning: PriorConditioning) -> Tensor:
        """Logits of the codes, (N, L, K), of the last block's output, (N, lyrics before the codes + L, W)."""
        prefix = self.config.lyric_prefix_length
        hidden = self._conditioned_again(hidden, conditioning)[:, prefix:]
        return F.linear(hidden, self._output_weight[self.config.code_offset :])

    def sequence_logits(self, hidden: Tensor, conditioning: PriorConditioning) -> Tensor:
        """Logits of lyrics and codes over their common vocabulary, (N, S, vocab_size), of the last block's output
        (N, S, W); where lyrics do not stand before the codes, those of `head`.
        """
        return F.linear(self._conditioned_again(hidden, conditioning), self._output_weight)

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
            layers.append(LayerCache.empty(attention.pattern, batch_size, heads, head_dim, dtype, device))
        return PriorCache(layers, batch_size)

    def block_steps(self, cache: PriorCache) -> list[BlockStep]:
        """Each block made ready to step with a cache; they hold the weights themselves, and not the prior."""
        return [BlockStep(block, layer) for block, layer in zip(self.blocks, cache.layers, strict=True)]

    def cache_nbytes(self, batch_size: int) -> int:
        """Bytes of the cache that `new_cache` makes for so many windows."""
        slots = sum(block.attention.pattern.capacity for block in self.blocks)
        return batch_size * slots * 2 * self.config.attention_size * self.position_embedding.element_size()

    def new_decoder(
        self, batch_size: int, settings: SamplingSettings, engine: str = "auto", threads: int = 1
    ) -> EngineDecoder | None:
        """See [`~fast_jukebox.models.prior.engines.selection.new_decoder`]."""
        return new_decoder(self, batch_size, settings, engine, threads)

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
        check_metadata(metadata, self.config, batch_size)
        if self.device.type != "cpu" or (self.upper_conditioner is None and self.lyric_encoder is None):
            return self._condition(batch_size, length, upper_codes, metadata)

        def one(song: int) -> PriorConditioning:
            upper = None if upper_codes is None else upper_codes[song : song + 1]
            return self._condition(1, length, upper, None if metadata is None else metadata[song : song + 1])

        # Song by song: the same numbers in any batch, and less memory.
        return PriorConditioning.joined(share_out(one, batch_size, after_song))

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
            ValueError: `position` does not follow the cache's last one, or is beyond the window.
        """
        if position != cache.length or not 0 < position < conditioning.length:
            raise ValueError(
                f"`position` must follow the {cache.length} positions that the cache has seen (`prefill` comes first) "
                f"and be less than {conditioning.length}, the window's length; got {position}"
            )
        place = self.config.lyric_prefix_length + position
        hidden = F.embedding(self._ids(code), self.code_embedding.weight)
        hidden = hidden + self.position_embedding.select(0, place)
        if conditioning.positions is not None:
            hidden.add_(conditioning.positions.select(1, place))
        logits = self._step(hidden, place, conditioning, cache)
        cache.length = position + 1
        return logits

    @property
    def _output_weight(self) -> Tensor:
        return self.code_embedding.weight if self.output is None else self.output.weight

    def drawn_rows(self, table: Tensor) -> Tensor:
        """A matrix over the vocabulary with its rows as they are drawn while sampling: the codes first, then the
        characters where lyrics and codes share one. The matrix itself where they do not.
        """
        offset = self.config.code_offset
        return table.roll(-offset, dims=0) if offset else table

    def _next_logits(self, hidden: Tensor) -> Tensor:
        """Logits of what can be drawn, as in `prefill`: (N, W) -> (N, ids)."""
        logits = F.linear(hidden, self._output_weight)
        offset = self.config.code_offset
        return logits.roll(-offset, dims=-1) if offset else logits

    def _ids(self, drawn: Tensor) -> Tensor:
        """Ids in the vocabulary of what was drawn."""
        offset = self.config.code_offset
        return (drawn + offset) % self.config.vocab_size if offset else drawn

    def _conditioned_again(self, hidden: Tensor, conditioning: PriorConditioning) -> Tensor:
        if conditioning.positions is None or not self.config.add_conditioning_after:
            return hidden
        return hidden + conditioning.positions[:, : hidden.shape[1]]

    def _check_window(self, songs: int, length: int, name: str) -> None:
        if songs < 1:
            raise ValueError(f"`{name}` must be of at least 1 song, got a batch of {songs}")
        if not 1 <= length <= self.config.n_ctx:
            raise ValueError(f"`{name}` must be 1 to {self.config.n_ctx} codes long, got {length}")

    def _condition(
        self, songs: int, length: int, upper_codes: Tensor | None, metadata: Tensor | None
    ) -> PriorConditioning:
        positions = None if self.upper_conditioner is None else self.upper_conditioner(upper_codes)
        if self.label_conditioner is None:
            start = cast(Tensor, self.start_token).expand(songs, 1, -1)  # (N, 1, W)
            return PriorConditioning(start, positions, length)
        metadata = cast(Tensor, metadata)  # None was refused before
        start = self.label_conditioner.start(metadata)
        if self.config.use_timing:
            timing = self.label_conditioner.timing(metadata, length)
            positions = timing if positions is None else positions + timing
        if not self.config.has_lyrics:
            return PriorConditioning(start, positions, length)
        lyrics = metadata[:, self.config.label_length :]
        if self.lyric_encoder is not None:
            return PriorConditioning(start, positions, length, lyric_states=self.lyric_encoder(lyrics))
        if positions is not None:
            positions = F.pad(positions, (0, 0, self.config.lyric_prefix_length, 0))
        return PriorConditioning(start, positions, length, lyrics=lyrics)

    def _embed(self, codes: Tensor, conditioning: PriorConditioning) -> Tensor:
        """Input of the lyrics, where they stand before the codes, and of code positions 0..P, for the codes (N, P)
        before them: (N, lyrics + P + 1, W).
        """
        ids = codes
        if conditioning.lyrics is not None:
            ids = torch.cat([conditioning.lyrics, codes + self.config.code_offset], dim=1)
        length = ids.shape[1] + 1
        hidden = torch.cat([conditioning.start, self.code_embedding(ids)], dim=1)
        hidden = hidden + self.position_embedding[:length]
        return hidden if conditioning.positions is None else hidden + conditioning.positions[:, :length]

    def _with_lyrics(
        self,
        output: FastJukeboxPriorOutput,
        hidden: Tensor,
        conditioning: PriorConditioning,
        metadata: Tensor,
        labels: Tensor | None,
        num_items_in_batch: Tensor | int | None,
    ) -> FastJukeboxPriorOutput:
        """`output` with the logits and losses of codes and lyrics."""
        config = self.config
        if self.lyric_encoder is None:
            logits = self.sequence_logits(hidden, conditioning)
            output.lyric_logits, code_logits = logits.tensor_split([config.lyric_length], dim=1)
            output.logits = code_logits[..., config.code_offset :]
        else:
            output.lyric_logits = self.lyric_encoder.logits(cast(Tensor, conditioning.lyric_states))
            output.logits = code_logits = self.head(hidden, conditioning)
        if labels is not None:
            output.code_loss = cross_entropy(code_logits, shifted(labels, config.code_offset), num_items_in_batch)
            output.lyric_loss = cross_entropy(output.lyric_logits, metadata[:, config.label_length :])
            output.loss = join_losses(
                output.code_loss,
                output.lyric_loss,
                labels.shape[1],
                config.lyric_length,
                config.lyric_loss_weight,
                share_of_batch(labels, num_items_in_batch),
            )
        return output

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
        spare = rows_for(songs, hidden.device) - songs
        if spare:
            hidden = F.pad(hidden, (0, 0, 0, spare))
        if not cache.steps:
            cache.steps = list(self.block_steps(cache))
        for block_step in cache.steps:
            hidden = block_step(hidden, position)
        if conditioning.positions is not None and self.config.add_conditioning_after:
            hidden.narrow(0, 0, songs).add_(conditioning.positions.select(1, position))
        logits = self._next_logits(hidden)
        return logits.narrow(0, 0, songs) if spare else logits


def sinusoids(length: int, width: int) -> Tensor:
    """Sines and cosines (length, width) of mean square 1, with periods from 2 pi to `length` in geometric steps.

    Learned positions start from these: with them a head can look a fixed number of positions back everywhere at once,
    where random ones would have to be learnt position by position.
    """
    pairs = (width + 1) // 2
    periods = torch.logspace(math.log2(2 * math.pi), math.log2(max(length, 8)), pairs, base=2.0)
    angles = 2 * math.pi * torch.arange(length, dtype=torch.float32)[:, None] / periods
    return math.sqrt(2.0) * torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]
