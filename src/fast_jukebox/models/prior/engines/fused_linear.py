"""Triton kernels of a fused step: linear layers with what stands around them.

Every kernel reads and writes plain row-major tensors. N is the number of songs (rows), H heads of width D, A = H * D, W
the width of the residual stream. The position of a step is read on the device: `at` holds the position in the sequence
and the index into the row of steps, and `step` is added to both, so that a recorded graph serves any row.

With PDL (programmatic dependent launch, Hopper and later) a kernel begins while the one before it runs (`EARLY`) or
ends (`LATE`): it loads its weights, which nothing writes, and waits before it touches anything else.
"""

# No `from __future__ import annotations` here: Triton reads the annotations of arguments.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from fast_jukebox.models.prior.engines.fused_parts import (
    attended,
    moments_of_blocks,
    prefetch,
    residual,
    store_output,
    store_scaled,
)


@triton.jit(do_not_specialize=["step", "slots"])
def linear_of_few(
    hidden_ptr,
    stats_ptr,
    weight_ptr,
    bias_ptr,
    norm_ptr,
    norm_bias_ptr,
    base_ptr,
    start_ptr,
    added_ptr,
    out_ptr,
    cache_ptr,
    slot_ptr,
    at_ptr,
    step,
    slots,
    residual_scale,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    OUTPUTS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    NORM: tl.constexpr,
    BIAS: tl.constexpr,
    EPILOGUE: tl.constexpr,
    SCALED: tl.constexpr,
    ADDED: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    PDL: tl.constexpr,
):
    """A linear layer of a few rows: each program reads BLOCK_OUT rows of the weight once, for all ROWS of the input.

    The input is (ROWS, WIDTH) in `hidden`, normalised where NORM; where SPLITS > 0 it is merged from the parts that
    `attention` left in `hidden` and `stats`. BLOCK_IN >= WIDTH, so that all reads of a program are under way at once.
    """
    if PDL == 1:
        gdc_launch_dependents()
    col = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    col_mask = col < OUTPUTS
    k = tl.arange(0, BLOCK_IN)
    k_mask = k < WIDTH
    weight = tl.load(
        weight_ptr + col[:, None] * WIDTH + k[None, :],
        mask=col_mask[:, None] & k_mask[None, :],
        other=0.0,
        eviction_policy="evict_first",
    )
    if BIAS:
        bias = tl.load(bias_ptr + col, mask=col_mask, other=0.0).to(tl.float32)
    if NORM:
        gain = tl.load(norm_ptr + k, mask=k_mask, other=0.0).to(tl.float32)
        shift = tl.load(norm_bias_ptr + k, mask=k_mask, other=0.0).to(tl.float32)
    if EPILOGUE == "qkv":
        slot = tl.load(slot_ptr + (tl.load(at_ptr) + step))
    else:
        slot = 0
    if ADDED:
        index = tl.load(at_ptr + 1) + step
    else:
        index = 0
    if PDL:
        gdc_wait()
    for row in tl.static_range(ROWS):
        if SPLITS > 0:
            x = attended(hidden_ptr, stats_ptr, row, k, k_mask, ROWS, HEADS, HEAD_DIM, SPLITS, "")
        else:
            x = tl.load(hidden_ptr + row * WIDTH + k, mask=k_mask, other=0.0).to(tl.float32)
        if EPILOGUE == "residual":
            base = residual(
                base_ptr,
                start_ptr,
                added_ptr,
                row,
                col,
                col_mask,
                ROWS,
                index,
                residual_scale,
                OUTPUTS,
                SCALED,
                ADDED,
            )
        if NORM:
            centred = tl.where(k_mask, x - tl.sum(x, 0) / WIDTH, 0.0)
            variance = tl.sum(centred * centred, 0) / WIDTH
            x = centred * tl.rsqrt(variance + EPS) * gain + shift
        x = x.to(weight.dtype).to(tl.float32)
        value = tl.sum(weight.to(tl.float32) * x[None, :], 1)
        if BIAS:
            value += bias
        if EPILOGUE == "residual":
            value = base + residual_scale * value
        if PDL == 2 and row == ROWS - 1:
            gdc_launch_dependents()
        store_output(value, row, col, col_mask, out_ptr, cache_ptr, slot, slots, OUTPUTS, HEADS, HEAD_DIM, EPILOGUE)


@triton.jit(do_not_specialize=["step", "slots", "rows"])
def linear_of_many(
    hidden_ptr,
    weight_ptr,
    bias_ptr,
    base_ptr,
    start_ptr,
    added_ptr,
    out_ptr,
    cache_ptr,
    slot_ptr,
    at_ptr,
    step,
    slots,
    residual_scale,
    rows,
    sums_ptr,
    done_ptr,
    gain_ptr,
    totals_ptr,
    scaled_ptr,
    moments_ptr,
    WIDTH: tl.constexpr,
    OUTPUTS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BIAS: tl.constexpr,
    EPILOGUE: tl.constexpr,
    SCALED: tl.constexpr,
    ADDED: tl.constexpr,
    FOLDED: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_LINES: tl.constexpr,
    LANES: tl.constexpr,
    PARTS: tl.constexpr,
    SPAN: tl.constexpr,
    BLOCKS: tl.constexpr,
    PDL: tl.constexpr,
):
    """`linear_of_few` for any number of rows, in blocks of them, by the tensor cores; it does not normalise them.

    LayerNorm and a linear layer give W (g (x - mean) / deviation + b) + c = (W (g x) - mean t) / deviation + d with
    t = W g and d = W b + c. Where FOLDED, the layer after a LayerNorm reads g x in `hidden`, t in `totals` and d in
    `bias`, and its outputs are normalised by `moments`; the layer before one leaves g x in `scaled` and the moments of
    its block of x (see `store_scaled`).

    In a program LANES groups of warps share out the inputs. PARTS programs share out those of a block, SPAN each, a
    multiple of BLOCK_IN. Each leaves its sums in `sums`, float32 (PARTS, N, OUTPUTS); the one that is done last, as the
    counts `done` (blocks,) say, adds them up in their order.
    """
    if PDL == 1:
        gdc_launch_dependents()
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    row_mask = row < rows
    col = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    col_mask = col < OUTPUTS
    mask = row_mask[:, None] & col_mask[None, :]
    part = tl.program_id(2)
    first = part * SPAN
    if BIAS:
        bias = tl.load(bias_ptr + col, mask=col_mask, other=0.0).to(tl.float32)
    if FOLDED:
        if EPILOGUE == "residual":
            gain = tl.load(gain_ptr + col, mask=col_mask, other=0.0).to(tl.float32)
        else:
            totals = tl.load(totals_ptr + col, mask=col_mask, other=0.0)
    if EPILOGUE == "qkv":
        slot = tl.load(slot_ptr + (tl.load(at_ptr) + step))
    else:
        slot = 0
    if ADDED:
        index = tl.load(at_ptr + 1) + step
    else:
        index = 0
    if PDL:
        # One pointer for each 128 bytes of the weight's rows, those beyond the end at the end.
        line: tl.constexpr = 1024 // weight_ptr.dtype.element_ty.primitive_bitwidth
        lines = tl.minimum(first + tl.arange(0, BLOCK_LINES) * line, WIDTH - 1)
        prefetch(weight_ptr + tl.minimum(col, OUTPUTS - 1)[:, None] * WIDTH + lines[None, :])
        gdc_wait()
    if EPILOGUE == "residual":
        base = residual(
            base_ptr,
            start_ptr,
            added_ptr,
            row[:, None],
            col[None, :],
            mask,
            rows,
            index,
            residual_scale,
            OUTPUTS,
            SCALED,
            ADDED,
        )
    if FOLDED and EPILOGUE != "residual":
        mean, variance = moments_of_blocks(moments_ptr, row, row_mask, rows, WIDTH, BLOCK_OUT, BLOCKS)
    if LANES == 1:
        sums = tl.zeros([BLOCK_ROWS, BLOCK_OUT], tl.float32)
        for start in range(0, SPAN, BLOCK_IN):
            k = first + start + tl.arange(0, BLOCK_IN)
            k_mask = k < WIDTH
            place = col[None, :] * WIDTH + k[:, None]
            weight = tl.load(weight_ptr + place, mask=col_mask[None, :] & k_mask[:, None], other=0.0)
            x_mask = row_mask[:, None] & k_mask[None, :]
            x = tl.load(hidden_ptr + row[:, None] * WIDTH + k[None, :], mask=x_mask, other=0.0)
            sums = tl.dot(x, weight, sums, input_precision="ieee")
    else:
        lane_sums = tl.zeros([LANES, BLOCK_ROWS, BLOCK_OUT], tl.float32)
        lane = tl.arange(0, LANES)[:, None, None] * (BLOCK_IN // LANES)
        inner = tl.arange(0, BLOCK_IN // LANES)
        for start in range(0, SPAN, BLOCK_IN):
            k = first + start + lane + inner[None, :, None]  # (LANES, inner, 1), of the weight
            place = col[None, None, :] * WIDTH + k
            weight = tl.load(weight_ptr + place, mask=col_mask[None, None, :] & (k < WIDTH), other=0.0)
            k = first + start + lane + inner[None, None, :]  # (LANES, 1, inner), of the rows
            x_mask = row_mask[None, :, None] & (k < WIDTH)
            x = tl.load(hidden_ptr + row[None, :, None] * WIDTH + k, mask=x_mask, other=0.0)
            lane_sums = tl.dot(x, weight, lane_sums, input_precision="ieee")
        sums = tl.sum(lane_sums, 0)
    if PDL == 2:
        gdc_launch_dependents()
    if PARTS > 1:
        place = row[:, None] * OUTPUTS + col[None, :]
        tl.store(sums_ptr + part * rows * OUTPUTS + place, sums, mask=mask)
        tl.debug_barrier()  # all of a program's sums are there before it is counted
        block = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        if tl.atomic_add(done_ptr + block, 1, sem="acq_rel") != PARTS - 1:
            return
        tl.store(done_ptr + block, 0)
        sums = tl.zeros([BLOCK_ROWS, BLOCK_OUT], tl.float32)
        for other in tl.static_range(PARTS):
            left = sums_ptr + other * rows * OUTPUTS + place
            sums += tl.load(left, mask=mask, other=0.0, cache_modifier=".cg")
    if FOLDED and EPILOGUE != "residual":
        sums = (sums - mean[:, None] * totals[None, :]) * tl.rsqrt(variance + EPS)[:, None]
    if BIAS:
        sums += bias[None, :]
    if EPILOGUE == "residual":
        sums = base + residual_scale * sums
        if FOLDED:
            store_scaled(
                sums,
                gain,
                row,
                row_mask,
                col,
                col_mask,
                tl.program_id(1),
                rows,
                scaled_ptr,
                moments_ptr,
                OUTPUTS,
                BLOCK_OUT,
            )
    store_output(
        sums,
        row[:, None],
        col[None, :],
        mask,
        out_ptr,
        cache_ptr,
        slot,
        slots,
        OUTPUTS,
        HEADS,
        HEAD_DIM,
        EPILOGUE,
    )
