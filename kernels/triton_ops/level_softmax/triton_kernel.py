"""The softmax at levels in Triton: pieces of the context by themselves, then joined level by level.

No piece crosses a level, so the state of a level is that of the one before and its own pieces; a
program that walks over all tokens would leave a GPU idle, and one for each level would read the
first tokens again for every level.

Reference:
    Dao, Haziza, Massa, Sizov, "Flash-Decoding for long-context inference", 2023.
    https://pytorch.org/blog/flash-decoding/ (splitting one softmax over the tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain, pairwise

import torch
import triton
from torch import Tensor

from ..launches import Launch, Program, launch_for
from ..triton_tiles import block_of
from .states import Future, LevelStates, empty_states
from .triton_programs import level_kernel, piece_kernel

# further back than any sequence is long, so that "no window" needs no kernel of its own
_NO_WINDOW = 2**30
# more of a tile of keys, of values or of query rows would not fit shared memory
_TILE_BYTES = 16 * 1024
# float32 products run without tensor cores: larger tiles would only take longer to compile
_MOST_IN_FLOAT32 = 32


def level_softmax(
    queries: Tensor,
    query_positions: Tensor,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    future: Future,
    kept_tokens: Sequence[int],
    *,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    slopes: Tensor | None = None,
) -> LevelStates:
    """Do what the package's `level_softmax` documents; arguments are not checked again."""
    states = empty_states(queries, values, len(kept_tokens))
    if not kept_tokens:
        return states
    queries, query_positions = _rows_whole(queries), query_positions.contiguous()
    (heads, new, head_dim), (kv_heads, _, value_dim) = queries.shape, values.shape
    group, device = heads // kv_heads, queries.device
    rows = group * new
    block_head = 64 if head_dim > 256 else block_of(head_dim)
    block_value = block_of(value_dim)
    launch = launch_for(Program.LEVELS, device)
    launch = _fitted(launch, rows, max(block_head, block_value), queries.element_size())
    behind, *levels = _pieces(len(future.positions), kept_tokens, launch.split_tokens)
    pieces = [*behind, *(piece for level in levels for piece in level)]
    # what all levels see belongs to the first
    firsts = [0, *accumulate(map(len, levels), initial=len(behind))]
    del firsts[1]
    starts, ends, first_pieces = _uploaded(
        [start for start, _ in pieces], [end for _, end in pieces], firsts, device=device
    )
    # each by itself: the second half of one would be aligned at some sizes only
    partial = (len(pieces), kv_heads, rows)
    tops, totals = (torch.empty(partial, dtype=torch.float32, device=device) for _ in range(2))
    outputs = torch.empty(*partial, value_dim, dtype=torch.float32, device=device)
    row_blocks = triton.cdiv(rows, launch.rows)
    # a pointer is always passed; what is absent is never read
    slope = queries if slopes is None else slopes.contiguous()
    sink = queries if sinks is None else sinks.contiguous()
    rule = (_NO_WINDOW if window is None else window, float(scaling), float(softcap or 1.0))
    sources = (
        (future.keys, future.values, future.positions.expand(kv_heads, -1), 0, len(behind)),
        (keys, values, positions, len(behind), len(pieces) - len(behind)),
    )
    shape = {"GROUP": group, "VALUE_DIM": value_dim, "BLOCK_VALUE": block_value}
    with torch.cuda.device_of(queries):
        for source_keys, source_values, places, first, count in sources:
            if not count:
                continue
            k, v = _rows_whole(source_keys), _rows_whole(source_values)
            strides = (x.stride()[:2] for x in (queries, k, v, places))
            piece_kernel[(row_blocks, kv_heads, count)](
                *(queries, k, v, places, query_positions, starts, ends, slope),
                *(tops, totals, outputs),
                *(*chain.from_iterable(strides), first, new, *rule),
                **shape,
                HEAD_DIM=head_dim,
                HAS_SOFTCAP=softcap is not None,
                HAS_SLOPES=slopes is not None,
                BLOCK_ROWS=launch.rows,
                BLOCK_TOKENS=launch.tokens,
                BLOCK_HEAD=block_head,
                **launch.options,
            )
        level_kernel[(row_blocks, kv_heads)](
            *(tops, totals, outputs, first_pieces, sink),
            *(*states, len(kept_tokens), new),
            **shape,
            HAS_SINKS=sinks is not None,
            BLOCK_ROWS=launch.rows,
            **launch.options,
        )
    return states


def _pieces(future: int, kept_tokens: Sequence[int], most: int) -> list[list[tuple[int, int]]]:
    """Pieces of the future, then those of the context between each level and the one before."""
    parts = [(0, future), *pairwise((0, *kept_tokens))]
    return [
        [(at, min(at + most, stop)) for at in range(start, stop, most)] for start, stop in parts
    ]


def _uploaded(*lists: list[int], device: torch.device) -> tuple[Tensor, ...]:
    """Lists of numbers on a device, int32, in one copy that the host does not wait for."""
    # only from pinned memory a GPU copies by itself
    numbers = torch.tensor(
        [*chain.from_iterable(lists)], dtype=torch.int32, pin_memory=device.type == "cuda"
    )
    parts: tuple[Tensor, ...] = numbers.to(device, non_blocking=True).split([*map(len, lists)])
    return parts


def _rows_whole(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _fitted(launch: Launch, rows: int, width: int, element_bytes: int) -> Launch:
    """Tiles no larger than the call, nor than shared memory."""
    most = _MOST_IN_FLOAT32 if element_bytes == 4 else _TILE_BYTES
    most = max(16, min(most, _TILE_BYTES // (width * element_bytes)))
    block_rows = max(16, min(launch.rows, most, block_of(rows)))
    return launch._replace(rows=block_rows, tokens=min(launch.tokens, most))
