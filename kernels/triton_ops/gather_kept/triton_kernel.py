"""Gathering of kept tokens in Triton: count the kept ones of each tile, then copy tile by tile."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..copying import as_bits, tile_tokens
from ..launches import Program, launch_for
from ..triton_tiles import block_of

# tiles that one program counts, and whose counts one load adds up
_COUNTED_TILES, _ADDED_TILES = 64, 1024


def gather_kept(
    keep: Tensor,
    keys: Tensor,
    values: Tensor,
    out_keys: Tensor,
    out_values: Tensor,
    starts: Tensor,
) -> None:
    """Do what the package's `gather_kept` documents; arguments are not checked again."""
    batch, kv_heads, tokens = keep.shape
    if not keep.numel():
        return
    launch = launch_for(Program.GATHER, keep.device)
    head_dim, value_dim = keys.shape[3], values.shape[3]
    blocks = block_of(head_dim), block_of(value_dim)
    block_tokens = tile_tokens(launch.tokens, max(blocks))
    pairs, tiles = batch * kv_heads, triton.cdiv(tokens, block_tokens)
    flags = as_bits(keep.contiguous())
    counts = torch.empty(pairs, tiles, dtype=torch.int32, device=keep.device)
    with torch.cuda.device_of(keep):
        count_kernel[(triton.cdiv(tiles, _COUNTED_TILES), pairs)](
            *(flags, counts, tokens, tiles),
            BLOCK_TOKENS=block_tokens,
            BLOCK_TILES=_COUNTED_TILES,
            **launch.options,
        )
        gather_kernel[(tiles, pairs)](
            *(flags, counts, starts.contiguous(), as_bits(keys), as_bits(values)),
            *(as_bits(out_keys), as_bits(out_values)),
            *(tokens, tiles, *keys.stride(), *values.stride()),
            KV_HEADS=kv_heads,
            HEAD_DIM=head_dim,
            VALUE_DIM=value_dim,
            BLOCK_TOKENS=block_tokens,
            BLOCK_TILES=_ADDED_TILES,
            BLOCK_HEAD=blocks[0],
            BLOCK_VALUE=blocks[1],
            **launch.options,
        )


@triton.jit(do_not_specialize=("tokens", "tiles"))
def count_kernel(
    flags, counts, tokens, tiles, BLOCK_TOKENS: tl.constexpr, BLOCK_TILES: tl.constexpr
):
    """Count the kept tokens of some tiles of one pair; grid (blocks of tiles, pairs)."""
    i_p = tl.program_id(1).to(tl.int64)
    o_t = tl.program_id(0) * BLOCK_TILES + tl.arange(0, BLOCK_TILES)
    o_n = o_t[:, None] * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)[None, :]
    b_keep = tl.load(flags + i_p * tokens + o_n, mask=o_n < tokens, other=0)
    tl.store(counts + i_p * tiles + o_t, tl.sum(b_keep.to(tl.int32), 1), mask=o_t < tiles)


@triton.jit
def _copy_rows(x, out, o_from, o_to, n_ok, stride_d, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Copy rows that begin at elements `o_from` to rows `o_to` of a contiguous matrix."""
    o_d = tl.arange(0, BLOCK)
    x_ok = n_ok[:, None] & (o_d < WIDTH)[None, :]
    b_x = tl.load(x + o_from[:, None] + o_d[None, :] * stride_d, mask=x_ok, other=0)
    tl.store(out + o_to[:, None] * WIDTH + o_d[None, :], b_x, mask=x_ok)


@triton.jit(do_not_specialize=("tokens", "tiles"))
def gather_kernel(
    flags,
    counts,
    starts,
    k,
    v,
    out_k,
    out_v,
    tokens,
    tiles,
    k_batch,
    k_head,
    k_token,
    k_dim,
    v_batch,
    v_head,
    v_token,
    v_dim,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_TILES: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
):
    """Copy the kept tokens of one tile of one pair; grid (tiles, pairs)."""
    i_t, i_p = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i_b, i_h = i_p // KV_HEADS, i_p % KV_HEADS
    before = tl.load(starts + i_p)
    for first in range(0, i_t, BLOCK_TILES):
        o_t = first + tl.arange(0, BLOCK_TILES)
        before += tl.sum(tl.load(counts + i_p * tiles + o_t, mask=o_t < i_t, other=0), 0)
    o_n = i_t * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    b_keep = tl.load(flags + i_p * tokens + o_n, mask=o_n < tokens, other=0).to(tl.int32)
    o_to = before + tl.cumsum(b_keep, 0) - 1
    n_ok = b_keep > 0
    o_n = o_n.to(tl.int64)
    o_k = i_b * k_batch + i_h * k_head + o_n * k_token
    o_v = i_b * v_batch + i_h * v_head + o_n * v_token
    _copy_rows(k, out_k, o_k, o_to, n_ok, k_dim, HEAD_DIM, BLOCK_HEAD)
    _copy_rows(v, out_v, o_v, o_to, n_ok, v_dim, VALUE_DIM, BLOCK_VALUE)
