"""Parts of the Triton kernels of a fused step; shapes as in `fused_linear`."""

# No `from __future__ import annotations` here: Triton reads the annotations of arguments.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def attended(
    sums_ptr,
    stats_ptr,
    row,
    col,
    mask,
    rows,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    CACHING: tl.constexpr,
):
    """Outputs of attention at (row, col), float32, merged from those of each split of the slots (see `attention`).

    CACHING is ".cg" where programs of the same kernel have left them, which the L1 cache does not know of, else "".
    """
    head = col // HEAD_DIM
    top = tl.load(stats_ptr + (row * HEADS + head) * 2, mask=mask, other=0.0, cache_modifier=CACHING)
    for split in tl.static_range(1, SPLITS):
        entry = (split * rows + row) * HEADS + head
        top = tl.maximum(top, tl.load(stats_ptr + entry * 2, mask=mask, other=0.0, cache_modifier=CACHING))
    total = top * 0.0
    value = top * 0.0
    for split in tl.static_range(SPLITS):
        entry = (split * rows + row) * HEADS + head
        part = tl.exp2(tl.load(stats_ptr + entry * 2, mask=mask, other=0.0, cache_modifier=CACHING) - top)
        total += part * tl.load(stats_ptr + entry * 2 + 1, mask=mask, other=0.0, cache_modifier=CACHING)
        place = (split * rows + row) * (HEADS * HEAD_DIM) + col
        sums = tl.load(sums_ptr + place, mask=mask, other=0.0, cache_modifier=CACHING)
        value += part * sums
    return value / tl.where(total > 0.0, total, 1.0)


@triton.jit
def prefetch(pointers):
    """Have cache lines on their way to the L2 cache."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
        "=r,l",
        [pointers.to(tl.int64)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def residual(
    base_ptr,
    start_ptr,
    added_ptr,
    row,
    col,
    mask,
    rows,
    index,
    residual_scale,
    OUTPUTS: tl.constexpr,
    SCALED: tl.constexpr,
    ADDED: tl.constexpr,
):
    """What `residual_scale` times a branch is added to, float32: `base`, or where SCALED `start` and as much of what
    `base` has more than it; where ADDED with the conditioning of the row of steps at `index`.
    """
    place = row * OUTPUTS + col
    base = tl.load(base_ptr + place, mask=mask, other=0.0).to(tl.float32)
    if SCALED:
        start = tl.load(start_ptr + place, mask=mask, other=0.0).to(tl.float32)
        base = start + residual_scale * (base - start)
    if ADDED:
        base += tl.load(added_ptr + index * rows * OUTPUTS + place, mask=mask, other=0.0).to(tl.float32)
    return base


@triton.jit
def store_output(
    value,
    row,
    col,
    mask,
    out_ptr,
    cache_ptr,
    slot,
    slots,
    OUTPUTS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    EPILOGUE: tl.constexpr,
):
    """Store the output of a linear layer, float32: where EPILOGUE is "qkv" queries in `out` (N, A), keys and values in
    the slot of the cache (N, 2, H, slots, D); otherwise in `out` (N, OUTPUTS), for "gate" x * sigmoid(1.702 x) of it.
    """
    dtype = out_ptr.dtype.element_ty
    if EPILOGUE == "qkv":
        size: tl.constexpr = HEADS * HEAD_DIM
        tl.store(out_ptr + row * size + col, value.to(dtype), mask=mask & (col < size))
        inner = col - size
        song = tl.cast(row, tl.int64) * (2 * HEADS * slots * HEAD_DIM)
        place = (inner // HEAD_DIM) * (slots * HEAD_DIM) + inner % HEAD_DIM + slot * HEAD_DIM
        tl.store(cache_ptr + (song + place), value.to(dtype), mask=mask & (col >= size))
    else:
        if EPILOGUE == "gate":
            value = value.to(dtype).to(tl.float32)
            value = value * tl.sigmoid(1.702 * value)
        tl.store(out_ptr + row * OUTPUTS + col, value.to(dtype), mask=mask)


@triton.jit
def moments_of_blocks(moments_ptr, row, row_mask, rows, WIDTH: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr):
    """Mean and variance of rows, float32, from those of their blocks of BLOCK numbers.

    `moments` (2, N, blocks), float32, holds the means of blocks and the sums of squares of what differs from them.
    BLOCKS is a power of two, as many at least.
    """
    count: tl.constexpr = (WIDTH + BLOCK - 1) // BLOCK
    block = tl.arange(0, BLOCKS)
    numbers = tl.maximum(tl.minimum(WIDTH - block * BLOCK, BLOCK), 0).to(tl.float32)[None, :]
    mask = row_mask[:, None] & (block < count)[None, :]
    place = row[:, None] * count + block[None, :]
    means = tl.load(moments_ptr + place, mask=mask, other=0.0)
    squares = tl.load(moments_ptr + rows * count + place, mask=mask, other=0.0)
    mean = tl.sum(numbers * means, 1) / WIDTH
    apart = means - mean[:, None]
    return mean, tl.sum(squares + numbers * apart * apart, 1) / WIDTH


@triton.jit
def store_scaled(
    value,
    gain,
    row,
    row_mask,
    col,
    col_mask,
    block,
    rows,
    scaled_ptr,
    moments_ptr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Store a block of rows times the gain of the LayerNorm after them in `scaled` (N, WIDTH), and its moments."""
    count: tl.constexpr = (WIDTH + BLOCK - 1) // BLOCK
    mask = row_mask[:, None] & col_mask[None, :]
    place = row[:, None] * WIDTH + col[None, :]
    value = value.to(scaled_ptr.dtype.element_ty).to(tl.float32)
    tl.store(scaled_ptr + place, (value * gain[None, :]).to(scaled_ptr.dtype.element_ty), mask=mask)
    mean = tl.sum(tl.where(mask, value, 0.0), 1) / tl.minimum(WIDTH - block * BLOCK, BLOCK)
    apart = tl.where(mask, value - mean[:, None], 0.0)
    tl.store(moments_ptr + row * count + block, mean, mask=row_mask)
    tl.store(moments_ptr + (rows + row) * count + block, tl.sum(apart * apart, 1), mask=row_mask)
