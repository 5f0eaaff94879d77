"""The two Triton programs of the softmax at levels; `triton_kernel` launches them.

Names begin with `i_` for an index, `o_` for offsets, `p_` for pointers and `b_` for a loaded tile.
A query row `r` of a KV head is query head `r // new` of its group and query `r % new`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from ..triton_tiles import load_piece, logits

# as a position: behind every query
_NEVER = tl.constexpr(2**31 - 1)
_LOWEST = tl.constexpr(-3.4028234663852886e38)


@triton.jit(
    do_not_specialize=("positions_h", "first_piece", "new", "window"),
    do_not_specialize_on_alignment=("starts", "ends"),
)
def piece_kernel(
    q,
    k,
    v,
    positions,
    query_positions,
    starts,
    ends,
    slopes,
    tops,
    totals,
    outputs,
    q_h,
    q_n,
    k_h,
    k_n,
    v_h,
    v_n,
    positions_h,
    positions_n,
    first_piece,
    new,
    window,
    scaling,
    softcap,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
):
    """Attend with one block of rows to one piece of a KV head; grid (blocks, kv_heads, pieces)."""
    i_h = tl.program_id(1)
    i_s = first_piece + tl.program_id(2)
    start = tl.load(starts + i_s)
    end = tl.load(ends + i_s)
    o_r = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    r_ok = o_r < GROUP * new
    b_at = tl.load(query_positions + o_r % new, mask=r_ok, other=-1).to(tl.int32)
    b_slope = tl.zeros([BLOCK_ROWS], tl.float32)
    if HAS_SLOPES:
        b_slope = tl.load(slopes + i_h * GROUP + o_r // new, mask=r_ok, other=0.0)
    o_q = (i_h * GROUP + o_r // new).to(tl.int64) * q_h + (o_r % new).to(tl.int64) * q_n
    p_q = q + o_q
    b_q = load_piece(p_q, r_ok, 0, HEAD_DIM, BLOCK_HEAD)
    o_h = i_h.to(tl.int64)
    b_m = tl.full([BLOCK_ROWS], -1e30, tl.float32)
    b_l = tl.zeros([BLOCK_ROWS], tl.float32)
    b_o = tl.zeros([BLOCK_ROWS, BLOCK_VALUE], tl.float32)
    for first in range(start, end, BLOCK_TOKENS):
        o_n = (first + tl.arange(0, BLOCK_TOKENS)).to(tl.int64)
        n_ok = o_n < end
        p_pos = positions + o_h * positions_h + o_n * positions_n
        b_pos = tl.load(p_pos, mask=n_ok, other=_NEVER).to(tl.int32)
        p_k = k + o_h * k_h + o_n * k_n
        b_k = load_piece(p_k, n_ok, 0, HEAD_DIM, BLOCK_HEAD)
        b_v = load_piece(v + o_h * v_h + o_n * v_n, n_ok, 0, VALUE_DIM, BLOCK_VALUE)
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
        shrink = tl.exp(b_m - higher)
        b_l = b_l * shrink + tl.sum(b_p, 1)
        b_x = b_p.to(b_v.dtype)
        b_o = b_o * shrink[:, None] + tl.dot(b_x, b_v, input_precision="ieee")
        if b_v.dtype != tl.float32:
            # what half precision rounded off the weights is more than some levels differ by
            b_y = (b_p - b_x.to(tl.float32)).to(b_v.dtype)
            b_o += tl.dot(b_y, b_v, input_precision="ieee")
        b_m = higher
    o_x = (i_s * tl.num_programs(1) + i_h).to(tl.int64) * GROUP * new + o_r
    o_d = tl.arange(0, BLOCK_VALUE)
    tl.store(tops + o_x, b_m, mask=r_ok)
    tl.store(totals + o_x, b_l, mask=r_ok)
    p_o = outputs + o_x[:, None] * VALUE_DIM + o_d[None, :]
    tl.store(p_o, b_o, mask=r_ok[:, None] & (o_d < VALUE_DIM)[None, :])


@triton.jit(
    do_not_specialize=("num_levels", "new"), do_not_specialize_on_alignment=("first_pieces",)
)
def level_kernel(
    tops,
    totals,
    outputs,
    first_pieces,
    sinks,
    highest,
    mass,
    output,
    num_levels,
    new,
    GROUP: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
):
    """Join the pieces of a KV head in order, noting each level's state; grid (blocks, kv_heads)."""
    i_h = tl.program_id(1)
    o_r = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    o_d = tl.arange(0, BLOCK_VALUE)
    r_ok = o_r < GROUP * new
    x_ok = r_ok[:, None] & (o_d < VALUE_DIM)[None, :]
    b_m = tl.full([BLOCK_ROWS], -1e30, tl.float32)
    b_l = tl.zeros([BLOCK_ROWS], tl.float32)
    if HAS_SINKS:
        p_sink = sinks + i_h * GROUP + o_r // new
        b_m = tl.load(p_sink, mask=r_ok, other=0.0).to(tl.float32)
        b_l = tl.full([BLOCK_ROWS], 1.0, tl.float32)
    b_o = tl.zeros([BLOCK_ROWS, BLOCK_VALUE], tl.float32)
    for i_l in range(0, num_levels):
        for i_s in range(tl.load(first_pieces + i_l), tl.load(first_pieces + i_l + 1)):
            o_x = (i_s * tl.num_programs(1) + i_h).to(tl.int64) * GROUP * new + o_r
            b_mw = tl.load(tops + o_x, mask=r_ok, other=-1e30)
            b_lw = tl.load(totals + o_x, mask=r_ok, other=0.0)
            p_o = outputs + o_x[:, None] * VALUE_DIM + o_d[None, :]
            b_ow = tl.load(p_o, mask=x_ok, other=0.0)
            higher = tl.maximum(b_m, b_mw)
            shrink = tl.exp(b_m - higher)
            weight = tl.exp(b_mw - higher)
            b_l = b_l * shrink + b_lw * weight
            b_o = b_o * shrink[:, None] + b_ow * weight[:, None]
            b_m = higher
        o_y = (i_h.to(tl.int64) * GROUP * new + o_r) * num_levels + i_l
        tl.store(highest + o_y, tl.where(b_l > 0, b_m, _LOWEST), mask=r_ok)
        tl.store(mass + o_y, b_l, mask=r_ok)
        b_t = tl.where(b_l > 0, b_l, 1.0)
        p_y = output + o_y[:, None] * VALUE_DIM + o_d[None, :]
        tl.store(p_y, b_o / b_t[:, None], mask=x_ok)
