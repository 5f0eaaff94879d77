"""Attention sums in Triton: the normaliser of every query row, then what each token gets.

A first program notes where the tokens stand, so that whole tiles can be passed over. A second finds
largest logit and sum of the exponentials of each query row; few rows leave a GPU idle unless the
tokens are split, and a third then joins the splits. The last reads the keys again and adds up the
rows' shares for a tile of tokens each. Nothing is added by two programs, so results repeat.

Reference:
    Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning",
    ICLR 2024. https://arxiv.org/abs/2307.08691 (a running softmax over tiles, and the shares
    made anew from it, as its backward pass does).
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ..launches import Launch, Program, launch_for
from ..triton_tiles import block_of
from .triton_programs import add_kernel, join_kernel, normalise_kernel, places_kernel

# further back than any sequence is long, so that "no window" needs no kernel of its own
_NO_WINDOW = 2**30
# about four for each multiprocessor of the largest GPUs
_ENOUGH_PROGRAMS = 512
# tiles, or queries, whose positions are looked at together
_LOOKED_AT = 256
# more of a tile of keys, or twice that of query rows, would not fit shared memory
_TILE_BYTES = 16 * 1024
# float32 products run without tensor cores: larger tiles would only take longer to compile
_MOST_IN_FLOAT32 = 32


def attention_sums(
    queries: Tensor,
    keys: Tensor,
    valid: Tensor,
    positions: Tensor,
    query_positions: Tensor,
    *,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    slopes: Tensor | None = None,
) -> Tensor:
    """Do what the package's `attention_sums` documents; arguments are not checked again."""
    queries, keys = _rows_whole(queries), _rows_whole(keys)
    query_positions = query_positions.contiguous()
    batch, heads, new, head_dim = queries.shape
    kv_heads, tokens = valid.shape[1:]
    pairs, group, device = batch * kv_heads, heads // kv_heads, queries.device
    block_head = _piece(head_dim, keys.element_size())
    sizes = (group * new, block_head, keys.element_size())
    launch = _fitted(launch_for(Program.SUMS_NORMALISE, device), *sizes)
    adding = _fitted(launch_for(Program.SUMS_ADD, device), *sizes)
    row_blocks = triton.cdiv(group * new, launch.rows)
    tiles = triton.cdiv(tokens, launch.tokens)
    split_tiles = _tiles_per_split(launch, tiles, row_blocks * pairs)
    splits = triton.cdiv(tiles, split_tiles)
    places = torch.empty(pairs, tokens, dtype=torch.int32, device=device)
    # each by itself: the second half of one would be aligned at some sizes only
    lowest, highest = (
        torch.empty(pairs, tiles, dtype=torch.int32, device=device) for _ in range(2)
    )
    partial = (splits, pairs, group * new)
    tops, totals = (torch.empty(partial, dtype=torch.float32, device=device) for _ in range(2))
    sums = torch.empty(valid.shape, dtype=torch.float32, device=device)
    strides = (*queries.stride()[:3], *keys.stride()[:3])
    rule = (_NO_WINDOW if window is None else window, float(scaling), float(softcap or 1.0))
    # a pointer is always passed; what is absent is never read
    slope = queries if slopes is None else slopes.contiguous()
    sink = queries if sinks is None else sinks.contiguous()
    shape = {
        "KV_HEADS": kv_heads,
        "GROUP": group,
        "HEAD_DIM": head_dim,
        "HAS_SOFTCAP": softcap is not None,
        "HAS_SLOPES": slopes is not None,
        "BLOCK_HEAD": block_head,
    }
    with torch.cuda.device_of(queries):
        places_kernel[(tiles, pairs)](
            *(valid, positions, places, lowest, highest),
            *(*valid.stride(), *positions.stride(), tokens, tiles),
            KV_HEADS=kv_heads,
            BLOCK_TOKENS=launch.tokens,
            **launch.options,
        )
        normalise_kernel[(row_blocks, pairs, splits)](
            *(queries, keys, places, lowest, highest, query_positions, sink, slope),
            *(tops, totals, *strides, tokens, tiles, split_tiles, new, *rule),
            **shape,
            HAS_SINKS=sinks is not None,
            BLOCK_ROWS=launch.rows,
            BLOCK_TOKENS=launch.tokens,
            BLOCK_TILES=_LOOKED_AT,
            **launch.options,
        )
        if splits > 1:
            joining = launch_for(Program.SUMS_JOIN, device)
            rows = pairs * group * new
            join_kernel[(triton.cdiv(rows, joining.rows),)](
                *(tops, totals, rows, splits), BLOCK_ROWS=joining.rows, **joining.options
            )
        add_kernel[(triton.cdiv(tokens, adding.tokens), pairs)](
            *(queries, keys, places, query_positions, slope, tops, totals, sums),
            *(*strides, tokens, new, *rule),
            **shape,
            BLOCK_ROWS=adding.rows,
            BLOCK_TOKENS=adding.tokens,
            BLOCK_QUERIES=_LOOKED_AT,
            **adding.options,
        )
    return sums


def _rows_whole(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _piece(head_dim: int, element_bytes: int) -> int:
    """Columns of rows and keys that are multiplied at once."""
    if element_bytes == 4:
        # without tensor cores, a thread would hold whole rows of a wider tile, beside registers
        return min(32, block_of(head_dim))
    return 64 if head_dim > 256 else block_of(head_dim)


def _fitted(launch: Launch, rows: int, block_head: int, element_bytes: int) -> Launch:
    """Tiles no larger than the call, nor than shared memory."""
    most = _MOST_IN_FLOAT32 if element_bytes == 4 else _TILE_BYTES
    tokens = min(launch.tokens, most, _TILE_BYTES // (block_head * element_bytes))
    fitting = min(launch.rows, most, 2 * _TILE_BYTES // (block_head * element_bytes))
    return launch._replace(rows=max(16, min(fitting, block_of(rows))), tokens=max(16, tokens))


def _tiles_per_split(launch: Launch, tiles: int, programs: int) -> int:
    """Tiles that one program works through: all, unless that makes too few programs."""
    fewest = max(1, launch.split_tokens // launch.tokens)
    return max(fewest, int(triton.cdiv(tiles, triton.cdiv(_ENOUGH_PROGRAMS, programs))))
