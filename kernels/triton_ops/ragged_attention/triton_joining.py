"""The Triton programs that follow attention: joining its slices, sharing out noted logits.

Names and rows are those of `triton_programs`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from .triton_programs import CHANGING, PARTS, load_lengths, load_slice


@triton.jit(do_not_specialize=CHANGING, do_not_specialize_on_alignment=PARTS)
def join_kernel(
    outputs,
    highest,
    totals,
    first_item,
    lengths,
    sinks,
    out,
    normaliser,
    most_items,
    split,
    tail_splits,
    tail_tokens,
    new,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    BLOCK_SLICES: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
):
    """Join all slices of one query row and its sink; grid (pairs * rows,)."""
    i_x = tl.program_id(0).to(tl.int64)
    i_p = (i_x // (GROUP * new)).to(tl.int32)
    i_r = (i_x % (GROUP * new)).to(tl.int32)
    tail_tokens, _ = load_lengths(lengths, tail_tokens, tail_tokens, HAS_LENGTHS)
    o_d = tl.arange(0, BLOCK_VALUE)
    d_ok = o_d < VALUE_DIM
    b_m = -1e30
    b_l = 0.0
    if HAS_SINKS:
        b_m = tl.load(sinks + i_p % KV_HEADS * GROUP + i_r // new).to(tl.float32)
        b_l = 1.0
    b_o = tl.zeros([BLOCK_VALUE], tl.float32)
    listed = tl.load(first_item + i_p)
    count = tl.load(first_item + i_p + 1) - listed
    num_slices = count + (tail_tokens + split - 1) // split
    for first in range(0, num_slices, BLOCK_SLICES):
        o_s = first + tl.arange(0, BLOCK_SLICES)
        s_ok = o_s < num_slices
        in_tail = most_items + i_p * tail_splits + o_s - count
        i_w = tl.where(o_s < count, listed + o_s, in_tail)
        o_x = i_w.to(tl.int64) * GROUP * new + i_r
        b_mw = tl.load(highest + o_x, mask=s_ok, other=-1e30)
        b_lw = tl.load(totals + o_x, mask=s_ok, other=0.0)
        x_ok = s_ok[:, None] & d_ok[None, :]
        b_ow = tl.load(outputs + o_x[:, None] * VALUE_DIM + o_d[None, :], mask=x_ok, other=0.0)
        higher = tl.maximum(b_m, tl.max(b_mw, 0))
        shrink = tl.exp(b_m - higher)
        weight = tl.exp(b_mw - higher)
        b_l = b_l * shrink + tl.sum(b_lw * weight, 0)
        b_o = b_o * shrink + tl.sum(b_ow * weight[:, None], 0)
        b_m = higher
    # a row that saw nothing has a total of zero: its output is zero, not 0 / 0
    b_l = tl.where(b_l > 0, b_l, 1.0)
    tl.store(out + i_x * VALUE_DIM + o_d, (b_o / b_l).to(out.dtype.element_ty), mask=d_ok)
    tl.store(normaliser + i_x, b_m + tl.log(b_l))


@triton.jit(do_not_specialize=CHANGING, do_not_specialize_on_alignment=PARTS)
def share_kernel(
    noted,
    normaliser,
    item_pair,
    item_start,
    item_end,
    lengths,
    mass,
    tail_mass,
    pairs,
    most_items,
    split,
    tail_splits,
    tail_tokens,
    tail_capacity,
    new,
    num_rows,
    GROUP: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    HAS_MASS: tl.constexpr,
    HAS_TAIL_MASS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    """Add to the mass of one slice what its noted logits come to; grid (items,)."""
    tail_tokens, _ = load_lengths(lengths, tail_tokens, tail_tokens, HAS_LENGTHS)
    i_p, start, end = load_slice(
        *(item_pair, item_start, item_end, most_items, split),
        *(tail_splits, tail_tokens, tail_capacity),
    )
    in_tail = tl.program_id(0) >= most_items
    if not HAS_MASS:
        end = tl.where(in_tail, end, start)
    if not HAS_TAIL_MASS:
        end = tl.where(in_tail, start, end)
    if start >= end:
        return
    p_mass = tail_mass if in_tail else mass
    o_r = tl.arange(0, BLOCK_ROWS)
    r_ok = o_r < GROUP * new
    b_z = tl.load(normaliser + i_p.to(tl.int64) * GROUP * new + o_r, mask=r_ok, other=0.0)
    p_row = noted + o_r.to(tl.int64) * (num_rows + pairs * tail_capacity)
    for first in range(start, end, BLOCK_TOKENS):
        o_n = first + tl.arange(0, BLOCK_TOKENS)
        n_ok = o_n < end
        o_c = tl.where(in_tail, num_rows, 0) + o_n
        x_ok = r_ok[:, None] & n_ok[None, :]
        b_s = tl.load(p_row[:, None] + o_c[None, :], mask=x_ok, other=-1e30)
        # a hidden token is noted as -1e30, also where a row sees nothing at all
        b_p = tl.where(b_s > -1e29, tl.exp(b_s - b_z[:, None]), 0.0)
        p_got = p_mass + o_n
        b_got = tl.load(p_got, mask=n_ok, other=0.0) + tl.sum(b_p, 0) / GROUP
        tl.store(p_got, b_got, mask=n_ok)
