from types import SimpleNamespace

import pytest
import torch

from fast_jukebox.sampling import machine as batching
from fast_jukebox.sampling.machine import (
    LARGE,
    available_ram,
    free_memory,
    is_out_of_memory,
    process_memory,
    rows_that_fit,
    zeros,
)

CPU = torch.device("cpu")


def test_rows_follow_the_free_memory(tiny_model, monkeypatch):
    prior = tiny_model.priors[0]
    row = batching.row_bytes(prior, 32)
    assert row > prior.new_cache(1).nbytes + 32 * 16 * 4
    monkeypatch.setattr(batching, "free_memory", lambda device: 10 * row)
    assert rows_that_fit(prior, 32, 100) == 5  # half of it
    assert rows_that_fit(prior, 32, 3) == 3
    monkeypatch.setattr(batching, "free_memory", lambda device: 0)
    assert rows_that_fit(prior, 32, 100) == 1
    monkeypatch.setattr(batching, "free_memory", lambda device: None)
    assert rows_that_fit(prior, 32, 100) == 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_and_small_zeros_are_those_of_torch(dtype):
    for rows in (3, LARGE // 100):
        made = zeros((rows, 50), dtype, CPU)
        assert (made.shape, made.dtype, made.device) == ((rows, 50), dtype, CPU)
        assert made.is_contiguous()
        assert not made.any()
        made += 1
        assert made.min() == made.max() == 1
        assert not zeros((rows, 50), dtype, CPU).any()


@pytest.mark.skipif(not hasattr(batching.mmap, "MADV_HUGEPAGE"), reason="needs Linux")
def test_large_zeros_take_memory_where_they_are_written():
    before = process_memory()
    made = zeros((64 * LARGE,), torch.uint8, CPU)
    made[:LARGE] = 1
    assert process_memory() - before < 16 * LARGE
    made.fill_(1)
    assert process_memory() - before > 48 * LARGE
    del made
    assert process_memory() - before < 16 * LARGE


def test_zeros_that_the_system_has_no_room_for_are_torchs(monkeypatch):
    def full(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(batching.mmap, "mmap", full)
    assert not zeros((LARGE,), torch.float32, CPU).any()


def test_free_memory_is_what_the_system_says(tmp_path, monkeypatch):
    table = tmp_path / "meminfo"
    table.write_text("MemTotal: 9 kB\nMemAvailable:   4 kB\n")
    monkeypatch.setattr(batching, "Path", lambda name: table)
    assert free_memory(CPU) == available_ram() == 4096
    table.unlink()
    assert available_ram() is None
    assert free_memory(SimpleNamespace(type="mps")) is None


@pytest.mark.gpu
def test_free_memory_of_a_gpu():
    before = free_memory(torch.device("cuda"))
    held = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    assert before - free_memory(held.device) >= 2**27


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(KeyError("out of memory"))


def test_a_recording_that_ended_without_memory_counts_too():
    with pytest.raises(RuntimeError) as caught:
        try:
            raise torch.OutOfMemoryError("full")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
    assert is_out_of_memory(caught.value)
