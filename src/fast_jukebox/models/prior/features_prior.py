"""Features of a prior: states of its layers over a song of any length, for probing and retrieval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from fast_jukebox.generation.metadata import window_metadata, with_window_lyrics
from fast_jukebox.generation.windows import Window
from fast_jukebox.models.prior.block import BlockList
from fast_jukebox.models.prior.conditioning import PriorConditioning, check_upper_codes
from fast_jukebox.models.prior.configuration_prior import FastJukeboxPriorConfig
from fast_jukebox.processing import FastJukeboxProcessor
from fast_jukebox.sampling.checks import check_codes
from fast_jukebox.sampling.engine import sampling_mode
from fast_jukebox.utils.text import shown

POOLS = (None, "mean")


@dataclass(frozen=True)
class PriorFeatures:
    """States of some layers of a prior over songs; `features[layer]` is one of them, as it was asked for.

    Attributes:
        layers: float32 by layer from 0, on the CPU: (N, frames, W), or (N, W) where they are pooled.
        frame_rate: frames a second; `None` where they are pooled.
        level: of the prior, 0 is the bottom.
        teacher_layers: of a distilled prior the teacher's layer that each learnt from; `None` of others.
        depth: layers of the prior.
    """

    layers: dict[int, Tensor]
    frame_rate: float | None
    level: int
    teacher_layers: dict[int, int] | None
    depth: int

    def __getitem__(self, layer: int) -> Tensor:
        """States of a layer, counted from 0, or from the prior's last one by negative numbers.

        Raises:
            ValueError: the layer is not there, or was not asked for.
        """
        (place,) = _checked_layers([layer], self.depth)
        if place not in self.layers:
            held = ", ".join(map(str, self.layers))
            raise ValueError(f"`layers` must name what is read of the features, which hold {held}; got {shown(layer)}")
        return self.layers[place]

    @property
    def times(self) -> Tensor:
        """Seconds from the beginning of the songs at which each frame begins, float64 (frames,).

        Raises:
            ValueError: the frames are pooled.
        """
        if self.frame_rate is None:
            raise ValueError("`times` must be asked of features with frames, and these are pooled over the songs")
        frames = next(iter(self.layers.values())).shape[1]
        return torch.arange(frames, dtype=torch.float64) / self.frame_rate


class PriorFeaturesMixin:
    """Gives a prior its `features`."""

    config: FastJukeboxPriorConfig
    device: torch.device
    blocks: BlockList
    embed: Callable[[Tensor, Tensor | None, Tensor | None], tuple[Tensor, PriorConditioning]]

    def features(
        self,
        codes: Tensor,
        upper_codes: Tensor | None = None,
        metadata: Tensor | None = None,
        *,
        layers: Sequence[int] | None = None,
        frame_rate: float | None = None,
        pool: str | None = None,
        overlap: float = 0.5,
        progress: bool | None = None,
    ) -> PriorFeatures:
        """States of layers over songs of any length.

        A song is read in windows of one context. The state at a code depends on all codes of its window before it, and
        is taken from the first window with the code, where these are most. Blocks above the highest layer asked for do
        not run. Besides the result this needs the memory of one window of one song; a song's features do not depend on
        the batch.

        Args:
            codes: int64 (N, L), L any length, of an upsampler a multiple of `config.upper_ratio`.
            upper_codes: int64 (N, L / upper_ratio) codes of the level above. For upsamplers, and no others.
            metadata: int64 (N or 1, labels and any number of characters of lyrics) label vectors of the songs, as
                `generate` takes them; of unknown artist and genre and without lyrics by default.
            layers: from 0, or from the last one by negative numbers; by default the middle one, `(depth - 1) // 2`.
            frame_rate: frames a second, each the mean over its codes; at most the rate of the codes, the default.
            pool: `"mean"` over each song, in place of frames.
            overlap: fraction of a window that the next one reads again, in [0, 1): the least fraction of a context that
                a state depends on, but for a song's first. The time grows with 1 / (1 - overlap).
            progress: `True` and `False` show a bar or none; `None` shows it on terminals.

        Returns:
            The features, the same on every call on one machine.

        Raises:
            ValueError: naming the argument, its value and what is allowed.
        """
        config = self.config
        check_codes("codes", codes, config.codebook_size)
        if not codes.shape[1]:
            raise ValueError(f"`codes` must be of at least one song and one code, got {tuple(codes.shape)}")
        check_upper_codes(upper_codes, config, *codes.shape)
        wanted, hop = _checked_layers(layers, config.num_hidden_layers), _hop(config, overlap)
        rate = config.sampling_rate / config.hop_length
        _check_frames(frame_rate, pool, rate)
        labels = self._song_labels(metadata, *codes.shape)
        step = 0.0 if pool else (frame_rate or rate) / rate  # frames a code
        frames = (torch.arange(codes.shape[1], dtype=torch.float64) * step).floor().long()  # of each code
        windows = list(window_starts(codes.shape[1], config.n_ctx, hop))
        # Ordinary tensors, whatever mode the states are computed in: probes are trained on them.
        sums = {layer: torch.zeros(len(codes), int(frames[-1]) + 1, config.hidden_size) for layer in wanted}
        hidden_bar = None if progress is None else not progress
        with (
            tqdm(total=len(codes) * len(windows), unit="window", desc="features", disable=hidden_bar) as bar,
            sampling_mode(self),
        ):
            for song in range(len(codes)):
                row, done = slice(song, song + 1), 0
                upper, label = (None if given is None else given[row] for given in (upper_codes, labels))
                for start in windows:
                    for layer, states in self._window_states(codes[row], upper, label, start, done, max(wanted)):
                        if layer in sums:
                            sums[layer][song].index_add_(0, frames[done : done + len(states)], states.float().cpu())
                    done = min(start + config.n_ctx, codes.shape[1])
                    bar.update()
        for summed in sums.values():
            summed.div_(torch.bincount(frames)[:, None])
        return PriorFeatures(
            {layer: summed.squeeze(1) if pool else summed for layer, summed in sums.items()},
            None if pool else float(frame_rate or rate),
            config.level,
            None if config.teacher_layers is None else {layer: config.teacher_layers[layer] for layer in wanted},
            config.num_hidden_layers,
        )

    def _window_states(
        self, codes: Tensor, upper_codes: Tensor | None, labels: Tensor | None, start: int, first: int, last_layer: int
    ) -> Iterator[tuple[int, Tensor]]:
        """State (codes, W) of each layer up to `last_layer` in a window of a song (1, L), from the code `first` on."""
        config = self.config
        end, ratio = min(start + config.n_ctx, codes.shape[1]), config.upper_ratio
        upper = None if upper_codes is None else upper_codes[:, start // ratio : end // ratio].to(self.device)
        if labels is not None:
            window, samples = Window(config.level, start, 0, end - start), codes.shape[1] * config.hop_length
            longer = bool(samples > labels[0, 0] - labels[0, 1])  # than the labels say, or can say
            labels = window_metadata(labels, window, config.n_ctx, config.hop_length, None if longer else samples)
            labels = with_window_lyrics(labels, config)
        labels = None if labels is None else labels.to(self.device)
        hidden, conditioning = self.embed(codes[:, start:end].to(self.device), upper, labels)
        skipped = config.lyric_prefix_length + first - start
        for layer in range(last_layer + 1):
            hidden = self.blocks[layer](hidden, False, None, conditioning.lyric_states)[0]
            yield layer, hidden[0, skipped:]

    def _song_labels(self, metadata: Tensor | None, songs: int, length: int) -> Tensor | None:
        """Label vectors (N, width) of songs of `length` codes, all with a total length; `None` for a prior without
        labels.

        Raises:
            ValueError: labels of another number of songs, or for a prior that has none.
        """
        config = self.config
        if not config.has_labels:
            if metadata is not None:
                raise ValueError("`metadata` must be None: the prior has no labels")
            return None
        if metadata is None:
            (metadata,) = FastJukeboxProcessor.without_names(config).encode({}).metadata
            assert metadata is not None  # of a prior with labels
        if metadata.dim() != 2 or metadata.shape[0] not in (1, songs) or metadata.shape[1] < config.label_length:
            raise ValueError(
                f"`metadata` must be int64 ({songs} or 1, at least {config.label_length}), got {tuple(metadata.shape)}"
            )
        labels = metadata.cpu().expand(songs, -1).clone()
        shortest, longest = (seconds * config.sampling_rate for seconds in (config.min_duration, config.max_duration))
        own = labels[:, 1] + length * config.hop_length
        if config.use_timing:
            own = own.clamp(math.ceil(shortest), math.ceil(longest) - 1)
        labels[:, 0] = torch.where(labels[:, 0] == 0, own, labels[:, 0])
        return labels


def window_starts(length: int, n_ctx: int, hop: int) -> Iterator[int]:
    """First codes of the windows that cover a song of `length` codes, `hop` apart; the last one ends with the song."""
    last = max(length - n_ctx, 0)
    yield from range(0, last, hop)
    yield last


def _hop(config: FastJukeboxPriorConfig, overlap: float) -> int:
    if not 0.0 <= overlap < 1.0:
        raise ValueError(f"`overlap` must be in [0, 1), got {shown(overlap)}")
    ratio = config.upper_ratio
    return max(math.floor(config.n_ctx * (1.0 - overlap)) // ratio, 1) * ratio


def _check_frames(frame_rate: float | None, pool: str | None, rate: float) -> None:
    """Raise a `ValueError` unless the frames are such as codes, so many a second, can be joined to."""
    if pool not in POOLS:
        raise ValueError(f"`pool` must be 'mean' or None, got {shown(pool)}")
    if frame_rate is not None and pool is not None:
        raise ValueError(f"`frame_rate` must be None with `pool`, got {shown(frame_rate)}")
    if frame_rate is not None and not 0 < frame_rate <= rate:
        raise ValueError(
            f"`frame_rate` must be above 0 and at most {rate:g}, the rate of the codes, got {shown(frame_rate)}"
        )


def _checked_layers(layers: Sequence[int] | None, depth: int) -> list[int]:
    """Layers from 0, each once, in the order asked for."""
    if layers is None:
        return [(depth - 1) // 2]
    if not isinstance(layers, Iterable):
        raise ValueError(f"`layers` must be a list of integers from {-depth} to {depth - 1}, got {shown(layers)}")
    layers = list(layers)
    for layer in layers:
        if not isinstance(layer, int) or isinstance(layer, bool) or not -depth <= layer < depth:
            raise ValueError(f"`layers` must be integers from {-depth} to {depth - 1}, got {shown(layer)}")
    if not layers:
        raise ValueError("`layers` must name at least one layer, got none")
    return list(dict.fromkeys(layer % depth for layer in layers))
