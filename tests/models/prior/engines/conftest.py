"""Triton's interpreter, which runs the fused kernels on a CPU."""

import dataclasses
import importlib.util

import pytest
from benchmarks.triton_interpreter import repair

from fast_jukebox.models.prior.engines import fused, fused_tuning


@pytest.fixture
def interpreted(request, monkeypatch):
    """Triton's interpreter, with few programs a kernel, as each costs it milliseconds.

    It looks for overflows of integers where tests are slow: no number of a tiny prior comes near one.
    """
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if not fused.interpreted():
        pytest.skip("TRITON_INTERPRET is not set")
    repair()
    if request.node.get_closest_marker("slow") is None:
        from triton.runtime.interpreter import interpreter_builder

        options = dataclasses.replace(interpreter_builder.options, sanitize_overflow=False)
        monkeypatch.setattr(interpreter_builder, "options", options)
    few = [(limit, dataclasses.replace(tuning, programs=2)) for limit, tuning in fused_tuning.TUNINGS]
    monkeypatch.setattr(fused_tuning, "TUNINGS", few)
