"""Rows that are sampled at once: as many as memory holds, and half of them where it did not."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TypeVar

import torch

from fast_jukebox.sampling.inputs import SizedPrior, device_of

Item = TypeVar("Item")

MEMORY_SHARE = 0.5
"""Fraction of the free memory that the tensors counted here may take; the rest is for a step's intermediates."""


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
"""Words of drivers and libraries, in a plain RuntimeError, where torch's own allocator was not the one that failed."""


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on a device, or `None` where nobody can tell.

    On a GPU, what the driver has free and what torch keeps without using it; on a CPU, what Linux calls available.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "cpu":
        return available_ram()
    return None


def available_ram() -> int | None:
    """Bytes of main memory that programs can still have, or `None` where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    found = [line for line in lines if line.startswith("MemAvailable:")]
    return int(found[0].split()[1]) * 1024 if found else None


def process_memory() -> int:
    """Bytes of main memory that this process holds, libraries included; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # not Linux
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def row_bytes(prior: SizedPrior, length: int) -> int:
    """Bytes that one row (a window of one song) holds at most at once: first its conditioning, for a moment twice, then
    this, its cache and its logits; noise and codes all along.
    """
    width, item = getattr(prior.config, "hidden_size", 0), next(prior.parameters()).element_size()
    cache = prior.cache_nbytes(1)
    conditioning = length * width * item
    # Logits are worked on in float32: themselves, probabilities, their sums and what is compared.
    logits = 4 * 4 * prior.config.codebook_size
    return length * (4 + 8) + conditioning + max(conditioning, cache + logits)


def rows_that_fit(prior: SizedPrior, length: int, most: int) -> int:
    """Number of rows of `length` codes to sample at once, 1 to `most`, by the memory free on the prior's device."""
    free = free_memory(device_of(prior))
    if free is None or most <= 1:
        return most
    return max(1, min(most, int(MEMORY_SHARE * free) // row_bytes(prior, length)))


def even_parts(items: list[Item], most: int) -> list[list[Item]]:
    """`items` in as few parts of at most `most` as there can be, which differ by one item at most."""
    count = -(-len(items) // most)
    bounds = [part * len(items) // count for part in range(count + 1)]
    return [items[start:stop] for start, stop in itertools.pairwise(bounds)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it came of, says that a device, or the CPU, had no more memory to give.

    Of another comes that of a recording which ended without memory: it says only that the recording failed.
    """
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
    if said or isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    before = error.__cause__ or error.__context__
    return before is not None and is_out_of_memory(before)
