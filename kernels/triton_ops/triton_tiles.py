"""Pieces of Triton programs that several operations share: tiles of rows, logits of a tile.

Names begin with `i_` for an index, `o_` for offsets, `p_` for pointers and `b_` for a loaded tile.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl


def block_of(width: int) -> int:
    """Size of a tile that holds the whole width, a power of two; a product takes 16 or more."""
    return max(16, 1 << (width - 1).bit_length())


@triton.jit
def load_piece(p_x, x_ok, first, HEAD_DIM: tl.constexpr, BLOCK: tl.constexpr):
    """Elements from `first` on of some rows, padded with zeros to [rows, BLOCK]."""
    o_d = first + tl.arange(0, BLOCK)
    return tl.load(
        p_x[:, None] + o_d[None, :], mask=x_ok[:, None] & (o_d < HEAD_DIM)[None, :], other=0.0
    )


@triton.jit
def logits(
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
    HEAD_DIM: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
):
    """Logits [rows, tokens] of a tile, and which of them count.

    `b_q` and `b_k` are the first pieces of rows and keys; a head that is too wide for one tile has
    more, which are loaded here.
    """
    b_s = tl.dot(b_q, tl.trans(b_k), input_precision="ieee")
    if HEAD_DIM > BLOCK_HEAD:
        for first in range(BLOCK_HEAD, HEAD_DIM, BLOCK_HEAD):
            b_x = load_piece(p_q, r_ok, first, HEAD_DIM, BLOCK_HEAD)
            b_y = load_piece(p_k, n_ok, first, HEAD_DIM, BLOCK_HEAD)
            b_s += tl.dot(b_x, tl.trans(b_y), input_precision="ieee")
    b_s *= scaling
    if HAS_SOFTCAP:
        b_s = softcap * (2 * tl.sigmoid(2 * b_s / softcap) - 1)
    if HAS_SLOPES:
        b_s += b_slope[:, None] * (b_pos[None, :] - b_at[:, None]).to(tl.float32)
    seen = (b_pos[None, :] <= b_at[:, None]) & (b_pos[None, :] > b_at[:, None] - window)
    return tl.where(seen, b_s, -1e30), seen
