"""The Triton programs of attention sums; `triton_kernel` launches them.

Names begin with `i_` for an index, `o_` for offsets, `p_` for pointers and `b_` for a loaded tile.
A query row `r` of a pair (sequence and KV head) is query `r // GROUP` of query head `r % GROUP` of
its group, so that neighbouring rows see nearly the same tokens.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from ..triton_tiles import load_piece, logits

# as a position: behind every query, and before every window
_NEVER = tl.constexpr(2**31 - 1)
_NOWHERE = tl.constexpr(-(2**31))

# sizes that change from prompt to prompt must not make Triton compile again
_CHANGING = (
    *("tokens", "num_tiles", "tiles_per_split", "num_splits", "new", "window"),
    *("valid_b", "valid_h", "positions_b", "positions_h"),
)


@triton.jit(do_not_specialize=_CHANGING)
def places_kernel(
    valid,
    positions,
    places,
    lowest,
    highest,
    valid_b,
    valid_h,
    valid_n,
    positions_b,
    positions_h,
    positions_n,
    tokens,
    num_tiles,
    KV_HEADS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    """Position of each token, `_NEVER` at empty places, and their range; grid (tiles, pairs)."""
    i_t = tl.program_id(0)
    i_p = tl.program_id(1)
    i_b = (i_p // KV_HEADS).to(tl.int64)
    i_h = (i_p % KV_HEADS).to(tl.int64)
    o_n = i_t * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    n_ok = o_n < tokens
    o_x = o_n.to(tl.int64)
    p_valid = valid + i_b * valid_b + i_h * valid_h + o_x * valid_n
    p_positions = positions + i_b * positions_b + i_h * positions_h + o_x * positions_n
    held = tl.load(p_valid, mask=n_ok, other=0) != 0
    b_pos = tl.load(p_positions, mask=held & n_ok, other=0).to(tl.int32)
    b_place = tl.where(held, b_pos, _NEVER)
    tl.store(places + i_p.to(tl.int64) * tokens + o_x, b_place, mask=n_ok)
    tl.store(lowest + i_p * num_tiles + i_t, tl.min(b_place, 0))
    tl.store(highest + i_p * num_tiles + i_t, tl.max(tl.where(held, b_pos, _NOWHERE), 0))


@triton.jit
def _query_rows(q, i_p, o_r, q_b, q_h, q_n, KV_HEADS: tl.constexpr, GROUP: tl.constexpr):
    """Where the query rows `o_r` of a pair begin."""
    o_x = o_r.to(tl.int64)
    i_b = (i_p // KV_HEADS).to(tl.int64)
    i_h = (i_p % KV_HEADS).to(tl.int64) * GROUP
    return q + i_b * q_b + (i_h + o_x % GROUP) * q_h + o_x // GROUP * q_n


@triton.jit
def _key_rows(k, i_p, o_n, k_b, k_h, k_n, KV_HEADS: tl.constexpr):
    """Where the keys `o_n` of a pair begin."""
    i_b = (i_p // KV_HEADS).to(tl.int64)
    i_h = (i_p % KV_HEADS).to(tl.int64)
    return k + i_b * k_b + i_h * k_h + o_n.to(tl.int64) * k_n


@triton.jit
def _row_slopes(slopes, i_p, o_r, r_ok, KV_HEADS: tl.constexpr, GROUP: tl.constexpr):
    """Linear bias of each query row."""
    return tl.load(slopes + i_p % KV_HEADS * GROUP + o_r % GROUP, mask=r_ok, other=0.0)


@triton.jit(do_not_specialize=_CHANGING)
def normalise_kernel(
    q,
    k,
    places,
    lowest,
    highest,
    query_positions,
    sinks,
    slopes,
    tops,
    totals,
    q_b,
    q_h,
    q_n,
    k_b,
    k_h,
    k_n,
    tokens,
    num_tiles,
    tiles_per_split,
    new,
    window,
    scaling,
    softcap,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    BLOCK_TILES: tl.constexpr,
):
    """Largest logit and sum of one block of rows over a split; grid (blocks, pairs, splits)."""
    # the newest rows see most; begun first, they do not hold up the end
    i_r = tl.num_programs(0) - 1 - tl.program_id(0)
    i_p = tl.program_id(1)
    i_s = tl.program_id(2)
    o_r = i_r * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    r_ok = o_r < GROUP * new
    b_at = tl.load(query_positions + o_r // GROUP, mask=r_ok, other=-1).to(tl.int32)
    newest = tl.max(b_at, 0)
    oldest = tl.min(tl.where(r_ok, b_at, _NEVER), 0)
    # tiles outside of what any of the rows sees are passed over
    start = i_s * tiles_per_split
    end = tl.minimum(start + tiles_per_split, num_tiles)
    first = end
    behind = start
    for i in range(start, end, BLOCK_TILES):
        o_t = i + tl.arange(0, BLOCK_TILES)
        t_ok = o_t < end
        b_low = tl.load(lowest + i_p * num_tiles + o_t, mask=t_ok, other=_NEVER)
        b_high = tl.load(highest + i_p * num_tiles + o_t, mask=t_ok, other=_NOWHERE)
        near = (b_low <= newest) & (b_high > oldest - window)
        first = tl.minimum(first, tl.min(tl.where(near, o_t, end), 0))
        behind = tl.maximum(behind, tl.max(tl.where(near, o_t + 1, start), 0))
    b_m = tl.full([BLOCK_ROWS], -1e30, tl.float32)
    b_l = tl.zeros([BLOCK_ROWS], tl.float32)
    if HAS_SINKS:
        p_sink = sinks + i_p % KV_HEADS * GROUP + o_r % GROUP
        b_sink = tl.load(p_sink, mask=r_ok, other=0.0).to(tl.float32)
        b_m = tl.where(i_s == 0, b_sink, b_m)
        b_l = tl.where(i_s == 0, 1.0, b_l)
    b_slope = tl.zeros([BLOCK_ROWS], tl.float32)
    if HAS_SLOPES:
        b_slope = _row_slopes(slopes, i_p, o_r, r_ok, KV_HEADS, GROUP)
    p_q = _query_rows(q, i_p, o_r, q_b, q_h, q_n, KV_HEADS, GROUP)
    b_q = load_piece(p_q, r_ok, 0, HEAD_DIM, BLOCK_HEAD)
    for i_t in range(first, behind):
        o_n = i_t * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
        n_ok = o_n < tokens
        b_pos = tl.load(places + i_p.to(tl.int64) * tokens + o_n, mask=n_ok, other=_NEVER)
        p_k = _key_rows(k, i_p, o_n, k_b, k_h, k_n, KV_HEADS)
        b_k = load_piece(p_k, n_ok, 0, HEAD_DIM, BLOCK_HEAD)
        b_s, seen = logits(
            b_q,
            b_k,
            p_q,
            p_k,
            r_ok,
            n_ok,
            b_at,
            b_pos,
            b_slope,
            scaling,
            softcap,
            window,
            HEAD_DIM,
            BLOCK_HEAD,
            HAS_SOFTCAP,
            HAS_SLOPES,
        )
        higher = tl.maximum(b_m, tl.max(b_s, 1))
        b_p = tl.where(seen, tl.exp(b_s - higher[:, None]), 0.0)
        b_l = b_l * tl.exp(b_m - higher) + tl.sum(b_p, 1)
        b_m = higher
    o_x = (i_s * tl.num_programs(1) + i_p).to(tl.int64) * GROUP * new + o_r
    tl.store(tops + o_x, b_m, mask=r_ok)
    tl.store(totals + o_x, b_l, mask=r_ok)


@triton.jit(do_not_specialize=("num_rows", "num_splits"))
def join_kernel(tops, totals, num_rows, num_splits, BLOCK_ROWS: tl.constexpr):
    """Join the splits of each row of all pairs, in the place of the first; grid (blocks,)."""
    o_r = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    r_ok = o_r < num_rows
    b_m = tl.full([BLOCK_ROWS], -1e30, tl.float32)
    b_l = tl.zeros([BLOCK_ROWS], tl.float32)
    for i_s in range(0, num_splits):
        o_x = i_s * num_rows.to(tl.int64) + o_r
        b_mw = tl.load(tops + o_x, mask=r_ok, other=-1e30)
        b_lw = tl.load(totals + o_x, mask=r_ok, other=0.0)
        higher = tl.maximum(b_m, b_mw)
        b_l = b_l * tl.exp(b_m - higher) + b_lw * tl.exp(b_mw - higher)
        b_m = higher
    tl.store(tops + o_r, b_m, mask=r_ok)
    tl.store(totals + o_r, b_l, mask=r_ok)


@triton.jit(do_not_specialize=_CHANGING)
def add_kernel(
    q,
    k,
    places,
    query_positions,
    slopes,
    tops,
    totals,
    sums,
    q_b,
    q_h,
    q_n,
    k_b,
    k_h,
    k_n,
    tokens,
    new,
    window,
    scaling,
    softcap,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
):
    """Add up what a tile of tokens gets from all rows; grid (tiles, pairs)."""
    i_t = tl.program_id(0)
    i_p = tl.program_id(1)
    o_n = i_t * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    n_ok = o_n < tokens
    o_y = i_p.to(tl.int64) * tokens + o_n
    b_pos = tl.load(places + o_y, mask=n_ok, other=_NEVER)
    low = tl.min(b_pos, 0)
    high = tl.max(tl.where(b_pos == _NEVER, _NOWHERE, b_pos), 0)
    # queries that see none of the tokens are passed over
    first = new
    behind = tl.zeros_like(new)
    for i in range(0, new, BLOCK_QUERIES):
        o_i = i + tl.arange(0, BLOCK_QUERIES)
        i_ok = o_i < new
        b_at = tl.load(query_positions + o_i, mask=i_ok, other=-1).to(tl.int32)
        near = i_ok & (low <= b_at) & (high > b_at - window)
        first = tl.minimum(first, tl.min(tl.where(near, o_i, new), 0))
        behind = tl.maximum(behind, tl.max(tl.where(near, o_i + 1, 0), 0))
    p_k = _key_rows(k, i_p, o_n, k_b, k_h, k_n, KV_HEADS)
    b_k = load_piece(p_k, n_ok, 0, HEAD_DIM, BLOCK_HEAD)
    got = tl.zeros([BLOCK_TOKENS], tl.float32)
    for first_row in range(first * GROUP, behind * GROUP, BLOCK_ROWS):
        o_r = first_row + tl.arange(0, BLOCK_ROWS)
        r_ok = o_r < GROUP * new
        b_at = tl.load(query_positions + o_r // GROUP, mask=r_ok, other=-1).to(tl.int32)
        b_slope = tl.zeros([BLOCK_ROWS], tl.float32)
        if HAS_SLOPES:
            b_slope = _row_slopes(slopes, i_p, o_r, r_ok, KV_HEADS, GROUP)
        p_q = _query_rows(q, i_p, o_r, q_b, q_h, q_n, KV_HEADS, GROUP)
        b_q = load_piece(p_q, r_ok, 0, HEAD_DIM, BLOCK_HEAD)
        b_s, seen = logits(
            b_q,
            b_k,
            p_q,
            p_k,
            r_ok,
            n_ok,
            b_at,
            b_pos,
            b_slope,
            scaling,
            softcap,
            window,
            HEAD_DIM,
            BLOCK_HEAD,
            HAS_SOFTCAP,
            HAS_SLOPES,
        )
        o_x = i_p.to(tl.int64) * GROUP * new + o_r
        b_m = tl.load(tops + o_x, mask=r_ok, other=0.0)
        b_l = tl.load(totals + o_x, mask=r_ok, other=1.0)
        b_p = tl.exp(b_s - b_m[:, None]) * (1.0 / b_l)[:, None]
        # a row that sees nothing has a total of zero
        got += tl.sum(tl.where(seen, b_p, 0.0), 0)
    tl.store(sums + o_y, got / GROUP, mask=n_ok)
