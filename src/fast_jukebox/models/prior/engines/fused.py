"""Steps of a prior on a GPU in five kernels a layer, written in Triton (see `fused_kernels`).

LayerNorm, the product for queries, keys and values and the write into the cache; attention over the pattern's own
slots; the projection and its residual; LayerNorm, the MLP's first product and its gate; its second product and the
residuals. For more than a few songs, whose products go through the tensor cores, the LayerNorms are separate kernels,
or the kernel before leaves what a product needs of them (`Tuning.folded`).
The draw and the next embedding are one kernel more. Nothing is gathered, masked, filled or copied in between,
and weights are read once a step.
"""

from __future__ import annotations

import importlib.util
import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from fast_jukebox.models.prior.attention import LayerCache, SlotTables
from fast_jukebox.models.prior.block import LAYER_NORM_EPS
from fast_jukebox.models.prior.conditioning import PriorConditioning
from fast_jukebox.models.prior.engines.cuda_graph import DeviceDecoder
from fast_jukebox.models.prior.engines.fused_launch import (
    Launch,
    kernel,
    linear_of_few,
    linear_of_many,
    new_scratch,
)
from fast_jukebox.models.prior.engines.fused_tuning import (
    OVERLAPS,
    SHARED_OF_HOPPER,
    Tuning,
    block_of,
    tuning_for,
)
from fast_jukebox.models.prior.engines.interface import EnginePrior
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.weights import base_parameters, effective_weights

if TYPE_CHECKING:
    from fast_jukebox.models.prior.block import PriorBlock


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
        config = prior.config
        wanted = wanted.for_width(max(config.hidden_size, config.mlp_size, config.attention_size))
        wanted = wanted.for_heads(config.attention_size // config.num_attention_heads)
        self.tuning = wanted.within(_shared_memory(prior.position_embedding.device))
        super().__init__(prior, batch_size, settings)

    def _rows(self, device: torch.device) -> int:
        return self.batch_size

    def _setup(self, prior: EnginePrior) -> None:
        config, songs = prior.config, self.batch_size
        like = self.positions
        self._pdl = OVERLAPS[self.tuning.overlap] if _can_overlap(like.device) else 0
        heads, dim = config.num_attention_heads, config.attention_size // config.num_attention_heads
        self.heads, self.head_dim = heads, dim
        self.at = torch.zeros(2, dtype=torch.int64, device=like.device)
        self.position, self.cursor = self.at[:1], self.at[1:]
        # A step's intermediates: the input of a layer, that after attention, queries, what was attended to, the MLP's.
        self.hidden = like.new_zeros(songs, config.hidden_size)
        self.residual = like.new_zeros(songs, config.hidden_size)
        many = self.tuning.kernel == "many"
        self._folded = many and self.tuning.folded
        # Rows that are normalised, or only multiplied by the gain.
        self.normed = like.new_zeros(songs if many else 1, config.hidden_size)
        self._blocks = -(-config.hidden_size // self.tuning.block[1])
        self._moments = torch.zeros(2, songs if self._folded else 0, self._blocks, device=like.device)
        self._folds: list[FoldedNorm] = []
        self.query = like.new_zeros(songs, heads * dim)
        self.inner = like.new_zeros(songs, config.mlp_size)
        splits = self.tuning.splits
        most = max(3 * heads * dim, config.hidden_size, config.mlp_size, config.vocab_size)
        self._scratch = new_scratch(songs, heads, most, self.tuning, like.device)
        self._parts = torch.zeros(max(1, splits), songs, heads * dim, device=like.device)
        self._left = 0 if many else splits  # splits that attention leaves to the next layer
        self.attended = self._parts if self._left else like.new_zeros(songs, heads * dim)
        self.stats = torch.zeros(max(1, splits), songs, heads, 2, device=like.device)
        self._tables = [
            self.cache.layers[first].pattern.tables(config.sequence_length, torch.int32, like.device)
            for first in self._first_alike
        ]
        blocks = list(prior.blocks)
        self._first_gain = effective_weights(blocks[0].attention_norm)[0].detach()
        self._layers = [
            launch
            for index, (block, following) in enumerate(zip(blocks, [*blocks[1:], None], strict=True))
            for launch in self._block(block, index, following)
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

    def load(self, conditioning: PriorConditioning) -> None:
        super().load(conditioning)
        with torch.inference_mode(False), torch.no_grad():
            for fold in self._folds:  # weights may have been trained since the last window
                fold.fill()

    def _block(self, block: PriorBlock, index: int, following: PriorBlock | None) -> list[Launch]:
        cache, tables = self.cache.layers[index], self._tables[index]
        attention, mlp = block.attention, block.mlp
        again = following is None and self.conditioned and self.add_after
        next_gain = self._first_gain
        if following is not None:
            next_gain = effective_weights(following.attention_norm)[0].detach()
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
                gain=effective_weights(block.mlp_norm)[0].detach(),
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
                gain=next_gain,
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
        added: bool = False,
        gain: Tensor | None = None,
    ) -> list[Launch]:
        """One linear layer, or a matrix without bias, with what stands before and after it (see `store_output`); `gain`
        is that of the LayerNorm after it.
        """
        weight, bias = (layer, None) if isinstance(layer, Tensor) else effective_weights(layer)
        weight = weight.detach()
        outputs, width = weight.shape
        rows = self.batch_size
        spare = self.hidden  # stands where a kernel reads nothing
        arguments: dict[str, object] = {
            "hidden_ptr": hidden,
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
            "BIAS": bias is not None,
            "EPILOGUE": epilogue,
            "SCALED": scale != 1.0,
            "ADDED": added,
            "PDL": self._pdl,
        }
        if self.tuning.kernel == "few":
            return [self._of_few(arguments, norm)]
        launches = []
        arguments |= self._folding_arguments(self.hidden if gain is None else gain) | {"totals_ptr": spare}
        arguments["FOLDED"] = self._folded and epilogue != "plain"
        if norm is not None:
            arguments["hidden_ptr"] = self.normed
            if self._folded:
                fold = FoldedNorm(weight, cast(Tensor, bias).detach(), norm)
                self._folds.append(fold)
                arguments["totals_ptr"], arguments["bias_ptr"] = fold.totals, fold.bias
            else:
                launches.append(self._normalise(hidden, norm))
        return [*launches, linear_of_many(arguments, rows, self.tuning, self._scratch)]

    def _folding_arguments(self, gain: Tensor) -> dict[str, object]:
        return {
            "gain_ptr": gain,
            "scaled_ptr": self.normed,
            "moments_ptr": self._moments,
            "FOLDED": self._folded,
        }

    def _of_few(self, arguments: dict[str, object], norm: nn.LayerNorm | None) -> Launch:
        spare = self.hidden
        scale_and_shift = (spare, spare) if norm is None else effective_weights(norm)
        arguments["norm_ptr"], arguments["norm_bias_ptr"] = (cast(Tensor, own).detach() for own in scale_and_shift)
        arguments["SPLITS"] = self._left if arguments["hidden_ptr"] is self.attended else 0
        arguments["stats_ptr"] = self.stats
        return linear_of_few({**arguments, "NORM": norm is not None}, self.batch_size, self.tuning)

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
            "BLOCK_IN": block_of(width),
            "PDL": self._pdl,
        }
        return Launch(kernel("normalise"), (self.batch_size,), arguments)

    def _attention(self, cache: LayerCache, tables: SlotTables) -> Launch:
        block_dim, splits = block_of(self.head_dim), self.tuning.splits
        reach = -(-cache.pattern.max_visible // max(1, splits))
        entries = self.tuning.entries * 2 // cache.storage.element_size()
        block_slots = max(16, min(block_of(reach), entries // block_dim))
        arguments = {
            "query_ptr": self.query,
            "cache_ptr": cache.storage,
            "first_ptr": tables.first,
            "count_ptr": tables.count,
            "at_ptr": self.at,
            "out_ptr": self.attended,
            "sums_ptr": self._parts,
            "stats_ptr": self.stats,
            "done_ptr": self._scratch.done,
            "rows": self.batch_size,
            "scale": math.log2(math.e) / math.sqrt(self.head_dim),
            "HEADS": self.heads,
            "HEAD_DIM": self.head_dim,
            "slots": cache.pattern.capacity,
            "SPLITS": splits,
            "MERGED": self._left == 0,
            "BLOCK_DIM": block_dim,
            "BLOCK_SLOTS": block_slots,
            "PDL": self._pdl,
        }
        grid = (self.batch_size, self.heads, max(1, splits))
        warps = max(4, min(16, block_slots * block_dim // 2048))
        return Launch(kernel("attention"), grid, arguments, num_warps=warps)

    def _embedding_arguments(self) -> dict[str, object]:
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
            "BLOCK_IN": block_of(width),
            "ADDED": self.conditioned,
            "COUNT": self._blocks,
            **self._folding_arguments(self._first_gain),
        }

    def _embedding_launch(self) -> Launch:
        return Launch(kernel("embed"), (self.batch_size,), self._embedding_arguments())

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
            "BLOCK_CODES": block_of(codes),
            "SAMPLE": settings.do_sample,
            "TOP_K": 0 < settings.top_k < codes,
            "TOP_P": settings.top_p < 1.0,
            "PDL": self._pdl,
        }
        return Launch(kernel("draw"), (self.batch_size,), arguments, num_warps=8)


class FoldedNorm:
    """A LayerNorm in the outputs of the linear layer after it; see `fused_linear.linear_of_many`.

    Args:
        weight: (outputs, inputs) of the layer.
        bias: (outputs,) of the layer.
        norm: the LayerNorm.

    Attributes:
        totals: float32 (outputs,), the weight times the gain.
        bias: float32 (outputs,), the weight times the norm's bias, and the layer's.
    """

    def __init__(self, weight: Tensor, bias: Tensor, norm: nn.LayerNorm) -> None:
        gain, shift = (cast(Tensor, own).detach() for own in effective_weights(norm))
        self._weights = weight, bias, gain, shift
        self.totals = torch.empty(len(weight), device=weight.device)
        self.bias = torch.empty_like(self.totals)

    def fill(self) -> None:
        """Compute both of the weights as they are now."""
        weight, bias, gain, shift = (own.float() for own in self._weights)
        torch.mv(weight, gain, out=self.totals)
        torch.addmv(bias, weight, shift, out=self.bias)


def _shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that a program may have; Hopper's where there is no GPU."""
    if device.type != "cuda":
        return SHARED_OF_HOPPER
    found = torch.cuda.get_device_properties(device)
    return int(getattr(found, "shared_memory_per_block_optin", SHARED_OF_HOPPER))  # missing from torch's stubs


def _can_overlap(device: torch.device) -> bool:
    if device.type == "meta":  # kernels are compiled ahead of time, for Hopper where there is no GPU
        return not torch.cuda.is_available() or torch.cuda.get_device_capability() >= (9, 0)
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
