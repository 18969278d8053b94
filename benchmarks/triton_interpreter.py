"""Two repairs of Triton 3.6's interpreter, by which fused kernels run on a CPU (TRITON_INTERPRET=1)."""

from __future__ import annotations

from typing import Any

import numpy


def repair() -> None:
    """Let it take bounds of loops from memory with numpy 2.4, and multiply matrices of bfloat16 numbers."""
    from triton import language as tl
    from triton.runtime import interpreter

    if getattr(interpreter, "_repaired", False):
        return
    plain_patch, plain_dot = interpreter._patch_lang_tensor, interpreter.InterpreterBuilder.create_dot

    def patch(tensor: Any, scope: Any) -> None:
        plain_patch(tensor, scope)
        # It hands an array of one element to int(), which numpy no longer takes.
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    def widened(operand: Any) -> Any:
        # It multiplies the bits of bfloat16 numbers, which numpy does not have.
        if operand.dtype.scalar != tl.bfloat16:
            return operand
        data = (operand.data.astype(numpy.uint32) << 16).view(numpy.float32)
        return interpreter.TensorHandle(data, tl.float32)

    def dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return plain_dot(self, widened(a), widened(b), *rest)

    interpreter._patch_lang_tensor = patch
    interpreter.InterpreterBuilder.create_dot = dot
    interpreter._repaired = True
