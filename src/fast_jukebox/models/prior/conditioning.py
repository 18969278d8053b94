"""Conditioning of a prior on the codes of the level above and on the song's labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fast_jukebox.models.prior.block import LAYER_NORM_EPS, BlockList, PriorBlock
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig
from fast_jukebox.models.vqvae.layers import DecoderStage
from fast_jukebox.sampling.checks import are_values_checked, check_codes


@dataclass(frozen=True)
class PriorConditioning:
    """Conditioning of a batch of windows, computed once for them.

    Args:
        start: (N, 1, W), what stands at position 0 in place of a code's embedding.
        positions: (N, lyrics before the codes + length, W), what is added at each position of the sequence, zero over
            such lyrics; None where nothing is.
        length: codes that it is good for.
        lyrics: int64 (N, lyric_length), the characters that stand before the codes; None where none do.
        lyric_states: (N, lyric_length, W), what the lyric encoder made of them; None where there is none.
    """

    start: Tensor
    positions: Tensor | None
    length: int
    lyrics: Tensor | None = None
    lyric_states: Tensor | None = None

    def songs(self, start: int, count: int) -> PriorConditioning:
        """The conditioning of `count` of the songs."""

        def some(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.narrow(0, start, count)

        return PriorConditioning(
            self.start.narrow(0, start, count),
            some(self.positions),
            self.length,
            some(self.lyrics),
            some(self.lyric_states),
        )

    @staticmethod
    def joined(songs: Sequence[PriorConditioning]) -> PriorConditioning:
        """The conditioning of all songs of the given ones, which are of one length."""

        def together(tensors: list[Tensor | None]) -> Tensor | None:
            there = [tensor for tensor in tensors if tensor is not None]
            return torch.cat(there) if there else None

        return PriorConditioning(
            torch.cat([song.start for song in songs]),
            together([song.positions for song in songs]),
            songs[0].length,
            together([song.lyrics for song in songs]),
            together([song.lyric_states for song in songs]),
        )

    @staticmethod
    def gathered(parts: Iterable[PriorConditioning], songs: int) -> PriorConditioning:
        """`joined` in the memory of the result and one part: each part is freed before the next one is made.

        Args:
            parts: of so many songs together, made as they are asked for.
            songs: N.
        """
        names, done = ("start", "positions", "lyrics", "lyric_states"), 0
        joined: dict[str, Tensor | None] = {}
        length = 0
        for part in parts:
            count = len(part.start)
            for name in names:
                own: Tensor | None = getattr(part, name)
                if done == 0:
                    joined[name] = None if own is None else own.new_empty((songs, *own.shape[1:]))
                target = joined[name]
                if own is not None and target is not None:
                    target.narrow(0, done, count).copy_(own)
            length, done = part.length, done + count
            del part, own
        return PriorConditioning(cast(Tensor, joined.pop("start")), length=length, **joined)


class UpperConditioner(nn.Module):
    """Codes of the level above to what is added at each position of this level.

    Embedding, a decoder stage as in the VQ-VAE (its dilations not reversed), LayerNorm.

    Args:
        config: of a prior with `upsampling_strides`.
    """

    def __init__(self, config: FastJukeboxPriorConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.code_embedding = nn.Embedding(config.upper_codebook_size or config.codebook_size, width)
        self.stage = DecoderStage(
            width,
            width,
            config.upsampling_strides or (),
            config.conditioner_width,
            config.conditioner_depth,
            inner_width=max(1, int(config.conditioner_conv_multiplier * config.conditioner_width)),
            dilation_growth_rate=config.conditioner_dilation_growth_rate,
            dilation_cycle=config.conditioner_dilation_cycle,
            scale_residual=config.conditioner_residual_scale,
        )
        self.norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, upper_codes: Tensor) -> Tensor:
        """(N, L / upper_ratio) -> (N, L, W)."""
        hidden = self.code_embedding(upper_codes).transpose(1, 2)
        return self.norm(self.stage(hidden).transpose(1, 2))


class LabelConditioner(nn.Module):
    """The label vector to the start of a window and, where the prior uses timing, to what is added at each position.

    Args:
        config: of a prior with artists and genres.
    """

    def __init__(self, config: FastJukeboxPriorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.artist_embedding = nn.Embedding(config.num_artists, width)
        self.genre_embedding = nn.Embedding(config.num_genres, width)
        if config.use_timing:
            self.total_length_embedding = nn.Embedding(config.timing_bins, width)
            self.absolute_position_embedding = nn.Embedding(config.timing_bins, width)
            self.relative_position_embedding = nn.Embedding(config.timing_bins, width)
        if config.genre_period:
            self.rhythm_embedding = nn.Parameter(torch.empty(config.num_genres, config.genre_period, width))

    @torch.no_grad()
    def grow(
        self,
        num_artists: int,
        num_genres: int,
        known_artists: Collection[int] = (),
        known_genres: Collection[int] = (),
    ) -> None:
        """Add artists and genres; those that there are keep their rows bit for bit. New genres have the rhythm of the
        unknown one.

        Args:
            num_artists, num_genres: that there are then.
            known_artists, known_genres: ids whose rows' mean the new ones begin as; by default the unknown one's, 0.

        Raises:
            ValueError: there are more already.
        """
        for kind, rows, known in (("artist", num_artists, known_artists), ("genre", num_genres, known_genres)):
            old = getattr(self, f"{kind}_embedding").weight
            if rows < len(old):
                raise ValueError(f"`num_{kind}s` must be at least the {len(old)} that there are, got {rows}")
            if rows == len(old):
                continue
            new = old[sorted(known) or [0]].float().mean(0, keepdim=True).to(old.dtype).expand(rows - len(old), -1)
            grown = nn.Embedding.from_pretrained(torch.cat([old, new]), freeze=not old.requires_grad)
            setattr(self, f"{kind}_embedding", grown)
            if kind == "genre" and self.config.genre_period:
                rhythm = self.rhythm_embedding
                unknown = rhythm[:1].expand(rows - len(old), -1, -1)
                self.rhythm_embedding = nn.Parameter(torch.cat([rhythm, unknown]), rhythm.requires_grad)
        self.config.num_artists, self.config.num_genres = num_artists, num_genres

    def start(self, metadata: Tensor) -> Tensor:
        """Sum of the artist's and the genres' embeddings: (N, label vector) -> (N, 1, W)."""
        genres = metadata[:, 4 : self.config.label_length]
        embedded = self.genre_embedding(genres.clamp(min=0)) * (genres >= 0).unsqueeze(-1)
        return self.artist_embedding(metadata[:, 3:4]) + embedded.sum(1, keepdim=True)

    def timing(self, metadata: Tensor, length: int) -> Tensor:
        """Total length and absolute and relative position of the first `length` positions, and their places in the
        genres' rhythm where there is one: (N, length, W).

        The metadata's window length is that of the context; position t stands at offset + t / n_ctx of it.
        """
        config = self.config
        shortest, longest = (seconds * config.sampling_rate for seconds in (config.min_duration, config.max_duration))
        total, offset, window = metadata[:, :3].float().split(1, dim=1)
        share = torch.arange(length, device=metadata.device, dtype=torch.float32) / config.n_ctx
        relative_start, relative_end = offset / total, ((offset + window) / total).clamp(max=1.0)
        positions = (
            self.total_length_embedding(self._bin(total, shortest, longest))
            + self.absolute_position_embedding(self._bin(offset + window * share, 0.0, longest))
            + self.relative_position_embedding(
                self._bin(relative_start + (relative_end - relative_start) * share, 0.0, 1.0)
            )
        )
        return positions + self._rhythm(metadata, length) if config.genre_period else positions

    def _rhythm(self, metadata: Tensor, length: int) -> Tensor:
        """Sum of the genres' vectors of the places of the first `length` positions in the period: (N, length, W)."""
        config = self.config
        genres = metadata[:, 4 : config.label_length]
        own = self.rhythm_embedding[genres.clamp(min=0)]  # (N, genres, period, W)
        period = (own * (genres >= 0)[..., None, None]).sum(1)
        first = metadata[:, 1:2] // config.hop_length  # (N, 1)
        places = (first + torch.arange(length, device=metadata.device)) % config.genre_period
        songs = torch.arange(len(period), device=metadata.device)[:, None] * config.genre_period
        return F.embedding(songs + places, period.flatten(0, 1))

    def _bin(self, value: Tensor, low: float, high: float) -> Tensor:
        bins = self.config.timing_bins
        return (bins * ((value - low) / (high - low))).floor().long().clamp(0, bins - 1)


def check_upper_codes(
    upper_codes: Tensor | None, config: FastJukeboxPriorConfig, songs: int | None, length: int
) -> None:
    """Refuse `upper_codes` that do not fit windows of `length` codes of a prior, so many or any number of them.

    Raises:
        ValueError: they are missing, not wanted, of another batch size or length, or outside the codebook.
    """
    if config.upsampling_strides is None:
        if upper_codes is not None:
            raise ValueError(f"`upper_codes` must be None: level {config.level} has no level above it")
        return
    if upper_codes is None:
        raise ValueError(f"`upper_codes` must be given: the prior of level {config.level} needs the level above")
    check_codes("upper_codes", upper_codes, config.upper_codebook_size or config.codebook_size)
    ratio = config.upper_ratio
    if length % ratio:
        raise ValueError(
            f"`upper_codes` stand for {ratio} codes each, so the length must be a multiple of {ratio}, got {length}"
        )
    songs = len(upper_codes) if songs is None else songs
    if tuple(upper_codes.shape) != (songs, length // ratio):
        raise ValueError(
            f"`upper_codes` must have the shape ({songs}, {length // ratio}) for {songs} x {length} codes, "
            f"got {tuple(upper_codes.shape)}"
        )


def check_label_vectors(metadata: Tensor | None, config: FastJukeboxPriorConfig, songs: int) -> None:
    """Refuse `metadata` that are no label vectors of `songs` songs for a prior.

    Raises:
        ValueError: they are missing, not wanted, of another shape, or a value is out of its range.
    """
    if not config.has_labels:
        if metadata is not None:
            raise ValueError("`metadata` must be None: the prior has no labels")
        return
    shape = (songs, config.metadata_length)
    if metadata is None:
        raise ValueError(f"`metadata` must be given: the prior has labels; wanted is int64 {shape}")
    if metadata.dtype != torch.int64 or tuple(metadata.shape) != shape:
        raise ValueError(f"`metadata` must be int64 of shape {shape}, got {metadata.dtype} of {tuple(metadata.shape)}")
    if metadata.is_meta or are_values_checked():
        return
    for row in metadata[:, : config.label_length].tolist():
        _check_labels(row, config)
    if config.has_lyrics:
        low, high = torch.stack(torch.aminmax(metadata[:, config.label_length :])).tolist()
        if low < 0 or high >= config.lyric_vocab_size:
            raise ValueError(
                f"`metadata` lyrics must be characters in [0, {config.lyric_vocab_size}), got "
                f"{low if low < 0 else high}"
            )


def _check_labels(row: list[int], config: FastJukeboxPriorConfig) -> None:
    total, offset, window, artist, *genres = row
    if not 0 <= artist < config.num_artists:
        raise ValueError(f"`metadata` artist must be in [0, {config.num_artists}), got {artist}")
    for genre in genres:
        if not -1 <= genre < config.num_genres:
            raise ValueError(f"`metadata` genre must be in [0, {config.num_genres}) or -1 for none, got {genre}")
    if not config.use_timing:
        return
    shortest, longest = (seconds * config.sampling_rate for seconds in (config.min_duration, config.max_duration))
    if not shortest <= total < longest:
        raise ValueError(
            f"`metadata` total length must be in [{shortest:g}, {longest:g}) samples ({config.min_duration:g} to "
            f"{config.max_duration:g} seconds), got {total}"
        )
    if not 0 <= offset < total:
        raise ValueError(f"`metadata` offset must be in [0, {total}) samples, the total length, got {offset}")
    if not 0 <= window <= longest - offset:
        raise ValueError(f"`metadata` window length must be in [0, {longest - offset:g}] samples, got {window}")


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
        # The blocks have a copy of the configuration, which does not change with the prior's.
        eager = self.config._attn_implementation == "eager"
        for block in self.blocks:
            hidden = block(hidden, eager)[0]
        return self.norm(self.project(hidden))

    def logits(self, states: Tensor) -> Tensor:
        """Logits of each character: (N, lyric_length, W) -> (N, lyric_length, lyric_vocab_size)."""
        return self.output(states)
