"""Repairs of Triton 3.6's interpreter, by which fused kernels run on a CPU (TRITON_INTERPRET=1)."""

from __future__ import annotations

from typing import Any

import numpy


def repair() -> None:
    """Let it take bounds of loops from memory with numpy 2.4, multiply matrices of bfloat16 numbers, and do once what
    it does at every call: prepare its language, and tabulate numpy's types.
    """
    from triton import language as tl
    from triton.runtime import interpreter

    if getattr(interpreter, "_repaired", False):
        return
    plain_patch, plain_dot = interpreter._patch_lang_tensor, interpreter.InterpreterBuilder.create_dot
    plain_lang, plain_dtype = interpreter._patch_lang, interpreter._get_np_dtype
    np_dtypes: dict[Any, Any] = {}

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

    class Launch(interpreter._LangPatchScope):
        def __init__(self) -> None:
            super().__init__()
            self.modules: set[int] = set()

        def restore(self) -> None:
            super().restore()
            self.modules.clear()

    launch = Launch()

    def patch_lang(function: Any) -> Any:
        # It prepares the language for every call of a function, and undoes only what it did for the kernel.
        if id(function.__globals__) not in launch.modules:
            launch.modules.add(id(function.__globals__))
            launch._changes += plain_lang(function)._changes
        return launch

    def np_dtype(dtype: Any) -> Any:
        # It makes a table of all types at every call.
        own = dtype.element_ty if isinstance(dtype, tl.block_type) else dtype
        if own.is_ptr():
            return numpy.dtype(numpy.uint64)
        if own not in np_dtypes:
            np_dtypes[own] = plain_dtype(own)
        return np_dtypes[own]

    interpreter._patch_lang, interpreter._get_np_dtype = patch_lang, np_dtype
    interpreter._patch_lang_tensor = patch
    interpreter.InterpreterBuilder.create_dot = dot
    interpreter._repaired = True
