"""Training steps on a GPU; parts of `benchmarks.gpu`."""

from __future__ import annotations

import time

import torch

from benchmarks.gpu_bench import BOTTOM, TOP, Bench, attempt
from benchmarks.report import clock, peak_memory, reset_peak_memory
from benchmarks.training import checkpoint_layers
from fast_jukebox.training.compilation import compile_blocks, random_batch


def training(bench: Bench) -> None:
    """Codes a second of training steps in bfloat16 autocast."""
    plan = [
        ("fastjukebox-mini-9", TOP, 64, False),
        ("fastjukebox-72", TOP, 4, True),
        ("fastjukebox-18", TOP, 8, False),
        ("fastjukebox-mini-9", BOTTOM, 48, False),
        ("fastjukebox-18", BOTTOM, 4, False),
    ]
    for size in plan[: 1 if bench.toy else None]:
        attempt(bench, training_row, *size, False)
        bench.free()


def compiled_training(bench: Bench) -> None:
    """The same with compiled layers."""
    if bench.device != "cuda":
        bench.emit(skipped="there is no GPU")
        return
    for size in (("fastjukebox-72", TOP, 4, True), ("fastjukebox-mini-9", TOP, 64, False)):
        attempt(bench, training_row, *size, True)
        torch.compiler.reset()
        bench.free()


def training_row(bench: Bench, name: str, level: int, batch: int, checkpointing: bool, compiled: bool) -> None:
    """One row of `training`."""
    prior = bench.prior(bench.config(name, level), torch.float32).train()
    config = prior.config
    if checkpointing:
        checkpoint_layers(prior)
    optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-4, fused=bench.device == "cuda")
    inputs = random_batch(prior, batch)
    begin = time.perf_counter()
    if compiled and not compile_blocks(prior, batch, torch.bfloat16):
        raise RuntimeError("the layers were not compiled")
    compiling = time.perf_counter() - begin
    reset_peak_memory(bench.device)

    def train() -> None:
        with torch.autocast(bench.device, dtype=torch.bfloat16, enabled=bench.device == "cuda"):
            loss = prior(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = [clock(train, bench.device) for _ in range(8)]
    step = sorted(seconds[3:])[2]
    parameters = sum(parameter.numel() for parameter in prior.parameters())
    bench.emit(
        level=level,
        model=name,
        batch=batch,
        checkpointing=checkpointing,
        compiled=compiled,
        step_ms=1e3 * step,
        first_s=compiling + seconds[0],
        codes_a_second=batch * config.n_ctx / step,
        TFLOP_s=6 * parameters * batch * config.n_ctx / step / 1e12,
        peak_MB=peak_memory(bench.device) / 1e6,
    )
