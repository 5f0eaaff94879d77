"""The Triton programs that attend; `triton_joining` has those that join, `triton_kernel` launches.

Names begin with `i_` for an index, `o_` for offsets, `p_` for pointers and `b_` for a loaded tile.
All matrices are contiguous. A query row `r` of a pair is query head `r // new` of its group and
new token `r % new`. A key is read in one or two tiles of `BLOCK_HEAD` and `BLOCK_REST` columns.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from ..triton_tiles import load_piece

# sizes that change from token to token or prompt to prompt must not make Triton compile again
CHANGING = (
    *("pairs", "most_items", "split", "tail_splits", "tail_tokens", "tail_capacity"),
    *("seen", "new", "window", "num_rows"),
)
# parts of one storage, of which numbers are loaded one by one
PARTS = ("item_pair", "item_start", "item_end", "first_item", "lengths")


@triton.jit
def load_lengths(lengths, tail_tokens, seen, HAS_LENGTHS: tl.constexpr):
    """Tokens of the tail and tokens seen: as the device knows them, if it was told."""
    if HAS_LENGTHS:
        tail_tokens = tl.load(lengths)
        seen = tl.load(lengths + 1)
    return tail_tokens, seen


@triton.jit
def load_slice(
    item_pair,
    item_start,
    item_end,
    most_items,
    split,
    tail_splits,
    tail_tokens,
    tail_capacity,
):
    """Which pair and which rows program i_w works on; behind all items come those of the tail.

    Items that are not in use, and slices of the tail behind the slots in use, are empty.
    """
    i_w = tl.program_id(0)
    if i_w < most_items:
        i_p = tl.load(item_pair + i_w)
        start = tl.load(item_start + i_w)
        end = tl.load(item_end + i_w)
    else:
        i_p = (i_w - most_items) // tail_splits
        first = (i_w - most_items) % tail_splits * split
        start = i_p * tail_capacity + first
        end = i_p * tail_capacity + tl.minimum(first + split, tail_tokens)
    return i_p, start, end


@triton.jit
def _load_rows(p, o_n, n_ok, FIRST: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Columns from FIRST on of rows `o_n` of a matrix, padded with zeros to [len(o_n), BLOCK]."""
    o_d = FIRST + tl.arange(0, BLOCK)
    p_x = p + o_n.to(tl.int64)[:, None] * WIDTH + o_d[None, :]
    return tl.load(p_x, mask=n_ok[:, None] & (o_d < WIDTH)[None, :], other=0.0)


@triton.jit
def _load_both(
    p, o_n, n_ok, HEAD_DIM: tl.constexpr, BLOCK_HEAD: tl.constexpr, BLOCK_REST: tl.constexpr
):
    """Rows of queries or keys in two tiles; the second is the first if one is enough."""
    b_x = _load_rows(p, o_n, n_ok, 0, HEAD_DIM, BLOCK_HEAD)
    b_rest = b_x
    if BLOCK_REST > 0:
        b_rest = _load_rows(p, o_n, n_ok, BLOCK_HEAD, HEAD_DIM, BLOCK_REST)
    return b_x, b_rest


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
def _products(b_q, b_q_rest, b_k, b_k_rest, BLOCK_REST: tl.constexpr):
    """Products [rows, tokens] of rows and keys in two tiles each."""
    b_s = tl.dot(b_q, tl.trans(b_k), input_precision="ieee")
    if BLOCK_REST > 0:
        b_s = tl.dot(b_q_rest, tl.trans(b_k_rest), b_s, input_precision="ieee")
    return b_s


@triton.jit
def _products_in_pieces(q, k, o_x, o_n, r_ok, n_ok, HEAD_DIM: tl.constexpr, BLOCK: tl.constexpr):
    """Products [rows, tokens] of rows `o_x` and keys `o_n`, loaded some columns at a time."""
    p_q = q + o_x.to(tl.int64) * HEAD_DIM
    p_k = k + o_n.to(tl.int64) * HEAD_DIM
    b_s = tl.zeros([o_x.shape[0], o_n.shape[0]], tl.float32)
    for first in range(0, HEAD_DIM, BLOCK):
        b_q = load_piece(p_q, r_ok, first, HEAD_DIM, BLOCK)
        b_k = load_piece(p_k, n_ok, first, HEAD_DIM, BLOCK)
        b_s = tl.dot(b_q, tl.trans(b_k), b_s, input_precision="ieee")
    return b_s


@triton.jit
def _logits(
    b_s,
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
    """Logits [rows, tokens] of products, and which of them count; the others are -1e30."""
    b_s = b_s * scaling
    if HAS_SOFTCAP:
        b_s = softcap * (2 * tl.sigmoid(2 * b_s / softcap) - 1)
    if HAS_SLOPES:
        b_s += b_slope[:, None] * (b_pos[None, :] - at[:, None]).to(tl.float32)
    counts = (b_pos[None, :] <= at[:, None]) & (b_pos[None, :] >= lowest[:, None])
    counts = counts & n_ok[None, :]
    return tl.where(counts, b_s, -1e30), counts


@triton.jit(do_not_specialize=CHANGING, do_not_specialize_on_alignment=PARTS)
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
    lengths,
    slopes,
    first_seen,
    outputs,
    highest,
    totals,
    noted,
    pairs,
    most_items,
    split,
    tail_splits,
    tail_tokens,
    tail_capacity,
    seen,
    new,
    window,
    num_rows,
    scaling,
    softcap,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
    HAS_FIRST_SEEN: tl.constexpr,
    NOTES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
):
    """Attend with one block of query rows to one slice; grid (items, row blocks)."""
    tail_tokens, seen = load_lengths(lengths, tail_tokens, seen, HAS_LENGTHS)
    i_w = tl.program_id(0)
    i_p, start, end = load_slice(
        *(item_pair, item_start, item_end, most_items, split),
        *(tail_splits, tail_tokens, tail_capacity),
    )
    if start >= end:
        return
    in_tail = i_w >= most_items
    if in_tail:
        p_k = tail_k
        p_v = tail_v
    else:
        p_k = k
        p_v = v
    o_r = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    r_ok = o_r < GROUP * new
    at = seen - new + o_r % new
    lowest = _row_limits(first_seen, o_r, r_ok, at, i_p // KV_HEADS, new, window, HAS_FIRST_SEEN)
    b_slope = _row_slopes(slopes, o_r, r_ok, i_p % KV_HEADS, new, GROUP, HAS_SLOPES)
    # only rows of the prefix have a stored position; those of the tail follow from the slot
    listed_end = tl.where(in_tail, 0, end)
    tail_zero = seen - tail_tokens - i_p * tail_capacity
    if not NOTES:
        # no row of this block sees these slots; what is noted must be whole
        last = tl.max(tl.where(r_ok, at, -1), 0) + 1 - tail_zero
        first_slot = tl.min(tl.where(r_ok, lowest, 2**30), 0) - tail_zero
        end = tl.where(in_tail, tl.minimum(end, last), end)
        start = tl.where(in_tail, tl.maximum(start, first_slot), start)
    b_q, b_q_rest = _load_both(q, i_p * GROUP * new + o_r, r_ok, HEAD_DIM, BLOCK_HEAD, BLOCK_REST)
    b_m = tl.full([BLOCK_ROWS], -1e30, tl.float32)
    b_l = tl.zeros([BLOCK_ROWS], tl.float32)
    b_o = tl.zeros([BLOCK_ROWS, BLOCK_VALUE], tl.float32)
    for first in range(start, end, BLOCK_TOKENS):
        o_n = first + tl.arange(0, BLOCK_TOKENS)
        n_ok = o_n < end
        b_k, b_k_rest = _load_both(p_k, o_n, n_ok, HEAD_DIM, BLOCK_HEAD, BLOCK_REST)
        b_v = _load_rows(p_v, o_n, n_ok, 0, VALUE_DIM, BLOCK_VALUE)
        b_pos = tl.load(positions + o_n, mask=o_n < listed_end, other=0)
        b_pos = tl.where(in_tail, tail_zero + o_n, b_pos)
        b_s = _products(b_q, b_q_rest, b_k, b_k_rest, BLOCK_REST)
        b_s, counts = _logits(
            *(b_s, at, lowest, b_slope, b_pos, n_ok, scaling, softcap, HAS_SOFTCAP, HAS_SLOPES)
        )
        if NOTES:
            # tokens of the tail lie behind those of the prefix
            o_c = tl.where(in_tail, num_rows, 0) + o_n
            width = num_rows + pairs * tail_capacity
            p_s = noted + o_r.to(tl.int64)[:, None] * width + o_c[None, :]
            tl.store(p_s, b_s, mask=r_ok[:, None] & n_ok[None, :])
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


@triton.jit(do_not_specialize=CHANGING, do_not_specialize_on_alignment=PARTS)
def mass_kernel(
    q,
    k,
    positions,
    tail_k,
    item_pair,
    item_start,
    item_end,
    lengths,
    slopes,
    first_seen,
    normaliser,
    mass,
    tail_mass,
    most_items,
    split,
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
    HEAD_DIM: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
    HAS_FIRST_SEEN: tl.constexpr,
    HAS_MASS: tl.constexpr,
    HAS_TAIL_MASS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    BLOCK_REST: tl.constexpr,
):
    """Add to the mass of one tile of a slice, reading its keys again; grid (items, tiles)."""
    tail_tokens, seen = load_lengths(lengths, tail_tokens, seen, HAS_LENGTHS)
    i_p, start, end = load_slice(
        *(item_pair, item_start, item_end, most_items, split),
        *(tail_splits, tail_tokens, tail_capacity),
    )
    in_tail = tl.program_id(0) >= most_items
    if not HAS_MASS:
        end = tl.where(in_tail, end, start)
    if not HAS_TAIL_MASS:
        end = tl.where(in_tail, start, end)
    start += tl.program_id(1) * BLOCK_TOKENS
    if start >= end:
        return
    if in_tail:
        p_k = tail_k
        p_mass = tail_mass
    else:
        p_k = k
        p_mass = mass
    o_n = start + tl.arange(0, BLOCK_TOKENS)
    n_ok = o_n < end
    # without tensor cores a thread would hold whole keys, beside its registers
    is_cut: tl.constexpr = k.dtype.element_ty == tl.float32
    if not is_cut:
        b_k, b_k_rest = _load_both(p_k, o_n, n_ok, HEAD_DIM, BLOCK_HEAD, BLOCK_REST)
    b_pos = tl.load(positions + o_n, mask=n_ok & (o_n < tl.where(in_tail, 0, end)), other=0)
    b_pos = tl.where(in_tail, seen - tail_tokens - i_p * tail_capacity + o_n, b_pos)
    got = tl.zeros([BLOCK_TOKENS], tl.float32)
    for first_row in range(0, GROUP * new, BLOCK_ROWS):
        o_r = first_row + tl.arange(0, BLOCK_ROWS)
        r_ok = o_r < GROUP * new
        at = seen - new + o_r % new
        lowest = _row_limits(
            first_seen, o_r, r_ok, at, i_p // KV_HEADS, new, window, HAS_FIRST_SEEN
        )
        b_slope = _row_slopes(slopes, o_r, r_ok, i_p % KV_HEADS, new, GROUP, HAS_SLOPES)
        o_x = i_p.to(tl.int64) * GROUP * new + o_r
        if is_cut:
            b_s = _products_in_pieces(q, p_k, o_x, o_n, r_ok, n_ok, HEAD_DIM, 32)
        else:
            b_q, b_q_rest = _load_both(q, o_x, r_ok, HEAD_DIM, BLOCK_HEAD, BLOCK_REST)
            b_s = _products(b_q, b_q_rest, b_k, b_k_rest, BLOCK_REST)
        b_s, counts = _logits(
            *(b_s, at, lowest, b_slope, b_pos, n_ok, scaling, softcap, HAS_SOFTCAP, HAS_SLOPES)
        )
        b_z = tl.load(normaliser + o_x, mask=r_ok, other=0.0)
        got += tl.sum(tl.where(counts & r_ok[:, None], tl.exp(b_s - b_z[:, None]), 0.0), 0)
    p_got = p_mass + o_n
    tl.store(p_got, tl.load(p_got, mask=n_ok, other=0.0) + got / GROUP, mask=n_ok)
