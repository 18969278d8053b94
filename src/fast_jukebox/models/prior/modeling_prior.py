"""The prior: a sparse transformer over the codes of one level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from fast_jukebox.models.loading import SubmodelLoadingMixin
from fast_jukebox.models.prior.block import BlockList, PriorBlock, autocast_bfloat16
from fast_jukebox.models.prior.conditioning import (
    LabelConditioner,
    LyricEncoder,
    PriorConditioning,
    UpperConditioner,
    check_label_vectors,
    check_upper_codes,
)
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig
from fast_jukebox.models.prior.features_prior import PriorFeaturesMixin
from fast_jukebox.models.prior.generation_prior import PriorGenerationMixin
from fast_jukebox.models.prior.sampling_prior import PriorSamplingMixin
from fast_jukebox.sampling.checks import check_codes


@dataclass
class FastJukeboxPriorOutput(ModelOutput):
    """Output of [`FastJukeboxPrior.forward`].

    S is the sequence: L codes, and before them the lyrics where they stand there.

    Args:
        loss (`Tensor` scalar): where labels were given, cross entropy in nats a code; of a prior with lyrics the sum of
            `code_loss` and `lyric_loss`, each times its fraction of positions, the latter also `lyric_loss_weight`.
        logits (`Tensor` (N, L, K)): position t's logits predict code t.
        hidden_states (`tuple` of `Tensor` (N, S, W)): output of each block, where `output_hidden_states`.
        attention_residuals (`tuple` of `Tensor` (N, S, W)): inside each block, the state after the attention's
            residual, where `output_hidden_states`.
        attentions (`tuple` of `Tensor`): weights of each layer in its pattern's own layout, where
            `output_attentions`: dense (N, H, S, S); row and previous row (N * rows, H, row_length, row_length);
            column (N * row_length, H, rows, rows); lyric cross (N, H, S, lyric_length); lyric prefix
            (N, H, S, lyric_prefix_keys).
        code_loss (`Tensor` scalar): nats a code, of a prior with lyrics.
        lyric_loss (`Tensor` scalar): nats a character, of a prior with lyrics.
        lyric_logits (`Tensor` (N, lyric_length, ids)): of each character, of a prior with lyrics; over the common
            vocabulary of characters and codes where they share one.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attention_residuals: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    code_loss: Tensor | None = None
    lyric_loss: Tensor | None = None
    lyric_logits: Tensor | None = None


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
        elif isinstance(module, LabelConditioner) and self.config.genre_period:
            init.zeros_(module.rhythm_embedding)
        elif isinstance(module, FastJukeboxPrior | LyricEncoder):
            init.copy_(module.position_embedding, sinusoids(*module.position_embedding.shape) * std)
            if module.start_token is not None:
                init.normal_(module.start_token, std=std)


class FastJukeboxPrior(
    SubmodelLoadingMixin,
    PriorGenerationMixin,
    PriorFeaturesMixin,
    PriorSamplingMixin,
    FastJukeboxPriorPreTrainedModel,
):
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
                a context. None without labels.
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
        check_label_vectors(metadata, self.config, songs)
        conditioning = self._condition(songs, length, upper_codes, metadata)
        hidden = self._embed(codes[:, :-1], conditioning)
        return hidden.to(torch.bfloat16) if autocast_bfloat16(hidden.device) else hidden, conditioning

    def head(self, hidden: Tensor, conditioning: PriorConditioning) -> Tensor:
        """Logits of the codes, (N, L, K), of the last block's output, (N, lyrics before the codes + L, W)."""
        prefix = self.config.lyric_prefix_length
        hidden, offset = self._conditioned_again(hidden, conditioning)[:, prefix:], self.config.code_offset
        if self.output is not None:
            return self.output(hidden)[..., offset:]
        return F.linear(hidden, self.code_embedding.weight[offset:])

    def sequence_logits(self, hidden: Tensor, conditioning: PriorConditioning) -> Tensor:
        """Logits of lyrics and codes over their common vocabulary, (N, S, vocab_size), of the last block's output
        (N, S, W); where lyrics do not stand before the codes, those of `head`.
        """
        return self._logits(self._conditioned_again(hidden, conditioning))

    def _conditioned_again(self, hidden: Tensor, conditioning: PriorConditioning) -> Tensor:
        if conditioning.positions is None or not self.config.add_conditioning_after:
            return hidden
        return hidden + conditioning.positions[:, : hidden.shape[1]].to(hidden.dtype)

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


def sinusoids(length: int, width: int) -> Tensor:
    """Sines and cosines (length, width) of mean square 1, with periods from 2 pi to `length` in geometric steps.

    Learned positions start from these: with them a head can look a fixed number of positions back everywhere at once,
    where random ones would have to be learnt position by position.
    """
    pairs = (width + 1) // 2
    periods = torch.logspace(math.log2(2 * math.pi), math.log2(max(length, 8)), pairs, base=2.0)
    angles = 2 * math.pi * torch.arange(length, dtype=torch.float32)[:, None] / periods
    return math.sqrt(2.0) * torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]


IGNORED_LABEL = -100


def cross_entropy(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Nats a label, in float32.

    Args:
        logits: (N, L, ids).
        labels: int64 (N, L) in [0, ids), or -100 for what is not counted.
        num_items_in_batch: divide the sum by this and not by the number of labels.
    """
    total = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="sum")
    count = (labels != IGNORED_LABEL).sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
    return total / count


def join_losses(
    code_loss: Tensor,
    lyric_loss: Tensor,
    code_count: int,
    character_count: int,
    lyric_weight: float,
    share: Tensor | float = 1.0,
) -> Tensor:
    """The loss of codes and lyrics: each weighted by its fraction of positions, the lyrics also by `lyric_weight`.

    Args:
        code_loss: nats a code, divided as `share` says.
        lyric_loss: nats a character.
        code_count: codes of a window.
        character_count: characters of a window.
        lyric_weight: `lyric_loss_weight` of the prior.
        share: this batch's fraction of the labels that `code_loss` was divided by, where gradients are accumulated.
    """
    positions = code_count + character_count
    lyric_share = lyric_weight * character_count / positions
    return code_loss * (code_count / positions) + lyric_loss * (lyric_share * share)


def share_of_batch(labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor | float:
    """Fraction that `labels` are of the labels of all accumulated batches; 1 where there are no others."""
    return 1.0 if num_items_in_batch is None else (labels != IGNORED_LABEL).sum() / num_items_in_batch


def shifted(labels: Tensor, offset: int) -> Tensor:
    """Labels as ids of a vocabulary in which the codes begin at `offset`; what is not counted stays so."""
    return labels if offset == 0 else torch.where(labels == IGNORED_LABEL, labels, labels + offset)
