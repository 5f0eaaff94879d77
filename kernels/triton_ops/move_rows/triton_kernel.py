"""Moving of rows in Triton: all at once, since no row is both read and written."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..copying import as_bits, tile_tokens
from ..launches import Program, launch_for
from ..triton_tiles import block_of


def move_rows(keys: Tensor, values: Tensor, sources: Tensor, targets: Tensor) -> None:
    """Do what the package's `move_rows` documents; arguments are not checked again."""
    moved = len(sources)
    if not moved:
        return
    launch = launch_for(Program.MOVE, keys.device)
    head_dim, value_dim = keys.shape[1], values.shape[1]
    blocks = block_of(head_dim), block_of(value_dim)
    block_rows = tile_tokens(launch.tokens, max(blocks))
    with torch.cuda.device_of(keys):
        move_kernel[(triton.cdiv(moved, block_rows),)](
            *(sources.contiguous(), targets.contiguous(), as_bits(keys), as_bits(values), moved),
            HEAD_DIM=head_dim,
            VALUE_DIM=value_dim,
            BLOCK_ROWS=block_rows,
            BLOCK_HEAD=blocks[0],
            BLOCK_VALUE=blocks[1],
            **launch.options,
        )


@triton.jit
def _move(x, o_from, o_to, r_ok, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Copy rows `o_from` of a contiguous matrix onto its rows `o_to`."""
    o_d = tl.arange(0, BLOCK)
    x_ok = r_ok[:, None] & (o_d < WIDTH)[None, :]
    b_x = tl.load(x + o_from[:, None] * WIDTH + o_d[None, :], mask=x_ok, other=0)
    tl.store(x + o_to[:, None] * WIDTH + o_d[None, :], b_x, mask=x_ok)


@triton.jit(do_not_specialize=("moved",))
def move_kernel(
    sources,
    targets,
    k,
    v,
    moved,
    HEAD_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_HEAD: tl.constexpr,
    BLOCK_VALUE: tl.constexpr,
):
    """Move one tile of rows in both storages; grid (tiles,)."""
    o_r = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    r_ok = o_r < moved
    o_from = tl.load(sources + o_r, mask=r_ok, other=0)
    o_to = tl.load(targets + o_r, mask=r_ok, other=0)
    _move(k, o_from, o_to, r_ok, HEAD_DIM, BLOCK_HEAD)
    _move(v, o_from, o_to, r_ok, VALUE_DIM, BLOCK_VALUE)
