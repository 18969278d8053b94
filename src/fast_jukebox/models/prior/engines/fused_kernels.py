"""Triton kernels of a fused step: LayerNorm, attention of one query, the draw; shapes as in `fused_linear`."""

# No `from __future__ import annotations` here: Triton reads the annotations of arguments.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from fast_jukebox.models.prior.engines.fused_parts import attended, prefetch


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
    if PDL == 1:
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
    if PDL == 2:
        gdc_launch_dependents()
    tl.store(out_ptr + row * WIDTH + k, x.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["step", "slots", "rows"])
def attention(
    query_ptr,
    cache_ptr,
    first_ptr,
    count_ptr,
    at_ptr,
    out_ptr,
    sums_ptr,
    stats_ptr,
    done_ptr,
    step,
    slots,
    rows,
    scale,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    MERGED: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_SLOTS: tl.constexpr,
    PDL: tl.constexpr,
):
    """Attention of one query over the slots that its position reads, in place.

    One program a song, head and split of the slots. With SPLITS == 0 the output (N, A) itself is stored. Otherwise each
    split leaves its weighted sum of values in `sums`, float32 (SPLITS, N, A), and in `stats` (SPLITS, N, H, 2) the
    largest score and the sum of exponentials; no slots, or none for the split: zeros. Where MERGED the split that is
    done last, as the counts `done` (N, H) say, makes the output of them in their order.

    Args: `scale` is log2(e) / sqrt(D).
    """
    if PDL == 1:
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
        prefetch(keys + here[:, None] + lines[None, :])
        prefetch(values + here[:, None] + lines[None, :])
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
    if PDL == 2:
        gdc_launch_dependents()
    if SPLITS == 0:
        result = sums / tl.where(total > 0.0, total, 1.0)
        tl.store(out_ptr + entry * HEAD_DIM + dim, result.to(out_ptr.dtype.element_ty), mask=dim_mask)
    else:
        part = split * rows * HEADS + entry
        tl.store(sums_ptr + part * HEAD_DIM + dim, sums, mask=dim_mask)
        tl.store(stats_ptr + part * 2, top)
        tl.store(stats_ptr + part * 2 + 1, total)
        if MERGED:
            tl.debug_barrier()  # all that a program leaves is there before it is counted
            if tl.atomic_add(done_ptr + entry, 1, sem="acq_rel") != SPLITS - 1:
                return
            tl.store(done_ptr + entry, 0)
            result = attended(
                sums_ptr, stats_ptr, song, head * HEAD_DIM + dim, dim_mask, rows, HEADS, HEAD_DIM, SPLITS, ".cg"
            )
            tl.store(out_ptr + entry * HEAD_DIM + dim, result.to(out_ptr.dtype.element_ty), mask=dim_mask)


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
    gain_ptr,
    scaled_ptr,
    moments_ptr,
    WIDTH: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    ADDED: tl.constexpr,
    FOLDED: tl.constexpr,
    COUNT: tl.constexpr,
):
    """Store what enters the first layer at `position`, where the code before it is `code`.

    Where FOLDED also for the LayerNorm there (see `store_scaled`): each of COUNT blocks gets the mean of the row, the
    first one all squares.
    """
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
    if FOLDED:
        gain = tl.load(gain_ptr + k, mask=mask, other=0.0).to(tl.float32)
        hidden = hidden.to(tl.float32)
        tl.store(scaled_ptr + song * WIDTH + k, (hidden * gain).to(dtype), mask=mask)
        mean = tl.sum(hidden, 0) / WIDTH
        apart = tl.where(mask, hidden - mean, 0.0)
        block = tl.arange(0, BLOCK_IN)
        place = moments_ptr + song * COUNT + block
        tl.store(place, mean, mask=block < COUNT)
        tl.store(place + rows * COUNT, tl.where(block == 0, tl.sum(apart * apart, 0), 0.0), mask=block < COUNT)


@triton.jit(do_not_specialize=["step", "rows"])
def embed(
    code_ptr,
    embedding_ptr,
    positions_ptr,
    added_ptr,
    out_ptr,
    gain_ptr,
    scaled_ptr,
    moments_ptr,
    at_ptr,
    step,
    rows,
    WIDTH: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    ADDED: tl.constexpr,
    FOLDED: tl.constexpr,
    COUNT: tl.constexpr,
):
    """What enters the first layer, (N, W), for the codes (N,) before the position."""
    song = tl.program_id(0)
    position = tl.load(at_ptr) + step
    index = tl.load(at_ptr + 1) + step
    code = tl.load(code_ptr + song)
    _store_embedding(
        code,
        song,
        position,
        index,
        rows,
        embedding_ptr,
        positions_ptr,
        added_ptr,
        out_ptr,
        gain_ptr,
        scaled_ptr,
        moments_ptr,
        WIDTH,
        BLOCK_IN,
        ADDED,
        FOLDED,
        COUNT,
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
    gain_ptr,
    scaled_ptr,
    moments_ptr,
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
    FOLDED: tl.constexpr,
    COUNT: tl.constexpr,
    PDL: tl.constexpr,
):
    """Draw a song's code from its logits as [`~fast_jukebox.sampling.drawing.draw_codes`] does, and where `more` is
    1 store what enters the first layer at the next position. One program a song.
    """
    if PDL == 1:
        gdc_launch_dependents()
    song = tl.program_id(0)
    position = tl.load(at_ptr) + step
    index = tl.load(at_ptr + 1) + step
    uniform = tl.load(uniform_ptr + index * rows + song)
    code_ids = tl.arange(0, BLOCK_CODES)
    exists = code_ids < CODES
    if PDL:
        gdc_wait()
    if PDL == 2:
        gdc_launch_dependents()
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
            gain_ptr,
            scaled_ptr,
            moments_ptr,
            WIDTH,
            BLOCK_IN,
            ADDED,
            FOLDED,
            COUNT,
        )
