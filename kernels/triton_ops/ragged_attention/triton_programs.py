"""The three Triton programs of ragged attention; `triton_kernel` launches them.

Names begin with `i_` for an index, `o_` for offsets, `p_` for pointers and `b_` for a loaded tile.
All matrices are contiguous. A query row `r` of a pair is query head `r // new` of its group and
new token `r % new`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

# sizes that change from token to token must not make Triton compile again
_CHANGING = ("num_items", "tail_splits", "tail_tokens", "tail_capacity", "seen", "new", "window")


@triton.jit
def _slice(item_pair, item_start, item_end, num_items, tail_splits, tail_tokens, capacity, SPLIT):
    """Which pair and which rows program i_w works on; items beyond the list lie in the tail."""
    i_w = tl.program_id(0)
    if i_w < num_items:
        i_p = tl.load(item_pair + i_w)
        start = tl.load(item_start + i_w)
        end = tl.load(item_end + i_w)
    else:
        i_p = (i_w - num_items) // tail_splits
        first = (i_w - num_items) % tail_splits * SPLIT
        start = i_p * capacity + first
        end = i_p * capacity + tl.minimum(first + SPLIT, tail_tokens)
    return i_p, start, end


@triton.jit
def _load_rows(p, o_n, n_ok, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Rows `o_n` of a contiguous matrix, padded with zeros to [len(o_n), BLOCK]."""
    o_d = tl.arange(0, BLOCK)
    p_x = p + o_n.to(tl.int64)[:, None] * WIDTH + o_d[None, :]
    return tl.load(p_x, mask=n_ok[:, None] & (o_d < WIDTH)[None, :], other=0.0)


@triton.jit
def _row_limits(first_seen, o_r, r_ok, at, i_b, new, window, HAS_FIRST_SEEN: tl.constexpr):
    """First position that each query row of sequence i_b may see."""
    lowest = at - window + 1
    if HAS_FIRST_SEEN:
        p_first = first_seen + i_b * new + o_r % new
        lowest = tl.maximum(lowest, tl.load(p_first, mask=r_ok, other=0))
    return lowest


@triton.jit
def _row_slopes(slopes, o_r, r_ok, i_h, new, GROUP: tl.constexpr, HAS_SLOPES: tl.constexpr):
    """Linear bias of each query row of KV head i_h; zeros if there is none."""
    b_slope = tl.zeros(o_r.shape, tl.float32)
    if HAS_SLOPES:
        b_slope = tl.load(slopes + i_h * GROUP + o_r // new, mask=r_ok, other=0.0)
    return b_slope


@triton.jit
def _logits(
    b_q,
    b_k,
    at,
    lowest,
    b_slope,
    b_pos,
    n_ok,
    scaling,
    softcap,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
):
    """Logits [rows, tokens] of a tile, and which of them count."""
    b_s = tl.dot(b_q, tl.trans(b_k), input_precision="ieee") * scaling
    if HAS_SOFTCAP:
        b_s = softcap * (2 * tl.sigmoid(2 * b_s / softcap) - 1)
    if HAS_SLOPES:
        b_s += b_slope[:, None] * (b_pos[None, :] - at[:, None]).to(tl.float32)
    seen = (b_pos[None, :] <= at[:, None]) & (b_pos[None, :] >= lowest[:, None])
    seen = seen & n_ok[None, :]
    return tl.where(seen, b_s, -1e30), seen


@triton.jit(do_not_specialize=_CHANGING)
def attend_kernel(
    q,
    k,
    v,
    positions,
    tail_k,
    tail_v,
    item_pair,
    item_start,
    item_end,
    slopes,
    first_seen,
    outputs,
    highest,
    totals,
    num_items,
    tail_splits,
    tail_tokens,
    tail_capacity,
    seen,
    new,
    window,
    scaling,
    softcap,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    SPLIT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
    HAS_FIRST_SEEN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
):
    """Attend with one block of query rows to one slice; grid (items, row blocks)."""
    i_w = tl.program_id(0)
    i_p, start, end = _slice(
        item_pair, item_start, item_end, num_items, tail_splits, tail_tokens, tail_capacity, SPLIT
    )
    in_tail = i_w >= num_items
    if in_tail:
        p_k = tail_k
        p_v = tail_v
    else:
        p_k = k
        p_v = v
    # only rows of the prefix have a stored position; those of the tail follow from the slot
    listed_end = tl.where(in_tail, 0, end)
    tail_zero = seen - tail_tokens - i_p * tail_capacity
    o_r = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    r_ok = o_r < GROUP * new
    at = seen - new + o_r % new
    lowest = _row_limits(first_seen, o_r, r_ok, at, i_p // KV_HEADS, new, window, HAS_FIRST_SEEN)
    b_slope = _row_slopes(slopes, o_r, r_ok, i_p % KV_HEADS, new, GROUP, HAS_SLOPES)
    b_q = _load_rows(q, i_p * GROUP * new + o_r, r_ok, HEAD_DIM, BLOCK_HEAD)
    b_m = tl.full([BLOCK_ROWS], -1e30, tl.float32)
    b_l = tl.zeros([BLOCK_ROWS], tl.float32)
    b_o = tl.zeros([BLOCK_ROWS, BLOCK_VALUE], tl.float32)
    for first in range(start, end, BLOCK_TOKENS):
        o_n = first + tl.arange(0, BLOCK_TOKENS)
        n_ok = o_n < end
        b_k = _load_rows(p_k, o_n, n_ok, HEAD_DIM, BLOCK_HEAD)
        b_v = _load_rows(p_v, o_n, n_ok, VALUE_DIM, BLOCK_VALUE)
        b_pos = tl.load(positions + o_n, mask=o_n < listed_end, other=0)
        b_pos = tl.where(in_tail, tail_zero + o_n, b_pos)
        b_s, counts = _logits(
            b_q, b_k, at, lowest, b_slope, b_pos, n_ok, scaling, softcap, HAS_SOFTCAP, HAS_SLOPES
        )
        higher = tl.maximum(b_m, tl.max(b_s, 1))
        b_p = tl.where(counts, tl.exp(b_s - higher[:, None]), 0.0)
        shrink = tl.exp(b_m - higher)
        b_l = b_l * shrink + tl.sum(b_p, 1)
        b_o = b_o * shrink[:, None] + tl.dot(b_p.to(b_v.dtype), b_v, input_precision="ieee")
        b_m = higher
    o_x = i_w.to(tl.int64) * GROUP * new + o_r
    o_d = tl.arange(0, BLOCK_VALUE)
    tl.store(highest + o_x, b_m, mask=r_ok)
    tl.store(totals + o_x, b_l, mask=r_ok)
    p_o = outputs + o_x[:, None] * VALUE_DIM + o_d[None, :]
    tl.store(p_o, b_o, mask=r_ok[:, None] & (o_d < VALUE_DIM)[None, :])


@triton.jit(do_not_specialize=_CHANGING)
def join_kernel(
    outputs,
    highest,
    totals,
    first_item,
    sinks,
    out,
    normaliser,
    num_items,
    tail_splits,
    new,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
):
    """Join all slices of one pair and its sink; grid (pairs, row blocks)."""
    i_p = tl.program_id(0)
    o_r = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    o_d = tl.arange(0, BLOCK_VALUE)
    r_ok = o_r < GROUP * new
    x_ok = r_ok[:, None] & (o_d < VALUE_DIM)[None, :]
    b_m = tl.full([BLOCK_ROWS], -1e30, tl.float32)
    b_l = tl.zeros([BLOCK_ROWS], tl.float32)
    if HAS_SINKS:
        p_sink = sinks + i_p % KV_HEADS * GROUP + o_r // new
        b_m = tl.load(p_sink, mask=r_ok, other=0.0).to(tl.float32)
        b_l = tl.full([BLOCK_ROWS], 1.0, tl.float32)
    b_o = tl.zeros([BLOCK_ROWS, BLOCK_VALUE], tl.float32)
    listed = tl.load(first_item + i_p)
    count = tl.load(first_item + i_p + 1) - listed
    for j in range(0, count + tail_splits):
        i_w = tl.where(j < count, listed + j, num_items + i_p * tail_splits + j - count)
        o_x = i_w.to(tl.int64) * GROUP * new + o_r
        b_mw = tl.load(highest + o_x, mask=r_ok, other=-1e30)
        b_lw = tl.load(totals + o_x, mask=r_ok, other=0.0)
        b_ow = tl.load(outputs + o_x[:, None] * VALUE_DIM + o_d[None, :], mask=x_ok, other=0.0)
        higher = tl.maximum(b_m, b_mw)
        shrink = tl.exp(b_m - higher)
        weight = tl.exp(b_mw - higher)
        b_l = b_l * shrink + b_lw * weight
        b_o = b_o * shrink[:, None] + b_ow * weight[:, None]
        b_m = higher
    # a row that saw nothing has a total of zero: its output is zero, not 0 / 0
    b_l = tl.where(b_l > 0, b_l, 1.0)
    o_x = i_p.to(tl.int64) * GROUP * new + o_r
    p_out = out + o_x[:, None] * VALUE_DIM + o_d[None, :]
    tl.store(p_out, (b_o / b_l[:, None]).to(out.dtype.element_ty), mask=x_ok)
    tl.store(normaliser + o_x, b_m + tl.log(b_l), mask=r_ok)


@triton.jit(do_not_specialize=_CHANGING)
def mass_kernel(
    q,
    k,
    positions,
    tail_k,
    item_pair,
    item_start,
    item_end,
    slopes,
    first_seen,
    normaliser,
    mass,
    tail_mass,
    num_items,
    tail_splits,
    tail_tokens,
    tail_capacity,
    seen,
    new,
    window,
    scaling,
    softcap,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    SPLIT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
    HAS_FIRST_SEEN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
):
    """Add to the mass of one slice's rows; no two programs share a row; grid (items,)."""
    i_w = tl.program_id(0)
    i_p, start, end = _slice(
        item_pair, item_start, item_end, num_items, tail_splits, tail_tokens, tail_capacity, SPLIT
    )
    in_tail = i_w >= num_items
    if in_tail:
        p_k = tail_k
        p_mass = tail_mass
    else:
        p_k = k
        p_mass = mass
    listed_end = tl.where(in_tail, 0, end)
    tail_zero = seen - tail_tokens - i_p * tail_capacity
    for first in range(start, end, BLOCK_TOKENS):
        o_n = first + tl.arange(0, BLOCK_TOKENS)
        n_ok = o_n < end
        b_k = _load_rows(p_k, o_n, n_ok, HEAD_DIM, BLOCK_HEAD)
        b_pos = tl.load(positions + o_n, mask=o_n < listed_end, other=0)
        b_pos = tl.where(in_tail, tail_zero + o_n, b_pos)
        got = tl.zeros([BLOCK_TOKENS], tl.float32)
        for first_row in range(0, GROUP * new, BLOCK_ROWS):
            o_r = first_row + tl.arange(0, BLOCK_ROWS)
            r_ok = o_r < GROUP * new
            at = seen - new + o_r % new
            lowest = _row_limits(
                first_seen, o_r, r_ok, at, i_p // KV_HEADS, new, window, HAS_FIRST_SEEN
            )
            b_slope = _row_slopes(slopes, o_r, r_ok, i_p % KV_HEADS, new, GROUP, HAS_SLOPES)
            b_q = _load_rows(q, i_p * GROUP * new + o_r, r_ok, HEAD_DIM, BLOCK_HEAD)
            b_s, counts = _logits(
                b_q,
                b_k,
                at,
                lowest,
                b_slope,
                b_pos,
                n_ok,
                scaling,
                softcap,
                HAS_SOFTCAP,
                HAS_SLOPES,
            )
            o_x = i_p.to(tl.int64) * GROUP * new + o_r
            b_z = tl.load(normaliser + o_x, mask=r_ok, other=0.0)
            b_p = tl.where(counts & r_ok[:, None], tl.exp(b_s - b_z[:, None]), 0.0)
            got += tl.sum(b_p, 0)
        p_got = p_mass + o_n
        tl.store(p_got, tl.load(p_got, mask=n_ok, other=0.0) + got / GROUP, mask=n_ok)
