"""Steps of a prior that stay on the device: from the last code to the next without a word to the host.

Positions are tensors, shapes never change and every tensor that a step reads or writes is allocated once. So on a GPU a
row of steps, the draws included, is recorded once as a CUDA graph and replayed; elsewhere the same steps run one after
the other.
"""

from __future__ import annotations

import functools
import threading
from abc import abstractmethod
from collections.abc import Callable
from types import FunctionType

import torch
from torch import Tensor
from torch.nn import functional as F

from fast_jukebox.models.prior.attention import DeviceSlots
from fast_jukebox.models.prior.block import PriorCache, linear_of_rows, rows_for
from fast_jukebox.models.prior.conditioning import PriorConditioning
from fast_jukebox.models.prior.engines.interface import EnginePrior
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.drawing import draw_codes
from fast_jukebox.sampling.engine import EngineDecoder
from fast_jukebox.sampling.weights import effective_weights

GRAPH_LAYERS = 1024
"""Layers that a recorded row of steps goes through at most, all steps counted: recording takes time and memory."""

_WARM_UPS = 3

_RECORDING = threading.Lock()


class DeviceDecoder(EngineDecoder[PriorConditioning, PriorCache]):
    """Steps that stay on the device: what their kinds have in common.

    It holds the weights themselves and no module, so it follows training but not a replacement of the weights; of
    layers with adapters it holds merged copies, which follow neither.

    Args:
        prior: on any device, in any floating type.
        batch_size: songs, N.
        settings: how a code is drawn.
    """

    position: Tensor
    """int64 (1,), of the next step, in the sequence"""
    cursor: Tensor
    """int64 (1,), its index into `uniform`, `added` and `codes`"""

    def __init__(self, prior: EnginePrior, batch_size: int, settings: SamplingSettings) -> None:
        config = prior.config
        self.level = config.level
        self.batch_size = batch_size
        self.settings = settings
        self.prefix = config.lyric_prefix_length
        self.n_ctx = config.n_ctx
        self.conditioned = config.has_upper_level or config.use_timing
        self.add_after = config.add_conditioning_after
        self.steps_per_call = steps_in_a_row(config.row_length, config.num_hidden_layers)
        # Ordinary tensors, whether or not they are made in inference mode: they are written to in both.
        with torch.inference_mode(False), torch.no_grad():
            self.cache = prior.new_cache(batch_size)
            patterns = [block.attention.pattern for block in prior.blocks]
            self._first_alike = [patterns.index(pattern) for pattern in patterns]  # the first layer of each's pattern
            embedding, _ = effective_weights(prior.code_embedding)
            output = embedding if prior.output is None else effective_weights(prior.output)[0]
            self.embedding, self.output = prior.drawn_rows(embedding.detach()), prior.drawn_rows(output.detach())
            self.positions = prior.position_embedding.detach()
            device, dtype = self.positions.device, self.positions.dtype
            self.rows = self._rows(device)
            self.code = torch.zeros(batch_size, dtype=torch.int64, device=device)
            self.codes = torch.zeros(self.steps_per_call, batch_size, dtype=torch.int64, device=device)
            self.uniform = torch.zeros(self.steps_per_call, batch_size, device=device)
            self.added = torch.zeros(self.steps_per_call, self.rows, config.hidden_size, dtype=dtype, device=device)
            self.logits = torch.zeros(batch_size, config.vocab_size, dtype=dtype, device=device)
            self._setup(prior)
            self._graphs = self._record() if device.type == "cuda" else {}
            self._replayed: list[torch.cuda.Event] = []
        self.unload()

    @abstractmethod
    def _rows(self, device: torch.device) -> int:
        """Rows that a step computes with, those of the songs first."""

    @abstractmethod
    def _setup(self, prior: EnginePrior) -> None:
        """Make what the steps need, `position` and `cursor` with it; called once, after everything else is there."""

    @abstractmethod
    def _steps(self, count: int) -> None:
        """So many steps from `position` and `cursor` on, which are moved behind them; nothing is read by the host."""

    @property
    def costly(self) -> bool:
        return bool(self._graphs)

    def load(self, conditioning: PriorConditioning) -> None:
        self._conditioning = conditioning.positions
        self._length = conditioning.length

    def unload(self) -> None:
        self._conditioning = None
        self._length = 0

    def decode(self, code: Tensor, position: int, noise: Tensor) -> Tensor:
        """See [`~fast_jukebox.sampling.protocols.Decoder.decode`].

        On a GPU the host runs ahead of the device by two rows of steps at most.

        Raises:
            ValueError: the positions go beyond the window.
        """
        count = noise.shape[1]
        if not (0 < position <= self._length - count and 0 < count <= self.steps_per_call):
            raise ValueError(
                f"`position` must be from 1 and, with 1 to {self.steps_per_call} codes, within the window of "
                f"{self._length}; got {position} and {count} codes"
            )
        with torch.inference_mode(False), torch.no_grad():
            self.code.copy_(code)
            self.position.fill_(self.prefix + position)
            self.cursor.zero_()
            self.uniform[:count].copy_(noise.t())
            if self._conditioning is not None:
                start = self.prefix + position
                added = self._conditioning[:, start : start + count]  # (N, count, W)
                self.added[:count, : self.batch_size].copy_(added.transpose(0, 1))
            self._replay(count)
            self.cache.length = position + count
            return self.codes[:count].t().clone()

    def _replay(self, count: int) -> None:
        if not self._graphs:
            self._steps(count)
            return
        if len(self._replayed) == 2:
            self._replayed.pop(0).synchronize()  # so that progress counts work that is all but done
        if count in self._graphs:
            self._graphs[count].replay()
        else:
            for _ in range(count):
                self._graphs[1].replay()
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.positions.device))
        self._replayed.append(event)

    def _record(self) -> dict[int, torch.cuda.CUDAGraph]:
        """CUDA graphs of one step and of a row of them, by their number of steps."""
        device = self.positions.device
        with _RECORDING, torch.cuda.device(device):
            side = _side_stream(device)
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):  # kernels are chosen and compiled, workspaces allocated
                    self._rewind()
                    self._steps(1)
            torch.cuda.current_stream().wait_stream(side)
            graphs: dict[int, torch.cuda.CUDAGraph] = {}
            pool = torch.cuda.graph_pool_handle()
            for count in sorted({1, self.steps_per_call}):
                self._rewind()
                graph = torch.cuda.CUDAGraph()
                # What other threads do on the device meanwhile is no part of it and must not fail.
                with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                    self._steps(count)
                graphs[count] = graph
            self._rewind()
            self.cache.reset()
        return graphs

    def _rewind(self) -> None:
        self.position.zero_()
        self.cursor.zero_()


class GraphDecoder(DeviceDecoder):
    """Steps made of torch's operations.

    Args:
        prior: as in [`DeviceDecoder`], like `batch_size` and `settings`.
        compiled: fuse the step's operations by torch.compile, in one graph of fixed shapes; takes a minute or so at the
            first step.
    """

    def __init__(self, prior: EnginePrior, batch_size: int, settings: SamplingSettings, compiled: bool = False) -> None:
        self.engine = "compiled" if compiled else "graph"
        # No bound method: a decoder that nobody holds must free its memory at once, not when garbage is next
        # collected.
        self._step: Callable[[GraphDecoder], None] = _compiled_step() if compiled else GraphDecoder.step
        super().__init__(prior, batch_size, settings)

    @property
    def costly(self) -> bool:
        return super().costly or self._step is not GraphDecoder.step

    def _rows(self, device: torch.device) -> int:
        return rows_for(self.batch_size, device, self.positions.shape[1])

    def _setup(self, prior: EnginePrior) -> None:
        self.cache.steps = list(prior.block_steps(self.cache))
        self.position = torch.zeros(1, dtype=torch.int64, device=self.positions.device)
        self.cursor = torch.zeros_like(self.position)

    def _steps(self, count: int) -> None:
        for _ in range(count):
            self._step(self)

    def step(self) -> None:
        """One step: every input and output is a tensor of this object, and none of them is looked at."""
        songs = self.batch_size
        hidden = F.embedding(self.code, self.embedding) + self.positions.index_select(0, self.position)
        if self.rows != songs:
            hidden = F.pad(hidden, (0, 0, 0, self.rows - songs))
        added = self.added.index_select(0, self.cursor).squeeze(0) if self.conditioned else None
        if added is not None:
            hidden = hidden + added
        slots: list[DeviceSlots] = []
        for layer, (block_step, first) in enumerate(zip(self.cache.steps, self._first_alike, strict=True)):
            slots.append(self.cache.layers[layer].device_slots(self.position) if first == layer else slots[first])
            hidden = block_step(hidden, slots[layer])
        if added is not None and self.add_after:
            hidden = hidden + added
        logits = linear_of_rows(hidden, self.output, None, hidden.shape[1])[:songs]
        uniform = self.uniform.index_select(0, self.cursor).squeeze(0)
        code = draw_codes(logits, uniform, self.settings)
        self.logits.copy_(logits)
        self.code.copy_(code)
        self.codes.index_copy_(0, self.cursor, code.unsqueeze(0))
        self.position.add_(1)
        self.cursor.add_(1)


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream that decoders of a device are recorded on: one, as cuBLAS keeps a workspace for each."""
    return torch.cuda.Stream(device)


def _compiled_step() -> Callable[[GraphDecoder], None]:
    """`GraphDecoder.step` after torch.compile, for one decoder: as a code object of its own, since torch.compile gives
    up on code that it has compiled for eight sizes.
    """
    step = GraphDecoder.step
    own = FunctionType(step.__code__.replace(), step.__globals__, step.__name__)
    # Coordinate descent makes products of one row fused matrix-vector kernels; compiled code is kept on disk.
    return torch.compile(own, fullgraph=True, dynamic=False, options={"coordinate_descent_tuning": True})


def steps_in_a_row(row_length: int, layers: int) -> int:
    """The most steps that divide a row and go through `GRAPH_LAYERS` layers at most; 1 at least."""
    return max(steps for steps in range(1, row_length + 1) if row_length % steps == 0 and _fits(steps, layers))


def _fits(steps: int, layers: int) -> bool:
    return steps == 1 or steps * layers <= GRAPH_LAYERS
