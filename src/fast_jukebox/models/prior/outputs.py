"""Output of a prior."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class FastJukeboxPriorOutput(ModelOutput):
    """Output of [`FastJukeboxPrior.forward`].

    S is the sequence: L codes, and before them the lyrics where they stand there.

    Args:
        loss (`Tensor` scalar): where labels were given, cross entropy in nats a code; of a prior with lyrics the sum of
            `code_loss` and `lyric_loss`, each times its share of positions, the latter also times `lyric_loss_weight`.
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
