"""The lyric encoder: a small prior over characters whose states the music attends to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fast_jukebox.models.prior.block import LAYER_NORM_EPS, BlockList, PriorBlock
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig


class LyricEncoder(nn.Module):
    """Characters to states of the prior's width, and states to logits of the next character.

    It is autoregressive, as a prior is: state t has seen the characters before t and a start token.

    Args:
        config: of a prior with `lyric_encoder_layers`.
    """

    def __init__(self, config: FastJukeboxPriorConfig) -> None:
        super().__init__()
        self.config = config
        own = config.lyric_encoder_config
        self.character_embedding = nn.Embedding(config.lyric_vocab_size, own.hidden_size)
        self.position_embedding = nn.Parameter(torch.empty(config.lyric_length, own.hidden_size))
        self.start_token = nn.Parameter(torch.empty(1, own.hidden_size))
        self.blocks = BlockList(PriorBlock(own, layer) for layer in range(own.num_hidden_layers))
        self.project = nn.Linear(own.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.output = nn.Linear(config.hidden_size, config.lyric_vocab_size, bias=False)

    def forward(self, lyrics: Tensor) -> Tensor:
        """int64 (N, lyric_length) -> (N, lyric_length, W)."""
        start = self.start_token.expand(lyrics.shape[0], 1, -1)
        hidden = torch.cat([start, self.character_embedding(lyrics[:, :-1])], dim=1) + self.position_embedding
        # The blocks' own configuration is a derived one, which does not hear of a change of the prior's.
        eager = self.config._attn_implementation == "eager"
        for block in self.blocks:
            hidden = block(hidden, eager)[0]
        return self.norm(self.project(hidden))

    def logits(self, states: Tensor) -> Tensor:
        """Logits of each character: (N, lyric_length, W) -> (N, lyric_length, lyric_vocab_size)."""
        return self.output(states)
