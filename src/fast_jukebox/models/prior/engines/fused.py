"""Steps of a prior on a GPU in five kernels a layer, written in Triton (see `fused_kernels`).

LayerNorm, the product for queries, keys and values and the write into the cache; attention over the pattern's own
slots; the projection and its residual; LayerNorm, the MLP's first product and its gate; its second product and the
residuals. For more than a few songs, whose products go through the tensor cores, the LayerNorms are separate kernels.
The draw and the next embedding are one kernel more. Nothing is gathered, masked, filled or copied in between,
and weights are read once a step.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from fast_jukebox.models.prior.block import LAYER_NORM_EPS
from fast_jukebox.models.prior.cache import LayerCache
from fast_jukebox.models.prior.engines.cuda_graph import DeviceDecoder
from fast_jukebox.models.prior.engines.interface import EnginePrior
from fast_jukebox.models.prior.pattern import SlotTables
from fast_jukebox.sampling.adapters import base_parameters, effective_weights
from fast_jukebox.sampling.checks import SamplingSettings

if TYPE_CHECKING:
    from fast_jukebox.models.prior.block import PriorBlock

WIDEST_OF_FEW = 16384
"""Inputs of a linear layer that a program of the kernel for few rows can hold at once."""


_SHARED_OF_HOPPER = 227 * 1024


@dataclass(frozen=True)
class Tuning:
    """Choices that change the time of a step and, rounding aside, nothing else.

    Attributes:
        few: multiply each weight with every row as it is read; otherwise multiply blocks by the tensor cores.
        norm_apart: normalise in a separate kernel where `few` too.
        programs: that a kernel for few rows should have at least: two or more for each multiprocessor of a large GPU.
        numbers: 16-bit numbers of the weight, or half as many of 32 bits, that a program of that kernel reads.
        warps: of a program of that kernel.
        splits: into how many parts attention splits the slots that it reads; 0 for none.
        entries: 16-bit numbers of the keys, or half as many of 32 bits, that a program of attention reads at once.
        block: rows, outputs and inputs of a block of the tensor cores, loads under way and warps.
        overlap: let a kernel begin while the one before it ends, where the GPU can (Hopper and later).
    """

    few: bool = False
    norm_apart: bool = False
    programs: int = 256
    numbers: int = 8192
    warps: int = 4
    splits: int = 0
    entries: int = 32768
    block: tuple[int, int, int, int, int] = (64, 64, 128, 4, 4)
    overlap: bool = True

    def within(self, shared: int) -> Tuning:
        """The choices with what their kernels hold at once made small enough for so many bytes of shared memory."""
        entries, (rows, outputs, inputs, stages, warps) = self.entries, self.block
        while entries * 9 // 2 > shared:  # keys and values of 16 bits, and an eighth for sums
            entries //= 2
        while (rows + outputs) * inputs * 2 * stages > shared and stages > 1:
            stages -= 1
        return replace(self, entries=entries, block=(rows, outputs, inputs, stages, warps))


TUNINGS: list[tuple[int, Tuning]] = [
    (1, Tuning(few=True, splits=4, entries=16384, numbers=16384)),
    (4, Tuning(few=True, splits=4, entries=16384)),
    (16, Tuning(block=(16, 16, 256, 4, 4), overlap=False)),
    (64, Tuning(block=(64, 32, 128, 4, 4), overlap=False)),
    (128, Tuning(overlap=False)),
    (1 << 30, Tuning(entries=16384, overlap=False)),
]
"""The choices for up to so many rows; for 1, 16 and 64 the quickest of `benchmarks.gpu tune` on an H200 in bfloat16."""


def tuning_for(rows: int) -> Tuning:
    """The choices for a number of rows."""
    return next(tuning for limit, tuning in TUNINGS if rows <= limit)


class Launch(NamedTuple):
    """A kernel with all it is launched with, but for the step."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    num_warps: int = 4
    num_stages: int = 3

    @property
    def options(self) -> dict[str, Any]:
        """How it is compiled and launched."""
        options: dict[str, Any] = {"num_warps": self.num_warps, "num_stages": self.num_stages}
        if self.arguments.get("PDL"):
            options["launch_pdl"] = True
        return options

    def __call__(self, **varying: int) -> None:
        """Launch it with those of the numbers that it takes."""
        taken = {name: value for name, value in varying.items() if name in self.kernel.arg_names}
        self.kernel[self.grid](**self.arguments, **taken, **self.options)


@functools.cache
def kernels() -> Any:
    """The module of kernels, imported where it is first used: it needs Triton, which only comes with torch on Linux."""
    from fast_jukebox.models.prior.engines import fused_kernels

    return fused_kernels


def interpreted() -> bool:
    """Whether Triton's interpreter stands for a GPU, as in tests (TRITON_INTERPRET=1)."""
    import triton

    return bool(triton.knobs.runtime.interpret)


def unsupported(prior: EnginePrior) -> str | None:
    """Why a prior cannot be stepped by these kernels, or None if it can."""
    weight = prior.position_embedding
    if importlib.util.find_spec("triton") is None:
        return "it needs the package triton, which is not installed"
    if weight.device.type not in ("cuda", "meta") and not interpreted():
        return f"it needs a prior on a CUDA device, and this one is on {weight.device}"
    if weight.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"it knows float32, bfloat16 and float16, and the prior is in {weight.dtype}"
    own = base_parameters(cast(nn.Module, prior))
    if not all(parameter.is_contiguous() and parameter.dtype == weight.dtype for parameter in own):
        return "it needs contiguous weights of one dtype"
    return None


class FusedDecoder(DeviceDecoder):
    """A prior made ready to sample windows by fused kernels.

    Args:
        prior: on a CUDA device, in float32, bfloat16 or float16.
        batch_size: songs, N.
        settings: how a code is drawn.
        tuning: choices, by default [`tuning_for`] the rows.

    Raises:
        ValueError: the prior is not one that the kernels can step.
    """

    engine = "fused"

    def __init__(
        self,
        prior: EnginePrior,
        batch_size: int,
        settings: SamplingSettings,
        tuning: Tuning | None = None,
    ) -> None:
        reason = unsupported(prior)
        if reason is not None:
            raise ValueError(f"`engine` must not be 'fused' for this prior: {reason}")
        wanted = tuning_for(batch_size) if tuning is None else tuning
        self.tuning = wanted.within(_shared_memory(prior.position_embedding.device))
        super().__init__(prior, batch_size, settings)

    def _rows(self, device: torch.device) -> int:
        return self.batch_size

    def _setup(self, prior: EnginePrior) -> None:
        config, songs = prior.config, self.batch_size
        like = self.positions
        self._pdl = self.tuning.overlap and _can_overlap(like.device)
        heads, dim = config.num_attention_heads, config.attention_size // config.num_attention_heads
        self.heads, self.head_dim = heads, dim
        self.at = torch.zeros(2, dtype=torch.int64, device=like.device)
        self.position, self.cursor = self.at[:1], self.at[1:]
        # A step's intermediates: the input of a layer, that after attention, queries, what was attended to, the MLP's.
        self.hidden = like.new_zeros(songs, config.hidden_size)
        self.residual = like.new_zeros(songs, config.hidden_size)
        self.normed = like.new_zeros(songs, config.hidden_size)
        self.query = like.new_zeros(songs, heads * dim)
        self.inner = like.new_zeros(songs, config.mlp_size)
        splits = self.tuning.splits
        dtype = torch.float32 if splits else like.dtype
        self.attended = torch.zeros(max(1, splits), songs, heads * dim, dtype=dtype, device=like.device)
        self.stats = torch.zeros(max(1, splits), songs, heads, 2, device=like.device)
        self._tables = [
            self.cache.layers[first].pattern.tables(config.sequence_length, torch.int32, like.device)
            for first in self._first_alike
        ]
        last = len(prior.blocks) - 1
        self._layers = [
            launch for index, block in enumerate(prior.blocks) for launch in self._block(block, index, index == last)
        ]
        self._layers += self._linear(self.hidden, self.output, self.logits, "plain")
        self._embed = self._embedding_launch()
        self._draw = self._draw_launch()

    def _steps(self, count: int) -> None:
        self._embed(step=0)
        for step in range(count):
            for launch in self._layers:
                launch(step=step)
            self._draw(step=step, more=int(step + 1 < count))
        self.at.add_(count)

    def _block(self, block: PriorBlock, index: int, last: bool) -> list[Launch]:
        cache, tables = self.cache.layers[index], self._tables[index]
        attention, mlp = block.attention, block.mlp
        splits = self.tuning.splits
        again = last and self.conditioned and self.add_after
        return [
            *self._linear(
                self.hidden, attention.qkv, self.query, "qkv", norm=block.attention_norm, cache=cache, slot=tables.slot
            ),
            self._attention(cache, tables),
            *self._linear(
                self.attended,
                attention.projection,
                self.residual,
                "residual",
                base=self.hidden,
                splits=splits,
            ),
            *self._linear(self.residual, mlp.expand, self.inner, "gate", norm=block.mlp_norm),
            *self._linear(
                self.inner,
                mlp.contract,
                self.hidden,
                "residual",
                base=self.residual,
                scale=block.residual_scale,
                added=again,
            ),
        ]

    def _linear(
        self,
        hidden: Tensor,
        layer: nn.Linear | Tensor,
        out: Tensor,
        epilogue: str,
        norm: nn.LayerNorm | None = None,
        base: Tensor | None = None,
        scale: float = 1.0,
        cache: LayerCache | None = None,
        slot: Tensor | None = None,
        splits: int = 0,
        added: bool = False,
    ) -> list[Launch]:
        """One linear layer, or a matrix without bias, with what stands before and after it (see `_store_output`)."""
        weight, bias = (layer, None) if isinstance(layer, Tensor) else effective_weights(layer)
        weight = weight.detach()
        outputs, width = weight.shape
        rows = self.batch_size
        spare = self.hidden  # stands where a kernel reads nothing
        arguments: dict[str, Any] = {
            "hidden_ptr": hidden,
            "stats_ptr": self.stats,
            "weight_ptr": weight,
            "bias_ptr": spare if bias is None else bias.detach(),
            "base_ptr": spare if base is None else base,
            "start_ptr": self.hidden,
            "added_ptr": self.added,
            "out_ptr": out,
            "cache_ptr": spare if cache is None else cache.storage,
            "slot_ptr": self.at if slot is None else slot,
            "at_ptr": self.at,
            "residual_scale": float(scale),
            "WIDTH": width,
            "OUTPUTS": outputs,
            "HEADS": self.heads,
            "HEAD_DIM": self.head_dim,
            "slots": 1 if cache is None else cache.pattern.capacity,
            "SPLITS": splits,
            "BIAS": bias is not None,
            "EPILOGUE": epilogue,
            "SCALED": scale != 1.0,
            "ADDED": added,
            "PDL": self._pdl,
        }
        few, launches = self.tuning.few and width <= WIDEST_OF_FEW, []
        if norm is not None and (self.tuning.norm_apart or not few):
            arguments["hidden_ptr"] = self.normed
            launches.append(self._normalise(hidden, norm))
            norm = None
        if few:
            scale_and_shift = (spare, spare) if norm is None else effective_weights(norm)
            arguments["norm_ptr"], arguments["norm_bias_ptr"] = (cast(Tensor, own).detach() for own in scale_and_shift)
            launches.append(_linear_of_few({**arguments, "NORM": norm is not None}, rows, self.tuning))
        else:
            launches.append(_linear_of_many(arguments, rows, self.tuning))
        return launches

    def _normalise(self, hidden: Tensor, norm: nn.LayerNorm) -> Launch:
        width = hidden.shape[1]
        weight, bias = effective_weights(norm)
        arguments = {
            "hidden_ptr": hidden,
            "norm_ptr": weight.detach(),
            "norm_bias_ptr": cast(Tensor, bias).detach(),
            "out_ptr": self.normed,
            "WIDTH": width,
            "EPS": LAYER_NORM_EPS,
            "BLOCK_IN": _block(width),
            "PDL": self._pdl,
        }
        return Launch(kernels().normalise, (self.batch_size,), arguments)

    def _attention(self, cache: LayerCache, tables: SlotTables) -> Launch:
        block_dim, splits = _block(self.head_dim), self.tuning.splits
        reach = -(-cache.pattern.max_visible // max(1, splits))
        entries = self.tuning.entries * 2 // cache.storage.element_size()
        block_slots = max(16, min(_block(reach), entries // block_dim))
        arguments = {
            "query_ptr": self.query,
            "cache_ptr": cache.storage,
            "first_ptr": tables.first,
            "count_ptr": tables.count,
            "at_ptr": self.at,
            "out_ptr": self.attended,
            "stats_ptr": self.stats,
            "rows": self.batch_size,
            "scale": math.log2(math.e) / math.sqrt(self.head_dim),
            "HEADS": self.heads,
            "HEAD_DIM": self.head_dim,
            "slots": cache.pattern.capacity,
            "SPLITS": splits,
            "BLOCK_DIM": block_dim,
            "BLOCK_SLOTS": block_slots,
            "PDL": self._pdl,
        }
        grid = (self.batch_size, self.heads, max(1, splits))
        warps = max(4, min(16, block_slots * block_dim // 2048))
        return Launch(kernels().attention, grid, arguments, num_warps=warps)

    def _embedding_arguments(self) -> dict[str, Any]:
        width = self.positions.shape[1]
        return {
            "code_ptr": self.code,
            "embedding_ptr": self.embedding,
            "positions_ptr": self.positions,
            "added_ptr": self.added,
            "out_ptr": self.hidden,
            "at_ptr": self.at,
            "rows": self.batch_size,
            "WIDTH": width,
            "BLOCK_IN": _block(width),
            "ADDED": self.conditioned,
        }

    def _embedding_launch(self) -> Launch:
        return Launch(kernels().embed, (self.batch_size,), self._embedding_arguments())

    def _draw_launch(self) -> Launch:
        settings, codes = self.settings, self.logits.shape[1]
        arguments = {
            **self._embedding_arguments(),
            "logits_ptr": self.logits,
            "uniform_ptr": self.uniform,
            "codes_ptr": self.codes,
            "temperature": float(settings.temperature),
            "top_k": settings.top_k,
            "top_p": float(settings.top_p),
            "CODES": codes,
            "BLOCK_CODES": _block(codes),
            "SAMPLE": settings.do_sample,
            "TOP_K": 0 < settings.top_k < codes,
            "TOP_P": settings.top_p < 1.0,
            "PDL": self._pdl,
        }
        return Launch(kernels().draw, (self.batch_size,), arguments, num_warps=8)


def _linear_of_few(arguments: dict[str, Any], rows: int, tuning: Tuning) -> Launch:
    width, outputs = arguments["WIDTH"], arguments["OUTPUTS"]
    block_in = _block(width)
    # All that a program reads is under way at once.
    numbers = tuning.numbers * 2 // arguments["weight_ptr"].element_size()
    block_out = max(2, min(numbers // block_in, _power_below(outputs / tuning.programs)))
    arguments = {
        **arguments,
        "EPS": LAYER_NORM_EPS,
        "ROWS": rows,
        "BLOCK_OUT": block_out,
        "BLOCK_IN": block_in,
    }
    warps = 8 if block_in * block_out > 16384 else tuning.warps
    return Launch(kernels().linear_of_few, (-(-outputs // block_out),), arguments, num_warps=warps)


def _linear_of_many(arguments: dict[str, Any], rows: int, tuning: Tuning) -> Launch:
    width, outputs = arguments["WIDTH"], arguments["OUTPUTS"]
    most, block_out, block_in, stages, warps = tuning.block
    block_rows = min(most, _block(rows))
    if arguments["weight_ptr"].dtype == torch.float32:
        block_in //= 4
    if arguments["SPLITS"]:
        block_in //= 4  # each number is merged from several
    block_in = max(16, min(block_in, _block(width)))
    arguments = {
        **arguments,
        "rows": rows,
        "BLOCK_ROWS": block_rows,
        "BLOCK_OUT": block_out,
        "BLOCK_IN": block_in,
        "BLOCK_LINES": _block(-(-width * arguments["weight_ptr"].element_size() // 128)),
    }
    grid = (-(-rows // block_rows), -(-outputs // block_out))
    return Launch(kernels().linear_of_many, grid, arguments, num_warps=warps, num_stages=stages)


def _block(count: int) -> int:
    """The power of two, 16 at least, that holds so many."""
    return max(16, 1 << (count - 1).bit_length())


def _power_below(count: float) -> int:
    """The largest power of two up to `count`, 1 at least."""
    return 1 << max(0, int(count).bit_length() - 1)


def _shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that a program may have; Hopper's where there is no GPU."""
    if device.type != "cuda":
        return _SHARED_OF_HOPPER
    found = torch.cuda.get_device_properties(device)
    return int(getattr(found, "shared_memory_per_block_optin", _SHARED_OF_HOPPER))  # missing from torch's stubs


def _can_overlap(device: torch.device) -> bool:
    if device.type == "meta":  # kernels are compiled ahead of time, for Hopper where there is no GPU
        return not torch.cuda.is_available() or torch.cuda.get_device_capability() >= (9, 0)
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
