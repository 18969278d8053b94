"""Steps of a prior in C on a CPU: built by the machine's own compiler where it has one.

A step of a narrow prior is a few hundred operations of microseconds each, which take longer to call one by one than to
do. `native.c` does a whole row of steps, the draw included, in one call; see
[`~fast_jukebox.models.prior.engines.native_library`] for how it is built.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.models.prior.attention import Pattern, SlotTables
from fast_jukebox.models.prior.block import PriorBlock, PriorCache, block_weights
from fast_jukebox.models.prior.conditioning import PriorConditioning
from fast_jukebox.models.prior.engines.interface import EnginePrior
from fast_jukebox.models.prior.engines.native_library import Layer, Prior, library
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.engine import EngineDecoder
from fast_jukebox.sampling.weights import adapter_state, effective_weights, kept_for_prior, weight_state

# Outputs of a weight lie side by side in panels of so many; as in the source.
LANES = 16

# Songs that one call takes through its steps at once: what they work with stays in the nearest caches.
CHUNK = 24

_PRODUCTS = 2**30  # that a core does in some 30 ms


def unsupported(prior: EnginePrior, device: torch.device | None = None) -> str | None:
    """Why a prior cannot be stepped by the compiled source on a device, by default its own, or None if it can."""
    weight = prior.position_embedding
    where = device or weight.device
    if where.type != "cpu" or weight.dtype != torch.float32:
        return f"it computes in float32 on a CPU, and the prior is in {weight.dtype} on {where}"
    return None


class NativeDecoder(EngineDecoder[PriorConditioning, PriorCache]):
    """Steps by `native.c`.

    Args:
        prior: float32, on a CPU.
        batch_size: songs, N.
        settings: how a code is drawn.
        threads: at most so many work at once; the codes do not depend on it.

    Raises:
        NativeUnavailable: the source could not be built.
        ValueError: the prior is not one that it can step.
    """

    engine = "native"

    def __init__(self, prior: EnginePrior, batch_size: int, settings: SamplingSettings, threads: int = 1) -> None:
        reason = unsupported(prior)
        if reason is not None:
            raise ValueError(f"`engine` 'native' cannot sample this prior: {reason}")
        config = prior.config
        self.library = library()
        self.level = config.level
        self.batch_size = batch_size
        self.settings = settings
        # A row, or more while a call takes some 30 ms: progress and interruptions wait for it.
        products = 4 * config.num_hidden_layers * config.hidden_size**2  # of a step, about
        self.steps_per_call = max(config.row_length, _PRODUCTS // (products * batch_size))
        self.cache = prior.new_cache(batch_size)
        self.logits = torch.zeros(batch_size, config.vocab_size)
        self.prefix = config.lyric_prefix_length
        self.vocab_size = config.vocab_size
        self.weights = weights_of(prior)
        layers = (Layer * len(prior.blocks)).from_buffer_copy(self.weights.layers)
        for layer, cache in zip(layers, self.cache.layers, strict=True):
            layer.cache = cache.storage.data_ptr()
        first = next(iter(prior.blocks))
        self._prior = Prior(
            songs=batch_size,
            layers=len(prior.blocks),
            width=config.hidden_size,
            heads=first.attention.num_heads,
            head_dim=first.attention.head_dim,
            inner=config.mlp_size,
            codes=config.vocab_size,
            add_after=config.add_conditioning_after,
            do_sample=settings.do_sample,
            top_k=settings.top_k,
            half=self.weights.half,
            residual_scale=first.residual_scale,
            temperature=settings.temperature,
            top_p=settings.top_p,
            embedding=self.weights.embedding,
            positions=self.weights.positions,
            head=self.weights.head,
            layer=layers,
            logits=self.logits.data_ptr(),
        )
        self._chunks = chunks(batch_size, threads)
        largest = max(size for _, size in self._chunks)
        floats = self.library.scratch_floats(ctypes.byref(self._prior), largest)
        self._threads = min(threads, len(self._chunks))
        self._scratch = torch.empty(len(self._chunks), floats)
        self.unload()

    def load(self, conditioning: PriorConditioning) -> None:
        """Take in what conditions the window.

        Raises:
            ValueError: it is of other sizes than the prior's.
        """
        positions = conditioning.positions
        shape = (self.batch_size, self.prefix + conditioning.length, self._prior.width)
        if positions is not None and (positions.shape != shape or positions.dtype != torch.float32):
            raise ValueError(f"`conditioning` must be float32 {shape}, got {positions.dtype} {tuple(positions.shape)}")
        self._conditioning = positions = None if positions is None else positions.contiguous()
        self._prior.conditioning = None if positions is None else positions.data_ptr()
        self._prior.length = self.prefix + conditioning.length
        self._length = conditioning.length

    def unload(self) -> None:
        self._conditioning = None
        self._length = 0
        self._prior.conditioning = None

    def decode(self, code: Tensor, position: int, noise: Tensor) -> Tensor:
        """See [`~fast_jukebox.sampling.protocols.Decoder.decode`].

        Raises:
            ValueError: an input is of another shape or type, or goes beyond the window or the codebook.
        """
        songs, count = self.batch_size, noise.shape[1]
        # Everything that decides which memory the source touches.
        if not 0 < position <= self._length - count:
            raise ValueError(
                f"`position` must be from 1 and, with the codes to draw, within the window of {self._length}; got "
                f"{position} and {count} codes"
            )
        if code.shape != (songs,) or code.dtype != torch.int64 or code.min() < 0 or code.max() >= self.vocab_size:
            raise ValueError(
                f"`code` must be int64 ({songs},) in [0, {self.vocab_size}), got {code.dtype} {tuple(code.shape)}"
            )
        if noise.shape != (songs, count) or noise.dtype != torch.float32:
            raise ValueError(f"`noise` must be float32 ({songs}, count), got {noise.dtype} {tuple(noise.shape)}")
        code, noise = code.contiguous(), noise.contiguous()
        out = torch.empty((songs, count), dtype=torch.int64)

        prior, run = ctypes.byref(self._prior), self.library.run
        shared = self.prefix + position, count, code.data_ptr(), noise.data_ptr(), out.data_ptr(), count
        if self._threads == 1:
            for chunk, scratch in zip(self._chunks, self._scratch, strict=True):
                run(prior, *chunk, *shared, scratch.data_ptr())
        else:
            addresses = [scratch.data_ptr() for scratch in self._scratch]
            with ThreadPoolExecutor(self._threads) as pool:  # ctypes releases the interpreter's lock
                list(pool.map(lambda chunk, scratch: run(prior, *chunk, *shared, scratch), self._chunks, addresses))
        self.cache.length = position + count
        return out


class NativeWeights:
    """A prior's weights as `native.c` reads them, and the cache slots of its positions.

    Args:
        prior: float32, on a CPU.
        half: keep what is packed in float16 where that loses nothing, as with weights that were stored in it. Numbers
            stay the same; a step of few songs waits for the weights alone, and so takes about half the time.

    Attributes:
        half: whether what is packed is float16.
        layers: array of `Layer`, without caches.
        embedding, positions, head: addresses.
    """

    def __init__(self, prior: EnginePrior, half: bool) -> None:
        self._kept: list[Tensor] = []
        self._tables: dict[Pattern, dict[str, int]] = {}
        self._positions = prior.config.sequence_length
        embedding, _ = effective_weights(prior.code_embedding)
        output = embedding if prior.output is None else effective_weights(prior.output)[0]
        weights = [block_weights(block) for block in prior.blocks]
        matrices = [output, *(weight for each in weights for weight in each if weight.dim() == 2)]
        self.half = half and all(torch.equal(weight, weight.half().float()) for weight in matrices)
        self.embedding = self._keep(prior.drawn_rows(embedding))
        self.positions = self._keep(prior.position_embedding)
        self.head = self._keep(packed(prior.drawn_rows(output), self.half))
        layers = (self._layer(block, each) for block, each in zip(prior.blocks, weights, strict=True))
        self.layers = (Layer * len(prior.blocks))(*layers)

    def _layer(self, block: PriorBlock, weights: Sequence[Tensor]) -> Layer:
        fields: dict[str, int] = {}
        for name, tensor in zip(Layer.WEIGHTS, weights, strict=True):
            if tensor.dim() == 2:
                tensor = packed(tensor, self.half)
            elif not name.startswith("norm"):
                tensor = F.pad(tensor.detach(), (0, -len(tensor) % LANES))
            fields[name] = self._keep(tensor)
        pattern = block.attention.pattern
        if pattern not in self._tables:
            tables = checked_tables(pattern, self._positions)
            self._tables[pattern] = {name: self._keep(table) for name, table in tables._asdict().items()}
        return Layer(visible=pattern.max_visible, capacity=pattern.capacity, **fields, **self._tables[pattern])

    def _keep(self, tensor: Tensor) -> int:
        """The address of a tensor's numbers, which stay there as long as this object."""
        tensor = tensor.detach().contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()


def weights_of(prior: EnginePrior) -> NativeWeights:
    """The prior's [`NativeWeights`], made once until its weights change, in whatever way."""
    output = () if prior.output is None else (prior.output.weight,)
    weights = [prior.code_embedding.weight, prior.position_embedding, *output, *prior.blocks.parameters()]
    # A change of a weight's `.data` counts no version.
    bits = torch.stack([torch.hash_tensor(weight.detach()) for weight in weights]).view(torch.int64)
    state = (weight_state(weights), adapter_state(prior), *bits.tolist())
    return kept_for_prior(prior, "native weights", state, lambda: NativeWeights(prior, bool(library().reads_half())))


def packed_nbytes(prior: EnginePrior) -> int:
    """Bytes of the packed copies of a prior's weights in its [`NativeWeights`], in float32; float16 takes half of them.
    The prior may be on the meta device.
    """
    output = prior.code_embedding if prior.output is None else prior.output
    weights = [weight for block in prior.blocks for weight in block_weights(block) if weight.dim() == 2]
    shapes = [weight.shape for weight in (*effective_weights(output)[:1], *weights)]
    return sum(4 * inputs * -(-outputs // LANES) * LANES for outputs, inputs in shapes)


def checked_tables(pattern: Pattern, length: int) -> SlotTables:
    """The pattern's tables, which decide what memory the source touches.

    Raises:
        ValueError: a slot is not in the cache, or more are read than the pattern says.
    """
    tables = pattern.tables(length)
    slot, first, count = tables
    inside = (slot >= 0) & (slot < pattern.capacity) & (first >= 0) & (count >= 0)
    inside &= (first + count <= pattern.capacity) & (count <= pattern.max_visible)
    if not inside.all():
        position = int((~inside).nonzero()[0])
        raise ValueError(
            f"`slots` of {pattern} must lie in the {pattern.capacity} slots of the cache and be at most "
            f"{pattern.max_visible}; at position {position} they are {int(slot[position])}, {int(first[position])} and "
            f"{int(count[position])}"
        )
    return tables


def packed(weight: Tensor, half: bool) -> Tensor:
    """(outputs, inputs) -> (panels, inputs, `LANES`), zeros where outputs end, in float16 where `half` is true."""
    weight = F.pad(weight.detach(), (0, 0, 0, -weight.shape[0] % LANES))
    weight = weight.half() if half else weight
    return weight.unflatten(0, (-1, LANES)).transpose(1, 2).contiguous()


def chunks(songs: int, threads: int) -> list[tuple[int, int]]:
    """(first, count) of the songs that each call takes: at most `CHUNK`, and as even as can be."""
    number = -(-songs // CHUNK)
    if threads > 1 and songs >= 2 * (CHUNK // 4):
        number = -(-number // threads) * threads
    number = min(number, songs)
    edges = [songs * index // number for index in range(number + 1)]
    return [(start, stop - start) for start, stop in itertools.pairwise(edges)]
