"""Configuration of a prior: the transformer over the codes of one level."""

from __future__ import annotations

from collections.abc import Sequence

from fast_jukebox.models.configuration_utils import FastJukeboxBaseConfig, check_bool, check_float, check_int

# The attention patterns that `attention_patterns` may name.
PATTERN_NAMES = ("dense", "row", "column", "previous_row")


class FastJukeboxPriorConfig(FastJukeboxBaseConfig):
    r"""Configuration of a [`FastJukeboxPrior`]. The defaults are those of the unconditional top prior of Fast Jukebox.

    Args:
        level (`int`, defaults to 2): the level whose codes are modelled, 0 is the bottom.
        codebook_size (`int`, defaults to 2048): codes that exist at this level, K.
        n_ctx (`int`, defaults to 6144): context, in codes. A multiple of `blocks`.
        blocks (`int`, defaults to 64): rows that the context is laid out in; a row has `n_ctx / blocks` codes.
        hidden_size (`int`, defaults to 2048): width W of the transformer.
        num_hidden_layers (`int`, defaults to 72): depth.
        num_attention_heads (`int`, defaults to 2): heads of each attention; they divide its width.
        attention_ratio (`float`, defaults to 0.25): width of queries, keys and values as a share of `hidden_size`.
        mlp_ratio (`float`, defaults to 1.0): inner width of the MLP as a share of `hidden_size`.
        attention_patterns (`list[str]`, defaults to `["row", "column", "previous_row"]`): the cycle of patterns that
            the layers go through, words of `dense`, `row`, `column`, `previous_row`.
        residual_scale (`bool`, defaults to `False`): multiply both residual branches by 1 / depth.
        tie_output (`bool`, defaults to `True`): the output matrix is the code embedding.
        add_conditioning_after (`bool`, defaults to `True`): add the conditioning once more after the last block.
        upper_downs (`int`, *optional*): how often the level above halves (or, with another stride, divides) this
            level's codes; None for the top level, which has none above it.
        upper_stride (`int`, defaults to 2): its stride, even.
        upper_codebook_size (`int`, *optional*): codes that exist at the level above; `codebook_size` where None.
        conditioner_width (`int`, defaults to 1024): channels of the conditioner on the level above.
        conditioner_depth (`int`, defaults to 16): residual blocks before each of its upsamplings.
        conditioner_conv_multiplier (`float`, defaults to 1.0): inner channels of its residual blocks, as a share.
        conditioner_dilation_growth_rate (`int`, defaults to 3): block i has dilation `rate ** (i mod cycle)`.
        conditioner_dilation_cycle (`int`, *optional*, defaults to 8): that cycle, None for none.
        conditioner_residual_scale (`bool`, defaults to `False`): multiply its residual branches by 1 / sqrt(depth).
        num_artists, num_genres (`int`, default to 0): artists and genres that exist; 0 (both) for a prior without
            labels.
        max_genres (`int`, defaults to 1): genre slots of the metadata.
        use_timing (`bool`, defaults to `False`): a labelled prior is also told where in the song each code stands.
        timing_bins (`int`, defaults to 64): bins of each of the three timing embeddings.
        min_duration, max_duration (`float`, default to 17.84 and 600.0): seconds, `[min, max)`, that a song may last.
        sampling_rate (`int`, defaults to 44100): audio samples a second.
        hop_length (`int`, defaults to 128): audio samples that a code stands for.
        initializer_range (`float`, defaults to 0.02): standard deviation of the initial weights.
    """

    model_type = "fast_jukebox_prior"

    level: int = 2
    codebook_size: int = 2048
    n_ctx: int = 6144
    blocks: int = 64
    hidden_size: int = 2048
    num_hidden_layers: int = 72
    num_attention_heads: int = 2
    attention_ratio: float = 0.25
    mlp_ratio: float = 1.0
    attention_patterns: list[str] | tuple[str, ...] = ("row", "column", "previous_row")
    residual_scale: bool = False
    tie_output: bool = True
    add_conditioning_after: bool = True
    upper_downs: int | None = None
    upper_stride: int = 2
    upper_codebook_size: int | None = None
    conditioner_width: int = 1024
    conditioner_depth: int = 16
    conditioner_conv_multiplier: float = 1.0
    conditioner_dilation_growth_rate: int = 3
    conditioner_dilation_cycle: int | None = 8
    conditioner_residual_scale: bool = False
    num_artists: int = 0
    num_genres: int = 0
    max_genres: int = 1
    use_timing: bool = False
    timing_bins: int = 64
    min_duration: float = 17.84
    max_duration: float = 600.0
    sampling_rate: int = 44100
    hop_length: int = 128
    initializer_range: float = 0.02

    @property
    def block_ctx(self) -> int:
        """Codes in a row of the context."""
        return self.n_ctx // self.blocks

    @property
    def layer_patterns(self) -> list[str]:
        """The attention pattern of each layer."""
        cycle = self.attention_patterns
        return [cycle[layer % len(cycle)] for layer in range(self.num_hidden_layers)]

    @property
    def attention_size(self) -> int:
        """Width of queries, keys and values, all heads together."""
        return int(self.attention_ratio * self.hidden_size)

    @property
    def mlp_size(self) -> int:
        """Inner width of the MLP."""
        return int(self.mlp_ratio * self.hidden_size)

    @property
    def has_upper_level(self) -> bool:
        """Whether the prior is an upsampler, conditioned on the level above."""
        return self.upper_downs is not None

    @property
    def upper_ratio(self) -> int:
        """Codes of this level a code of the level above stands for; 1 where there is none above."""
        return 1 if self.upper_downs is None else self.upper_stride**self.upper_downs

    @property
    def has_labels(self) -> bool:
        """Whether the prior is conditioned on artist and genre (and timing, where `use_timing`)."""
        return self.num_artists > 0

    @property
    def metadata_length(self) -> int:
        """Width of the label vector: total length, offset, window length, artist, genres; 0 without labels."""
        return 4 + self.max_genres if self.has_labels else 0

    def validate(self) -> None:
        """See [`FastJukeboxBaseConfig.validate`]."""
        check_int("level", self.level, minimum=0)
        sizes = ("codebook_size", "n_ctx", "blocks", "hidden_size", "num_hidden_layers", "num_attention_heads")
        for name in (*sizes, "max_genres", "timing_bins", "sampling_rate", "hop_length"):
            check_int(name, getattr(self, name))
        for name in ("attention_ratio", "mlp_ratio", "initializer_range"):
            check_float(name, getattr(self, name), 0.0, open_minimum=True)
        for name in ("residual_scale", "tie_output", "add_conditioning_after", "use_timing"):
            check_bool(name, getattr(self, name))
        self._validate_attention()
        self._validate_upper()
        self._validate_labels()

    def _validate_attention(self) -> None:
        if self.n_ctx % self.blocks:
            raise ValueError(f"`n_ctx` must be a multiple of `blocks` ({self.blocks}), got {self.n_ctx}")
        if self.attention_size < 1 or self.attention_size % self.num_attention_heads:
            raise ValueError(
                f"`num_attention_heads` must divide the attention's width, attention_ratio * hidden_size = "
                f"{self.attention_size}, got {self.num_attention_heads}"
            )
        if self.mlp_size < 1:
            raise ValueError(f"`mlp_ratio` * hidden_size must be at least 1, got {self.mlp_ratio} * {self.hidden_size}")
        patterns, allowed = self.attention_patterns, ", ".join(PATTERN_NAMES)
        if not isinstance(patterns, Sequence) or isinstance(patterns, str) or not patterns:
            raise ValueError(f"`attention_patterns` must be a list of words of {allowed}, got {patterns!r}")
        for word in patterns:
            if word not in PATTERN_NAMES:
                raise ValueError(f"`attention_patterns` must be words of {allowed}, got {word!r}")

    def _validate_upper(self) -> None:
        if self.upper_downs is None:
            return
        check_int("upper_downs", self.upper_downs)
        check_int("upper_stride", self.upper_stride, minimum=2)
        if self.upper_stride % 2:
            raise ValueError(f"`upper_stride` must be even, so that lengths divide exactly, got {self.upper_stride}")
        if self.n_ctx % self.upper_ratio:
            raise ValueError(
                f"`n_ctx` must be a multiple of upper_stride ** upper_downs = {self.upper_ratio}, got {self.n_ctx}"
            )
        if self.upper_codebook_size is not None:
            check_int("upper_codebook_size", self.upper_codebook_size)
        for name in ("conditioner_width", "conditioner_depth", "conditioner_dilation_growth_rate"):
            check_int(name, getattr(self, name))
        if self.conditioner_dilation_cycle is not None:
            check_int("conditioner_dilation_cycle", self.conditioner_dilation_cycle)
        check_float("conditioner_conv_multiplier", self.conditioner_conv_multiplier, 0.0, open_minimum=True)
        check_bool("conditioner_residual_scale", self.conditioner_residual_scale)

    def _validate_labels(self) -> None:
        check_int("num_artists", self.num_artists, minimum=0)
        check_int("num_genres", self.num_genres, minimum=0)
        if (self.num_artists > 0) != (self.num_genres > 0):
            raise ValueError(
                f"`num_genres` must be positive where `num_artists` ({self.num_artists}) is and 0 where it is 0, "
                f"got {self.num_genres}"
            )
        if self.use_timing and not self.has_labels:
            raise ValueError("`use_timing` must be False where `num_artists` is 0: timing is part of the labels")
        check_float("min_duration", self.min_duration, 0.0)
        check_float("max_duration", self.max_duration, self.min_duration, open_minimum=True)


__all__ = ["PATTERN_NAMES", "FastJukeboxPriorConfig"]
