"""Triton's interpreter, which runs the fused kernels on a CPU."""

import dataclasses
import importlib.util

import pytest
from benchmarks.triton_interpreter import repair

from fast_jukebox.models.prior.engines import fused, fused_tuning


@pytest.fixture
def interpreted(monkeypatch):
    """Triton's interpreter, with few programs a kernel, as each costs it milliseconds."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if not fused.interpreted():
        pytest.skip("TRITON_INTERPRET is not set")
    repair()
    few = [(limit, dataclasses.replace(tuning, programs=2)) for limit, tuning in fused_tuning.TUNINGS]
    monkeypatch.setattr(fused_tuning, "TUNINGS", few)
