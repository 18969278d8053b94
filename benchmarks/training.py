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

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report import Row, machine, parse, parser_of, peak_memory, report, reset_peak_memory, timed
from fast_jukebox import FastJukeboxConfig, FastJukeboxPrior
from fast_jukebox.distillation import DistillationObjective
from fast_jukebox.distillation.losses import LOSSES
from fast_jukebox.training.compilation import random_batch

STAGES = {"plain": LOSSES["data"], "Eq. 4": LOSSES["intermediate"], "Eq. 3": LOSSES["prediction"]}


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure and print; returns the table's rows."""
    parser = parser_of(__doc__)
    parser.add_argument("--teacher", default="fastjukebox-mini-36")
    parser.add_argument("--students", nargs="+", default=["fastjukebox-mini-12", "fastjukebox-mini-9"])
    parser.add_argument("--levels", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--batch", type=int, default=1, help="windows in a step")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast, and a bfloat16 teacher")
    parser.add_argument("--checkpointing", action="store_true", help="compute activations again in the backward pass")
    args = parse(parser, arguments)
    peak = peak_flops(args.device, torch.bfloat16 if args.bf16 else torch.float32)
    rows = []
    for level in args.levels:
        teacher = FastJukeboxPrior(FastJukeboxConfig.preset(args.teacher).prior_configs[level]).to(args.device)
        batch = random_batch(teacher, args.batch)
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
    report({"": rows}, settings, args.output)
    return rows


def checkpoint_layers(prior: FastJukeboxPrior) -> None:
    """Compute activations again in the backward pass; transformers before 5.23 knows the older name alone."""
    enable = getattr(prior, "activation_checkpointing_enable", None) or prior.gradient_checkpointing_enable
    enable()


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
            checkpoint_layers(prior)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Of one forward pass."""
        asked = {} if self.module is self.prior else {"weights": STAGES[self.stage]}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.module(**batch, **asked).loss

    def step(self, batch: dict[str, Tensor]) -> None:
        """Forward, backward, AdamW."""
        self.loss(batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def measure(work: Work, name: str, batch: dict[str, Tensor], peak: float) -> Row:
    """One row of the table."""
    kept = kept_bytes(work, batch)
    with FlopCounterMode(display=False) as counter:
        work.step(batch)
    reset_peak_memory(work.device.type)
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
        row["peak MB"] = peak_memory("cuda") / 1e6
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


if __name__ == "__main__":
    main()
