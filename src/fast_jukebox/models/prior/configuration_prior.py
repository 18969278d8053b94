"""Configuration of a prior: the transformer over the codes of one level."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fast_jukebox.models.configuration_utils import (
    MOST,
    MOST_ENTRIES,
    MOST_FACTOR,
    FastJukeboxBaseConfig,
    check_bool,
    check_dilations,
    check_float,
    check_int,
    check_int_list,
)
from fast_jukebox.utils.text import shown

# The attention patterns, which `layer_types` is made of.
PATTERN_NAMES = ("dense", "row", "column", "previous_row", "lyric_cross", "lyric_prefix")

# The largest values of fields, see `MOST`; sizes that are products of fields are bounded too.
_LARGEST = {
    "codebook_size": 2**20,
    "n_ctx": 2**20,
    "num_rows": 2**20,
    "hidden_size": 2**16,
    "num_hidden_layers": 1024,
    "num_attention_heads": 1024,
    "max_genres": 1024,
    "genre_period": 2**14,
    "timing_bins": 2**16,
    "sampling_rate": 2**20,
    "lyric_length": 2**16,
    "lyric_vocab_size": 2**20,
    "upper_codebook_size": 2**20,
    "conditioner_width": 2**14,
    "conditioner_depth": 256,
    "conditioner_dilation_growth_rate": 1024,
    "conditioner_dilation_cycle": 256,
}
_LARGEST_STRIDE = 64


class FastJukeboxPriorConfig(FastJukeboxBaseConfig):
    r"""Configuration of a [`FastJukeboxPrior`]. The defaults are those of the unconditional top prior of Fast Jukebox.

    Args:
        level (`int`, defaults to 2): the level whose codes are modelled, 0 is the bottom.
        codebook_size (`int`, defaults to 2048): codes that exist at this level, K.
        n_ctx (`int`, defaults to 6144): context, in codes. A multiple of `num_rows`.
        num_rows (`int`, defaults to 64): rows that the context is laid out in; a row has `n_ctx / num_rows` codes.
        hidden_size (`int`, defaults to 2048): width W of the transformer.
        num_hidden_layers (`int`, defaults to 72): depth.
        num_attention_heads (`int`, defaults to 2): heads of each attention; they divide its width.
        attention_ratio (`float`, defaults to 0.25): width of queries, keys and values as a fraction of `hidden_size`.
        mlp_ratio (`float`, defaults to 1.0): inner width of the MLP as a fraction of `hidden_size`.
        layer_types (`list[str]`, defaults to `["row", "column", "previous_row"]`): the attention pattern of each layer,
            of `dense`, `row`, `column`, `previous_row`, and with lyrics `lyric_cross` (where they have an encoder) or
            `lyric_prefix` (where they stand before the codes). A list of another length than `num_hidden_layers` is
            repeated, and cut where it is longer.
        residual_scale (`bool`, defaults to `False`): multiply both residual branches by 1 / depth.
        tie_word_embeddings (`bool`, defaults to `True`): the output matrix is the code embedding.
        add_conditioning_after (`bool`, defaults to `True`): add the conditioning once more after the last block.
        upsampling_strides (`list[int]`, *optional*): strides, each even, of the convolutions that bring the codes of
            the level above to this level's rate, the first one next to the codes above; their product is the ratio of
            the two rates. None for the top level, which has none above it.
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
        use_timing (`bool`, defaults to `False`): condition a labelled prior on each code's place in the song too.
        genre_period (`int`, defaults to 0): codes after which the rhythm of every genre recurs, for songs of steady
            tempi that begin on a beat. With `use_timing`, each position has a vector of the song's genres and of its
            place in the period, counted from the song's start; 0 for none.
        timing_bins (`int`, defaults to 64): bins of each of the three timing embeddings.
        min_duration, max_duration (`float`, default to 17.84 and 600.0): seconds, `[min, max)`, that a song may last.
        lyric_length (`int`, defaults to 0): characters of lyrics that a labelled prior receives, as the last ids of
            its label vector; 0 for a prior without lyrics.
        lyric_vocab_size (`int`, defaults to 80): characters that exist; 0 is the unknown one and stands for none.
        lyric_encoder_layers (`int`, *optional*): depth of the encoder that reads the lyrics; None for lyrics that stand
            before the codes, in one sequence of `lyric_length + n_ctx` positions and one vocabulary with them.
        lyric_encoder_hidden_size, lyric_encoder_heads, lyric_encoder_num_rows (`int`, default to 1280, 4 and 32): its
            width, heads, and rows that `lyric_length` is laid out in.
        lyric_encoder_attention_ratio, lyric_encoder_mlp_ratio (`float`, default to 0.25 and 1.0): as `attention_ratio`
            and `mlp_ratio`.
        lyric_encoder_residual_scale (`bool`, defaults to `False`): as `residual_scale`.
        lyric_loss_weight (`float`, defaults to 0.4): weight of the loss of predicting the next character.
        alignment_layer, alignment_head (`int`, *optional*): the layer and its head whose attention to the lyrics shows
            which character is sung when, where that is known.
        teacher_layers (`list[int]`, *optional*): of a distilled prior the teacher's layer that each layer learnt from;
            dropped where the depth is changed.
        sampling_rate (`int`, defaults to 44100): audio samples a second.
        hop_length (`int`, defaults to 128): audio samples that a code stands for.
        initializer_range (`float`, defaults to 0.02): standard deviation of the initial weights.
    """

    model_type = "fast_jukebox_prior"
    keys_to_ignore_at_inference = ["code_loss", "lyric_loss", "lyric_logits"]  # noqa: RUF012 (read by the Trainer)

    level: int = 2
    codebook_size: int = 2048
    n_ctx: int = 6144
    num_rows: int = 64
    hidden_size: int = 2048
    num_hidden_layers: int = 72
    num_attention_heads: int = 2
    attention_ratio: float = 0.25
    mlp_ratio: float = 1.0
    layer_types: list[str] | tuple[str, ...] = ("row", "column", "previous_row")
    residual_scale: bool = False
    tie_word_embeddings: bool = True
    add_conditioning_after: bool = True
    upsampling_strides: list[int] | tuple[int, ...] | None = None
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
    genre_period: int = 0
    timing_bins: int = 64
    min_duration: float = 17.84
    max_duration: float = 600.0
    lyric_length: int = 0
    lyric_vocab_size: int = 80
    lyric_encoder_layers: int | None = None
    lyric_encoder_hidden_size: int = 1280
    lyric_encoder_heads: int = 4
    lyric_encoder_num_rows: int = 32
    lyric_encoder_attention_ratio: float = 0.25
    lyric_encoder_mlp_ratio: float = 1.0
    lyric_encoder_residual_scale: bool = False
    lyric_loss_weight: float = 0.4
    alignment_layer: int | None = None
    alignment_head: int | None = None
    teacher_layers: list[int] | tuple[int, ...] | None = None
    sampling_rate: int = 44100
    hop_length: int = 128
    initializer_range: float = 0.02

    @property
    def row_length(self) -> int:
        """Positions in a row."""
        return self.sequence_length // self.num_rows

    @property
    def layer_period(self) -> int:
        """Layers after which `layer_types` repeats."""
        types = list(self.layer_types)
        return next(
            period
            for period in range(1, len(types) + 1)
            if all(word == types[layer % period] for layer, word in enumerate(types))
        )

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
        """True for an upsampler, which is conditioned on the level above."""
        return self.upsampling_strides is not None

    @property
    def upper_ratio(self) -> int:
        """Codes of this level a code of the level above stands for; 1 where there is none above."""
        return math.prod(self.upsampling_strides or ())

    @property
    def has_labels(self) -> bool:
        """True for a prior conditioned on artist and genre (and timing, where `use_timing`)."""
        return self.num_artists > 0

    @property
    def label_length(self) -> int:
        """Width of the label vector without lyrics: total length, offset, window length, artist, genres; 0 without."""
        return 4 + self.max_genres if self.has_labels else 0

    @property
    def metadata_length(self) -> int:
        """Width of the label vector: the labels, then `lyric_length` characters; 0 without labels."""
        return self.label_length + self.lyric_length

    @property
    def has_lyrics(self) -> bool:
        """True for a prior conditioned on lyrics."""
        return self.lyric_length > 0

    @property
    def has_lyric_encoder(self) -> bool:
        """True where an encoder reads the lyrics."""
        return self.lyric_encoder_layers is not None

    @property
    def lyric_prefix_length(self) -> int:
        """Positions before the first code: the lyrics, where they stand in one sequence with the codes, or 0."""
        return 0 if self.has_lyric_encoder else self.lyric_length

    @property
    def lyric_prefix_keys(self) -> int:
        """Positions that `lyric_prefix` attends to: a multiple of the rows, a little more than the lyrics."""
        return (self.lyric_prefix_length // self.num_rows + 1) * self.num_rows

    @property
    def sequence_length(self) -> int:
        """Positions of a window: `n_ctx`, and the lyrics before them where they stand there."""
        return self.lyric_prefix_length + self.n_ctx

    @property
    def code_offset(self) -> int:
        """Id of code 0 in the vocabulary: the characters come first where lyrics and codes share one."""
        return self.lyric_vocab_size if self.lyric_prefix_length else 0

    @property
    def vocab_size(self) -> int:
        """Ids that have an embedding."""
        return self.code_offset + self.codebook_size

    @property
    def lyric_encoder_config(self) -> FastJukeboxPriorConfig:
        """The lyric encoder as the prior over characters that it is.

        Raises:
            ValueError: the prior has no lyric encoder, or its fields do not fit one another.
        """
        if self.lyric_encoder_layers is None:
            raise ValueError("`lyric_encoder_layers` must be a depth where there is a lyric encoder, got None")
        return FastJukeboxPriorConfig(
            codebook_size=self.lyric_vocab_size,
            n_ctx=self.lyric_length,
            num_rows=self.lyric_encoder_num_rows,
            hidden_size=self.lyric_encoder_hidden_size,
            num_hidden_layers=self.lyric_encoder_layers,
            num_attention_heads=self.lyric_encoder_heads,
            attention_ratio=self.lyric_encoder_attention_ratio,
            mlp_ratio=self.lyric_encoder_mlp_ratio,
            residual_scale=self.lyric_encoder_residual_scale,
            initializer_range=self.initializer_range,
        )

    def validate(self) -> None:
        """See [`FastJukeboxBaseConfig.validate`]."""
        check_int("level", self.level, minimum=0, maximum=MOST_ENTRIES - 1)
        sizes = ("codebook_size", "n_ctx", "num_rows", "hidden_size", "num_hidden_layers", "num_attention_heads")
        for name in (*sizes, "max_genres", "timing_bins", "sampling_rate", "hop_length"):
            self._check_size(name)
        for name in ("attention_ratio", "mlp_ratio", "initializer_range"):
            check_float(name, getattr(self, name), 0.0, MOST_FACTOR, open_minimum=True)
        for name in ("residual_scale", "tie_word_embeddings", "add_conditioning_after", "use_timing"):
            check_bool(name, getattr(self, name))
        if self.teacher_layers is not None:
            check_int_list("teacher_layers", self.teacher_layers, minimum=0, maximum=_LARGEST["num_hidden_layers"])
            if len(self.teacher_layers) != self.num_hidden_layers:
                self.teacher_layers = None
        self._validate_labels()
        self._validate_lyrics()
        self._validate_attention()
        self._validate_upper()

    def _check_size(self, name: str, minimum: int = 1) -> None:
        check_int(name, getattr(self, name), minimum, _LARGEST.get(name, MOST))

    def _validate_attention(self) -> None:
        if self.sequence_length % self.num_rows:
            lyrics = f" with `lyric_length` ({self.lyric_length}) added" if self.lyric_prefix_length else ""
            raise ValueError(f"`n_ctx`{lyrics} must be a multiple of `num_rows` ({self.num_rows}), got {self.n_ctx}")
        if self.attention_size < 1 or self.attention_size % self.num_attention_heads:
            raise ValueError(
                f"`num_attention_heads` must divide the attention's width, attention_ratio * hidden_size = "
                f"{self.attention_size}, got {self.num_attention_heads}"
            )
        if self.mlp_size < 1:
            raise ValueError(f"`mlp_ratio` * hidden_size must be at least 1, got {self.mlp_ratio} * {self.hidden_size}")
        patterns, allowed = self.layer_types, ", ".join(PATTERN_NAMES)
        if not isinstance(patterns, Sequence) or isinstance(patterns, str) or not patterns:
            raise ValueError(f"`layer_types` must be a list of words of {allowed}, got {shown(patterns)}")
        if len(patterns) > _LARGEST["num_hidden_layers"]:
            raise ValueError(
                f"`layer_types` must be at most {_LARGEST['num_hidden_layers']} words, got {len(patterns)}"
            )
        for word in patterns:
            if word not in PATTERN_NAMES:
                raise ValueError(f"`layer_types` must be words of {allowed}, got {shown(word)}")
        self.layer_types = [patterns[layer % len(patterns)] for layer in range(self.num_hidden_layers)]
        for word, has_it, what in (
            ("lyric_cross", self.has_lyric_encoder, "`lyric_encoder_layers`"),
            ("lyric_prefix", self.lyric_prefix_length > 0, "`lyric_length` and no `lyric_encoder_layers`"),
        ):
            if word in self.layer_types and not has_it:
                raise ValueError(f"`layer_types` must not name {word} without {what}, got {shown(list(patterns))}")
        if self.has_lyric_encoder and "lyric_cross" not in self.layer_types:
            raise ValueError(
                "`layer_types` must give a layer `lyric_cross` where there is a lyric encoder, got "
                f"{shown(self.layer_types)} for {self.num_hidden_layers} layers"
            )

    def _validate_upper(self) -> None:
        if self.upsampling_strides is None:
            return
        check_int_list("upsampling_strides", self.upsampling_strides, minimum=2, maximum=_LARGEST_STRIDE)
        if any(stride % 2 for stride in self.upsampling_strides):
            raise ValueError(
                f"`upsampling_strides` must be even, so that lengths divide exactly, got {self.upsampling_strides}"
            )
        if self.n_ctx % self.upper_ratio:
            raise ValueError(
                f"`n_ctx` must be a multiple of the product of `upsampling_strides`, {self.upper_ratio}, got "
                f"{self.n_ctx}"
            )
        if self.upper_codebook_size is not None:
            self._check_size("upper_codebook_size")
        for name in ("conditioner_width", "conditioner_depth", "conditioner_dilation_growth_rate"):
            self._check_size(name)
        if self.conditioner_dilation_cycle is not None:
            self._check_size("conditioner_dilation_cycle")
        check_dilations(
            "conditioner_dilation_growth_rate",
            self.conditioner_dilation_growth_rate,
            self.conditioner_dilation_cycle,
            self.conditioner_depth,
        )
        check_float(
            "conditioner_conv_multiplier", self.conditioner_conv_multiplier, 0.0, MOST_FACTOR, open_minimum=True
        )
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
        self._check_size("genre_period", minimum=0)
        if self.genre_period and not self.use_timing:
            raise ValueError(f"`genre_period` must be 0 where `use_timing` is False, got {self.genre_period}")
        check_float("min_duration", self.min_duration, 0.0)
        check_float("max_duration", self.max_duration, self.min_duration, open_minimum=True)

    def _validate_lyrics(self) -> None:
        self._check_size("lyric_length", minimum=0)
        check_float("lyric_loss_weight", self.lyric_loss_weight, 0.0)
        self._check_size("lyric_vocab_size")
        for name in ("alignment_layer", "alignment_head"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), minimum=0)
        if self.has_lyrics and not self.has_labels:
            raise ValueError(
                f"`lyric_length` must be 0 where `num_artists` is 0: lyrics are part of the labels; got "
                f"{self.lyric_length}"
            )
        if self.lyric_encoder_layers is None:
            return
        if not self.has_lyrics:
            raise ValueError(
                f"`lyric_encoder_layers` must be None where `lyric_length` is 0, got {shown(self.lyric_encoder_layers)}"
            )
        check_int("lyric_encoder_layers", self.lyric_encoder_layers)
        for name in ("hidden_size", "heads", "num_rows"):
            check_int(f"lyric_encoder_{name}", getattr(self, f"lyric_encoder_{name}"))
        check_bool("lyric_encoder_residual_scale", self.lyric_encoder_residual_scale)
        try:
            _ = self.lyric_encoder_config
        except ValueError as error:
            raise ValueError(f"the fields `lyric_encoder_...` must describe a prior: {error}") from error
