"""Triton's interpreter, which runs the fused kernels on a CPU."""

import importlib.util

import numpy
import pytest

from fast_jukebox.models.prior.engines import fused


@pytest.fixture
def interpreted(monkeypatch):
    """Triton's interpreter, with few programs a kernel, as each costs it milliseconds."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if not fused.interpreted():
        pytest.skip("TRITON_INTERPRET is not set")
    from triton import language as tl
    from triton.runtime import interpreter

    plain = interpreter._patch_lang_tensor

    def patch(tensor, scope):
        plain(tensor, scope)
        # Triton 3.6 hands an array of one element to int(), which numpy 2.4 no longer takes.
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch)
    plain_dot = interpreter.InterpreterBuilder.create_dot

    def dot(self, a, b, *rest):
        # Triton 3.6 multiplies the bits of bfloat16 numbers, which numpy does not have.
        return plain_dot(self, *(widened(operand) for operand in (a, b)), *rest)

    def widened(operand):
        if operand.dtype.scalar != tl.bfloat16:
            return operand
        data = (operand.data.astype(numpy.uint32) << 16).view(numpy.float32)
        return interpreter.TensorHandle(data, tl.float32)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", dot)
    monkeypatch.setattr(fused, "_PROGRAMS", 2)
