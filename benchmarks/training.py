"""What a step of prior training and of both distillation stages costs, in time and memory, side by side.

    python -m benchmarks.training --teacher fastjukebox-mini-36 --students fastjukebox-mini-12 fastjukebox-mini-9

A step is forward, backward and AdamW on random codes; weights are random, as the cost does not depend on them. `plain`
is maximum likelihood, `Eq. 4` the intermediate losses and `Eq. 3` the prediction loss, both with the teacher's forward
pass. `kept MB` is what a forward pass leaves for the backward pass, weights not counted; `peak MB` is the device's own
figure, on a GPU. `share of peak` is of the fastest matrix product of the same run and precision.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report import machine, timed, write_report
from fast_jukebox import FastJukeboxConfig, FastJukeboxPrior, FastJukeboxPriorConfig
from fast_jukebox.distillation import DistillationObjective

STAGES: dict[str, dict[str, float]] = {
    "plain": {"data": 1.0},
    "Eq. 4": {"attention_residual": 1.0, "hidden_states": 1.0, "attentions": 1.0},
    "Eq. 3": {"prediction": 1.0},
}


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure and print; returns the table's rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="fastjukebox-mini-36")
    parser.add_argument("--students", nargs="+", default=["fastjukebox-mini-12", "fastjukebox-mini-9"])
    parser.add_argument("--levels", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--batch", type=int, default=1, help="windows in a step")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast, and a bfloat16 teacher")
    parser.add_argument("--checkpointing", action="store_true", help="compute activations again in the backward pass")
    parser.add_argument("--threads", type=int, default=None, help="of a CPU")
    parser.add_argument("--output", default=None, help="write OUTPUT.json and OUTPUT.md")
    args = parser.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    peak = peak_flops(args.device, torch.bfloat16 if args.bf16 else torch.float32)
    rows = []
    for level in args.levels:
        teacher = FastJukeboxPrior(FastJukeboxConfig.preset(args.teacher).prior_configs[level]).to(args.device)
        batch = random_batch(teacher.config, args.batch, args.device)
        rows.append(measure(Work(teacher, None, "plain", args), args.teacher, batch, peak))
        if args.bf16:
            teacher.to(torch.bfloat16)
        for preset in args.students:
            for stage in STAGES:
                student = FastJukeboxPrior(FastJukeboxConfig.preset(preset).prior_configs[level]).to(args.device)
                rows.append(measure(Work(student, teacher, stage, args), preset, batch, peak))
    settings = {
        "machine": machine(args.device),
        "batch": args.batch,
        "precision": "bfloat16 autocast" if args.bf16 else "float32",
        "checkpointing": args.checkpointing,
        "peak GFLOP/s": peak / 1e9,
    }
    print(settings)
    print(write_report(rows, settings, args.output))
    return rows


class Work:
    """One kind of step of one model."""

    def __init__(
        self, prior: FastJukeboxPrior, teacher: FastJukeboxPrior | None, stage: str, args: argparse.Namespace
    ) -> None:
        self.prior, self.stage = prior.train(), stage
        self.module: nn.Module = prior if teacher is None else DistillationObjective(prior, teacher)
        self.optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-6)
        self.device, self.bf16 = torch.device(args.device), args.bf16
        if args.checkpointing:
            prior.activation_checkpointing_enable()

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Of one forward pass."""
        asked = {"labels": batch["codes"]} if self.module is self.prior else {"weights": STAGES[self.stage]}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.module(**batch, **asked).loss

    def step(self, batch: dict[str, Tensor]) -> None:
        """Forward, backward, AdamW."""
        self.loss(batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def measure(work: Work, name: str, batch: dict[str, Tensor], peak: float) -> dict[str, Any]:
    """One row of the table."""
    kept = kept_bytes(work, batch)
    with FlopCounterMode(display=False) as counter:
        work.step(batch)
    if work.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(work.device)
    seconds = timed(partial(work.step, batch), str(work.device))
    row = {
        "level": work.prior.config.level,
        "model": name,
        "step": work.stage,
        "s": seconds,
        "codes/s": batch["codes"].numel() / seconds,
        "GFLOP": counter.get_total_flops() / 1e9,
        "share of peak": counter.get_total_flops() / seconds / peak,
        "kept MB": kept / 1e6,
    }
    if work.device.type == "cuda":
        row["peak MB"] = torch.cuda.max_memory_allocated(work.device) / 1e6
    return row


def kept_bytes(work: Work, batch: dict[str, Tensor]) -> int:
    """Bytes that a forward pass keeps for the backward pass, each storage once, without the weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in work.module.parameters()}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor holds its address against reuse
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        work.loss(batch)
    return sum(size for size, _ in kept.values())


def peak_flops(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product."""
    size = 8192 if device.startswith("cuda") else 1024
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / timed(lambda: left @ right, device, repeats=5)


def random_batch(config: FastJukeboxPriorConfig, batch: int, device: str) -> dict[str, Tensor]:
    """Whole windows of random codes."""
    generator = torch.Generator().manual_seed(0)

    def codes(length: int) -> Tensor:
        return torch.randint(config.codebook_size, (batch, length), generator=generator).to(device)

    upper = {"upper_codes": codes(config.n_ctx // config.upper_ratio)} if config.has_upper_level else {}
    return {"codes": codes(config.n_ctx), **upper}


if __name__ == "__main__":
    main()
