"""Whether `engine="auto"` takes the fused steps on a GPU: tried once for each size there, and remembered.

A trial steps a few layers of the prior's own weights, one of each attention pattern: the logits of the fused step must
be those of the plain one to rounding, and a row of steps must take no longer than the recorded one. Where LayerNorm can
be folded into products, the quicker form is used. The verdict is kept in the user's cache folder by device, versions,
dtype and shapes, so a machine goes on making the same song of a seed.
What a trial raises is a verdict too, with one warning: whatever is wrong with the kernels, sampling goes on without.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fast_jukebox.models.prior.attention import Pattern
from fast_jukebox.models.prior.block import BlockList, PriorBlock
from fast_jukebox.models.prior.conditioning import PriorConditioning
from fast_jukebox.models.prior.engines.cuda_graph import DeviceDecoder, GraphDecoder
from fast_jukebox.models.prior.engines.fused import FusedDecoder, unsupported
from fast_jukebox.models.prior.engines.fused_tuning import Tuning, forms_for
from fast_jukebox.models.prior.engines.interface import EnginePrior
from fast_jukebox.sampling.checks import SamplingSettings
from fast_jukebox.sampling.machine import is_out_of_memory
from fast_jukebox.sampling.weights import base_parameters
from fast_jukebox.utils.files import cache_folder, read_file, write_file

logger = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest difference of the logits from those of the plain step, as a share of them, by Euclidean norms."""

SLACK = 1.02
"""How much longer than the recorded steps the fused ones may take, for what timings vary."""

_STEPS = 3
_TIMINGS = 4
_MOST_BYTES = 4096  # of a file with a verdict

_verdicts: dict[str, dict[str, Any]] = {}
_trying = threading.RLock()


def trusted_decoder(prior: EnginePrior, batch_size: int, settings: SamplingSettings) -> DeviceDecoder | None:
    """A decoder of fused steps where they suit the prior on its device; None where recorded steps do.

    Raises:
        RuntimeError: there is not enough memory for it.
    """
    if unsupported(prior) is not None:
        return None
    with _trying:
        name = trial_name(prior, batch_size)
        verdict = _verdict(name, lambda: try_fused(prior, batch_size))
        if verdict["engine"] != "fused":
            return None
        try:
            folded = verdict.get("folded") is True
            return FusedDecoder(prior, batch_size, settings, forms_for(batch_size)[-1 if folded else 0])
        except Exception as error:
            if is_out_of_memory(error):
                raise
            remember(name, _failure(error))
            return None


def try_fused(prior: EnginePrior, batch_size: int) -> dict[str, object]:
    """A trial: `engine`, "fused" or "graph", whether LayerNorm is `folded`, and what was measured.

    Raises:
        RuntimeError: a kernel could not be built or run, or there is not enough memory.
    """
    stack, settings = _few_layers(prior), SamplingSettings()
    with torch.no_grad(), torch.random.fork_rng(devices=_devices(prior)):
        torch.manual_seed(0)
        tolerance = TOLERANCE[prior.position_embedding.dtype]
        tuning, *others = forms_for(batch_size)
        difference, milliseconds = _measured(stack, batch_size, settings, tuning)
        measured = {"difference": difference, "tolerance": tolerance}
        if not difference <= tolerance:  # NaN is no agreement either
            return {"engine": "graph", "reason": "their logits are not those of the plain step", **measured}
        measured["fused_ms"] = milliseconds
        for folding in others:
            measured["folded_ms"] = _folded_milliseconds(stack, batch_size, settings, folding)
        measured["graph_ms"] = _milliseconds(GraphDecoder(stack, batch_size, settings))
    folded = measured.get("folded_ms", float("inf")) < milliseconds
    quick = min(milliseconds, measured["folded_ms"] if folded else milliseconds) <= SLACK * measured["graph_ms"]
    return {"engine": "fused" if quick else "graph", "folded": folded, **measured}


def _measured(prior: EnginePrior, batch_size: int, settings: SamplingSettings, tuning: Tuning) -> tuple[float, float]:
    """The difference of the fused steps' logits, and milliseconds of a step."""
    decoder = FusedDecoder(prior, batch_size, settings, tuning)
    difference = _difference(prior, decoder)
    return difference, _milliseconds(decoder)


def _folded_milliseconds(prior: EnginePrior, batch_size: int, settings: SamplingSettings, tuning: Tuning) -> float:
    """Milliseconds of a step with LayerNorm in the products, infinite where that does not work."""
    try:
        difference, milliseconds = _measured(prior, batch_size, settings, tuning)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        logger.info("LayerNorm is not folded into products: %s", error)
        return float("inf")
    return milliseconds if difference <= TOLERANCE[prior.position_embedding.dtype] else float("inf")


def trial_name(prior: EnginePrior, batch_size: int) -> str:
    """A name for all that a verdict holds for: the device, versions, kernels, dtype and shapes, whatever the depth."""
    weight, config = prior.position_embedding, prior.config
    facts = [
        *_machine(str(weight.device)),
        str(weight.dtype),
        batch_size,
        *(tuple(parameter.shape) for parameter in base_parameters(prior.blocks[0])),
        *dict.fromkeys(repr(block.attention.pattern) for block in prior.blocks),
        prior.blocks[0].residual_scale == 1.0,
        config.num_attention_heads,
        config.vocab_size,
        config.has_upper_level or config.use_timing,
    ]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:32]


def _verdict(name: str, trial: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if name not in _verdicts:
        known = _read(name)
        if known is None:
            try:
                known = trial()
            except Exception as error:
                if is_out_of_memory(error):
                    return _failure(error)  # of this moment; tried again when there is more
                known = _failure(error)
            remember(name, known)
        _verdicts[name] = known
    return _verdicts[name]


def _failure(error: Exception) -> dict[str, object]:
    return {"engine": "graph", "reason": f"{type(error).__name__}: {error}"[:500]}


def remember(name: str, verdict: dict[str, object]) -> None:
    """Keep a verdict, and say so where it is that the kernels do not work."""
    _verdicts[name] = verdict
    if "reason" in verdict:
        logger.warning("sampling goes on with recorded steps, without the fused ones: %s", verdict["reason"])
    else:
        logger.info("fused steps were tried for this size: %s", verdict)
    try:
        path = _path(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(path, json.dumps(verdict))
    except OSError as error:
        logger.info("the verdict on fused steps is not kept for the next process: %s", error)


def _read(name: str) -> dict[str, object] | None:
    try:
        verdict = json.loads(read_file(_path(name), _MOST_BYTES))
    except (OSError, ValueError):
        return None
    return verdict if isinstance(verdict, dict) and verdict.get("engine") in ("fused", "graph") else None


def _path(name: str) -> Path:
    return cache_folder() / f"fused-{name}.json"


@functools.cache
def _machine(device: str) -> tuple[str, ...]:
    """Names and versions of what runs the kernels, and a digest of their source."""
    import triton

    folder = Path(__file__).parent
    sources = b"".join(path.read_bytes() for path in sorted(folder.glob("fused*.py")))
    versions = (torch.__version__, str(torch.version.cuda), triton.__version__, hashlib.sha256(sources).hexdigest())
    if torch.device(device).type != "cuda":
        return (device, *versions)
    found = torch.cuda.get_device_properties(device)
    return (found.name, f"{found.major}.{found.minor}", *versions)


def _few_layers(prior: EnginePrior) -> EnginePrior:
    """The prior with its first layer of each pattern alone; their weights are the prior's own."""
    blocks: dict[Pattern, PriorBlock] = {}
    for block in prior.blocks:
        blocks.setdefault(block.attention.pattern, block)
    few = copy.copy(prior)
    modules = cast(nn.Module, prior)._modules
    cast(nn.Module, few)._modules = {**modules, "blocks": BlockList(blocks.values())}
    few.config = copy.deepcopy(prior.config)
    few.config.num_hidden_layers = len(blocks)
    return few


def _conditioning(prior: EnginePrior, batch_size: int, length: int) -> PriorConditioning:
    """Random numbers in place of what conditions a window."""
    config, like = prior.config, prior.position_embedding

    def numbers(count: int) -> Tensor:
        return torch.randn(batch_size, count, config.hidden_size, device=like.device).to(like.dtype) * 0.1

    lyrics = states = None
    if config.lyric_prefix_length:
        lyrics = torch.randint(0, config.lyric_vocab_size, (batch_size, config.lyric_length), device=like.device)
    if config.has_lyric_encoder:
        states = numbers(config.lyric_length)
    conditioned = config.has_upper_level or config.use_timing
    positions = numbers(config.lyric_prefix_length + length) if conditioned else None
    return PriorConditioning(numbers(1), positions, length, lyrics, states)


def _difference(prior: EnginePrior, decoder: DeviceDecoder) -> float:
    """The largest difference of the logits of a few steps after a prompt of more than a row, as a share of them."""
    config, songs, device = prior.config, decoder.batch_size, prior.position_embedding.device
    length = min(config.n_ctx, 2 * config.row_length + _STEPS)
    prompt = max(length - _STEPS - 1, 0)
    codes = torch.randint(0, config.codebook_size, (songs, length), device=device)
    conditioning, cache = _conditioning(prior, songs, length), prior.new_cache(songs)
    for own in (cache, decoder.cache):
        prior.prefill(codes[:, :prompt], conditioning, own)
    decoder.load(conditioning)
    largest = 0.0
    for position in range(prompt + 1, length):
        wanted = prior.step(codes[:, position - 1], position, conditioning, cache).float()
        decoder.decode(codes[:, position - 1], position, torch.rand(songs, 1, device=device))
        share = float((decoder.logits.float() - wanted).norm() / wanted.norm())
        largest = share if not share <= largest else largest
    decoder.unload()
    return largest


def _milliseconds(decoder: DeviceDecoder) -> float:
    """Milliseconds of a step, the best of a few rows of them."""
    device = decoder.positions.device
    count = min(decoder.steps_per_call, decoder.n_ctx - 1)
    like = decoder.positions
    positions = None
    if decoder.conditioned:
        shape = (decoder.batch_size, decoder.prefix + count + 1, like.shape[1])
        positions = torch.zeros(shape, dtype=like.dtype, device=device)
    decoder.load(PriorConditioning(like[:1], positions, count + 1))
    code = torch.zeros(decoder.batch_size, dtype=torch.int64, device=device)
    uniform = torch.rand(decoder.batch_size, count, device=device)
    best = float("inf")
    for _ in range(_TIMINGS):
        started = _now(device)
        decoder.decode(code, 1, uniform)
        best = min(best, _now(device) - started)
    decoder.unload()
    return 1e3 * best / count


def _devices(prior: EnginePrior) -> list[torch.device]:
    device = prior.position_embedding.device
    return [device] if device.type == "cuda" else []


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
