"""Triton kernels of a fused step: linear layers with what stands around them, attention of one query, the draw.

Every kernel reads and writes plain row-major tensors. N is the number of songs (rows), H heads of width D, A = H * D, W
the width of the residual stream. The position of a step is read on the device: `at` holds the position in the sequence
and the index into the row of steps, and `step` is added to both, so that a recorded graph serves any row.

With PDL (programmatic dependent launch, Hopper and later) a kernel begins while the one before it ends: it loads its
weights, which nothing writes, and waits before it touches anything else.
"""

# No `from __future__ import annotations` here: Triton reads the annotations of arguments.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def _attended(
    sums_ptr,
    stats_ptr,
    row,
    col,
    mask,
    rows,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """Outputs of attention at (row, col), float32, merged from those of each split of the slots (see `attention`)."""
    head = col // HEAD_DIM
    top = tl.load(stats_ptr + (row * HEADS + head) * 2, mask=mask, other=0.0)
    for split in tl.static_range(1, SPLITS):
        entry = (split * rows + row) * HEADS + head
        top = tl.maximum(top, tl.load(stats_ptr + entry * 2, mask=mask, other=0.0))
    total = top * 0.0
    value = top * 0.0
    for split in tl.static_range(SPLITS):
        entry = (split * rows + row) * HEADS + head
        part = tl.exp2(tl.load(stats_ptr + entry * 2, mask=mask, other=0.0) - top)
        total += part * tl.load(stats_ptr + entry * 2 + 1, mask=mask, other=0.0)
        sums = tl.load(sums_ptr + (split * rows + row) * (HEADS * HEAD_DIM) + col, mask=mask, other=0.0)
        value += part * sums
    return value / tl.where(total > 0.0, total, 1.0)


@triton.jit
def _prefetch(pointers):
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
def _residual(
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
def _store_output(
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
    if PDL:
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
            x = _attended(hidden_ptr, stats_ptr, row, k, k_mask, ROWS, HEADS, HEAD_DIM, SPLITS)
        else:
            x = tl.load(hidden_ptr + row * WIDTH + k, mask=k_mask, other=0.0).to(tl.float32)
        if EPILOGUE == "residual":
            base = _residual(
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
        _store_output(value, row, col, col_mask, out_ptr, cache_ptr, slot, slots, OUTPUTS, HEADS, HEAD_DIM, EPILOGUE)


@triton.jit(do_not_specialize=["step", "slots", "rows"])
def linear_of_many(
    hidden_ptr,
    stats_ptr,
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
    WIDTH: tl.constexpr,
    OUTPUTS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    BIAS: tl.constexpr,
    EPILOGUE: tl.constexpr,
    SCALED: tl.constexpr,
    ADDED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_LINES: tl.constexpr,
    PDL: tl.constexpr,
):
    """`linear_of_few` for any number of rows, in blocks of them, by the tensor cores; it does not normalise."""
    if PDL:
        gdc_launch_dependents()
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    row_mask = row < rows
    col = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    col_mask = col < OUTPUTS
    mask = row_mask[:, None] & col_mask[None, :]
    offset = tl.arange(0, BLOCK_IN)
    if BIAS:
        bias = tl.load(bias_ptr + col, mask=col_mask, other=0.0).to(tl.float32)
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
        lines = tl.minimum(tl.arange(0, BLOCK_LINES) * line, WIDTH - 1)
        _prefetch(weight_ptr + tl.minimum(col, OUTPUTS - 1)[:, None] * WIDTH + lines[None, :])
        gdc_wait()
    if EPILOGUE == "residual":
        base = _residual(
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
    sums = tl.zeros([BLOCK_ROWS, BLOCK_OUT], tl.float32)
    for start in range(0, WIDTH, BLOCK_IN):
        k = start + offset
        k_mask = k < WIDTH
        weight = tl.load(
            weight_ptr + col[None, :] * WIDTH + k[:, None], mask=col_mask[None, :] & k_mask[:, None], other=0.0
        )
        x_mask = row_mask[:, None] & k_mask[None, :]
        if SPLITS > 0:
            x = _attended(hidden_ptr, stats_ptr, row[:, None], k[None, :], x_mask, rows, HEADS, HEAD_DIM, SPLITS)
            x = x.to(weight.dtype)
        else:
            x = tl.load(hidden_ptr + row[:, None] * WIDTH + k[None, :], mask=x_mask, other=0.0)
        sums = tl.dot(x, weight, sums, input_precision="ieee")
    if BIAS:
        sums += bias[None, :]
    if EPILOGUE == "residual":
        sums = base + residual_scale * sums
    _store_output(
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


@triton.jit
def normalise(
    hidden_ptr,
    norm_ptr,
    norm_bias_ptr,
    out_ptr,
    WIDTH: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    PDL: tl.constexpr,
):
    """LayerNorm of a row (W,), computed in float32, for `linear_of_many`."""
    if PDL:
        gdc_launch_dependents()
    row = tl.program_id(0)
    k = tl.arange(0, BLOCK_IN)
    mask = k < WIDTH
    gain = tl.load(norm_ptr + k, mask=mask, other=0.0).to(tl.float32)
    shift = tl.load(norm_bias_ptr + k, mask=mask, other=0.0).to(tl.float32)
    if PDL:
        gdc_wait()
    x = tl.load(hidden_ptr + row * WIDTH + k, mask=mask, other=0.0).to(tl.float32)
    centred = tl.where(mask, x - tl.sum(x, 0) / WIDTH, 0.0)
    variance = tl.sum(centred * centred, 0) / WIDTH
    x = centred * tl.rsqrt(variance + EPS) * gain + shift
    tl.store(out_ptr + row * WIDTH + k, x.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["step", "slots", "rows"])
def attention(
    query_ptr,
    cache_ptr,
    first_ptr,
    count_ptr,
    at_ptr,
    out_ptr,
    stats_ptr,
    step,
    slots,
    rows,
    scale,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
    PDL: tl.constexpr,
):
    """Attention of one query over the slots that its position reads, in place.

    One program a song, head and split of the slots. With SPLITS == 0 the output (N, A) itself is stored. Otherwise each
    split leaves its weighted sum of values, float32 (SPLITS, N, A), and in `stats` (SPLITS, N, H, 2) the largest score
    and the sum of exponentials. No slots, or none for the split: zeros.

    Args: `scale` is log2(e) / sqrt(D).
    """
    if PDL:
        gdc_launch_dependents()
    song = tl.program_id(0)
    head = tl.program_id(1)
    split = tl.program_id(2)
    position = tl.load(at_ptr) + step
    first = tl.load(first_ptr + position)
    count = tl.load(count_ptr + position)
    dim = tl.arange(0, BLOCK_DIM)
    dim_mask = dim < HEAD_DIM
    entry = song * HEADS + head
    keys = cache_ptr + (tl.cast(song, tl.int64) * (2 * HEADS) + head) * (slots * HEAD_DIM)
    values = keys + HEADS * slots * HEAD_DIM
    if SPLITS > 1:
        per = (count + SPLITS - 1) // SPLITS
        begin = split * per
        end = tl.minimum(begin + per, count)
    else:
        begin = 0
        end = count
    if PDL:
        # One pointer for each 128 bytes of the first keys and values that will be read.
        line: tl.constexpr = 1024 // cache_ptr.dtype.element_ty.primitive_bitwidth
        here = (first + tl.minimum(begin + tl.arange(0, BLOCK_SLOTS), tl.maximum(end - 1, 0))) * HEAD_DIM
        lines = tl.minimum(tl.arange(0, BLOCK_DIM // line) * line, HEAD_DIM - 1)
        _prefetch(keys + here[:, None] + lines[None, :])
        _prefetch(values + here[:, None] + lines[None, :])
        gdc_wait()
    query = tl.load(query_ptr + entry * HEAD_DIM + dim, mask=dim_mask, other=0.0).to(tl.float32) * scale
    sums = tl.zeros([BLOCK_DIM], tl.float32)
    top = -1.0e30
    total = 0.0
    for start in tl.range(begin, end, BLOCK_SLOTS, num_stages=2):
        index = start + tl.arange(0, BLOCK_SLOTS)
        present = index < end
        place = (first + index)[:, None] * HEAD_DIM + dim[None, :]
        mask = present[:, None] & dim_mask[None, :]
        key = tl.load(keys + place, mask=mask, other=0.0).to(tl.float32)
        value = tl.load(values + place, mask=mask, other=0.0).to(tl.float32)
        score = tl.where(present, tl.sum(key * query[None, :], 1), -1.0e30)
        new_top = tl.maximum(top, tl.max(score, 0))
        weight = tl.where(present, tl.exp2(score - new_top), 0.0)
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(weight, 0)
        sums = sums * shrink + tl.sum(weight[:, None] * value, 0)
        top = new_top
    if SPLITS == 0:
        result = sums / tl.where(total > 0.0, total, 1.0)
        tl.store(out_ptr + entry * HEAD_DIM + dim, result.to(out_ptr.dtype.element_ty), mask=dim_mask)
    else:
        part = split * rows * HEADS + entry
        tl.store(out_ptr + part * HEAD_DIM + dim, sums, mask=dim_mask)
        tl.store(stats_ptr + part * 2, top)
        tl.store(stats_ptr + part * 2 + 1, total)


@triton.jit
def _store_embedding(
    code,
    song,
    position,
    index,
    rows,
    embedding_ptr,
    positions_ptr,
    added_ptr,
    out_ptr,
    WIDTH: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    ADDED: tl.constexpr,
):
    """Store what enters the first layer at `position`, where the code before it is `code`."""
    dtype = out_ptr.dtype.element_ty
    k = tl.arange(0, BLOCK_IN)
    mask = k < WIDTH
    hidden = tl.load(embedding_ptr + code * WIDTH + k, mask=mask, other=0.0).to(tl.float32)
    hidden += tl.load(positions_ptr + position * WIDTH + k, mask=mask, other=0.0).to(tl.float32)
    hidden = hidden.to(dtype)
    if ADDED:
        added = tl.load(added_ptr + (index * rows + song) * WIDTH + k, mask=mask, other=0.0)
        hidden = (hidden.to(tl.float32) + added.to(tl.float32)).to(dtype)
    tl.store(out_ptr + song * WIDTH + k, hidden, mask=mask)


@triton.jit(do_not_specialize=["step", "rows"])
def embed(
    code_ptr,
    embedding_ptr,
    positions_ptr,
    added_ptr,
    out_ptr,
    at_ptr,
    step,
    rows,
    WIDTH: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    ADDED: tl.constexpr,
):
    """What enters the first layer, (N, W), for the codes (N,) before the position."""
    song = tl.program_id(0)
    position = tl.load(at_ptr) + step
    index = tl.load(at_ptr + 1) + step
    code = tl.load(code_ptr + song)
    _store_embedding(
        code, song, position, index, rows, embedding_ptr, positions_ptr, added_ptr, out_ptr, WIDTH, BLOCK_IN, ADDED
    )


@triton.jit(do_not_specialize=["step", "more", "rows", "top_k"])
def draw(
    logits_ptr,
    uniform_ptr,
    code_ptr,
    codes_ptr,
    embedding_ptr,
    positions_ptr,
    added_ptr,
    out_ptr,
    at_ptr,
    step,
    more,
    rows,
    temperature,
    top_k,
    top_p,
    CODES: tl.constexpr,
    BLOCK_CODES: tl.constexpr,
    SAMPLE: tl.constexpr,
    TOP_K: tl.constexpr,
    TOP_P: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    ADDED: tl.constexpr,
    PDL: tl.constexpr,
):
    """Draw a song's code from its logits as [`~fast_jukebox.sampling.filtering.draw_codes`] does, and where `more` is
    1 store what enters the first layer at the next position. One program a song.
    """
    if PDL:
        gdc_launch_dependents()
    song = tl.program_id(0)
    position = tl.load(at_ptr) + step
    index = tl.load(at_ptr + 1) + step
    uniform = tl.load(uniform_ptr + index * rows + song)
    code_ids = tl.arange(0, BLOCK_CODES)
    exists = code_ids < CODES
    if PDL:
        gdc_wait()
    logits = tl.load(logits_ptr + song * CODES + code_ids, mask=exists, other=float("-inf")).to(tl.float32)
    if SAMPLE:
        logits = logits / temperature
        if TOP_K:
            # The order of floats is that of these integers; the k-th largest is found by halving their range.
            bits = tl.where(logits == 0.0, 0.0, logits).to(tl.int32, bitcast=True)  # of both zeros the positive one
            keys = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
            low = tl.min(keys, 0)
            high = tl.max(keys, 0)
            for _ in range(33):
                middle = low + ((high - low + 1) >> 1)
                enough = tl.sum((keys >= middle).to(tl.int32), 0) >= top_k
                low = tl.where(enough, middle, low)
                high = tl.where(enough, high, tl.maximum(middle - 1, low))
            logits = tl.where(keys >= low, logits, float("-inf"))
        weights = tl.where(exists, tl.exp(logits - tl.max(logits, 0)), 0.0)
        if TOP_P:
            # The least probability whose likelier ones sum to less than top_p, found likewise.
            weights = weights / tl.sum(weights, 0)
            keys = weights.to(tl.int32, bitcast=True)
            low = tl.min(keys, 0)
            high = tl.max(keys, 0)
            for _ in range(32):
                middle = low + ((high - low) >> 1)
                enough = tl.sum(tl.where(keys > middle, weights, 0.0), 0) < top_p
                high = tl.where(enough, middle, high)
                low = tl.where(enough, low, tl.minimum(middle + 1, high))
            above = tl.sum(tl.where(keys > high, weights, 0.0), 0)
            tied = tl.where(keys == high, weights, 0.0)
            before = above + (tl.cumsum(tied, 0) - tied)
            weights = tl.where((keys > high) | ((keys == high) & (before < top_p)), weights, 0.0)
        cumulative = tl.where(weights > 0.0, tl.cumsum(weights, 0), 0.0)
        threshold = uniform * tl.max(cumulative, 0)
        code = tl.min(tl.where(cumulative > threshold, code_ids, CODES - 1), 0)
    else:
        code = tl.argmax(logits, 0)
    tl.store(code_ptr + song, code.to(tl.int64))
    tl.store(codes_ptr + index * rows + song, code.to(tl.int64))
    if more == 1:
        _store_embedding(
            code,
            song,
            position + 1,
            index + 1,
            rows,
            embedding_ptr,
            positions_ptr,
            added_ptr,
            out_ptr,
            WIDTH,
            BLOCK_IN,
            ADDED,
        )
