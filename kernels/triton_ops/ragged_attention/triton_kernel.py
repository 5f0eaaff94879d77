"""Ragged attention in Triton: split over the cached tokens, then joined.

A first kernel attends to slices of the prefix (the items of a work list) and of the tail, each
with all query heads of its group, so that a key is read once; a second joins the slices of each
KV head; a third, only if the attention mass is wanted, reads the keys again.

Reference:
    Dao, Haziza, Massa, Sizov, "Flash-Decoding for long-context inference", 2023.
    https://pytorch.org/blog/flash-decoding/ (splitting one softmax over the cached tokens).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from .prefix import Prefix
from .triton_programs import attend_kernel, join_kernel, mass_kernel

# further back than any sequence is long, so that "no window" needs no kernel of its own
_NO_WINDOW = 2**30


def ragged_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    offsets: Tensor,
    positions: Tensor,
    tail_keys: Tensor,
    tail_values: Tensor,
    tail_tokens: int,
    *,
    seen_tokens: int,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
    slopes: Tensor | None = None,
    sinks: Tensor | None = None,
    first_seen: Tensor | None = None,
    mass: Tensor | None = None,
    tail_mass: Tensor | None = None,
    prefix: Prefix | None = None,
) -> Tensor:
    """Do what the package's `ragged_attention` documents; arguments are not checked again."""
    prefix = Prefix(keys, values, offsets, positions) if prefix is None else prefix
    batch, heads, new, head_dim = queries.shape
    kv_heads, capacity = tail_keys.shape[1:3]
    value_dim = values.shape[1]
    pairs, group = batch * kv_heads, heads // kv_heads
    rows = group * new
    work = prefix.work_list(split_tokens(rows))
    queries = queries.contiguous()
    splits = triton.cdiv(tail_tokens, work.split_tokens)
    items = len(work.pair) + pairs * splits
    blocks = blocks_for(rows, head_dim, value_dim, queries.element_size())
    row_blocks = triton.cdiv(rows, blocks.rows)
    device = queries.device
    outputs = torch.empty(items, rows, value_dim, dtype=torch.float32, device=device)
    highest = torch.empty(items, rows, dtype=torch.float32, device=device)
    totals = torch.empty(items, rows, dtype=torch.float32, device=device)
    normaliser = torch.empty(pairs, rows, dtype=torch.float32, device=device)
    out = torch.empty(batch, heads, new, value_dim, dtype=queries.dtype, device=device)
    listed = (work.pair, work.start, work.end)
    sizes = (len(work.pair), splits, tail_tokens, capacity, seen_tokens, new)
    # a pointer is always passed; what is absent is never read
    lowest = queries if first_seen is None else first_seen.to(torch.int32)
    biases = (queries if slopes is None else slopes, lowest)
    rule = (_NO_WINDOW if window is None else window, float(scaling), float(softcap or 1.0))
    shape = {
        "KV_HEADS": kv_heads,
        "GROUP": group,
        "SPLIT": work.split_tokens,
        "HEAD_DIM": head_dim,
        "HAS_SOFTCAP": softcap is not None,
        "HAS_SLOPES": slopes is not None,
        "HAS_FIRST_SEEN": first_seen is not None,
        "BLOCK_ROWS": blocks.rows,
        "BLOCK_TOKENS": blocks.tokens,
        "BLOCK_HEAD": blocks.head,
    }
    value_shape = {"VALUE_DIM": value_dim, "BLOCK_VALUE": blocks.value}
    # named, because Triton warns where it is left to the default
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages, "enable_fp_fusion": True}
    with torch.cuda.device_of(queries):
        if items:
            attend_kernel[(items, row_blocks)](
                *(queries, keys, values, positions, tail_keys, tail_values, *listed),
                *biases,
                *(outputs, highest, totals, *sizes, *rule),
                **shape,
                **value_shape,
                **options,
            )
        join_kernel[(pairs, row_blocks)](
            *(outputs, highest, totals, work.first, queries if sinks is None else sinks),
            *(out, normaliser, len(work.pair), splits, new),
            KV_HEADS=kv_heads,
            GROUP=group,
            HAS_SINKS=sinks is not None,
            BLOCK_ROWS=blocks.rows,
            **value_shape,
            **options,
        )
        if items and (mass is not None or tail_mass is not None):
            if mass is None:
                mass = torch.zeros(len(keys), dtype=torch.float32, device=device)
            if tail_mass is None:
                tail_mass = torch.zeros(pairs, capacity, dtype=torch.float32, device=device)
            mass_kernel[(items,)](
                *(queries, keys, positions, tail_keys, *listed, *biases),
                *(normaliser, mass, tail_mass),
                *(*sizes, *rule),
                **shape,
                **options,
            )
    return out


class Blocks(NamedTuple):
    """Tile sizes and launch options of one call."""

    rows: int
    tokens: int
    head: int
    value: int
    warps: int = 4
    stages: int = 2


def blocks_for(rows: int, head_dim: int, value_dim: int, element_bytes: int) -> Blocks:
    """Choose tiles that fit the 99 KiB of shared memory every GPU since sm_80 has.

    Args:
        rows: Query rows of one KV head, its group times the new tokens.
        head_dim: Width of a key.
        value_dim: Width of a value.
        element_bytes: Bytes of an element of keys and values.
    """
    head, value = (max(16, int(triton.next_power_of_2(x))) for x in (head_dim, value_dim))
    # float32 products run without tensor cores: wider tiles would only spill registers
    most_rows = 64 if element_bytes == 2 else 16
    block_rows = min(most_rows, max(16, int(triton.next_power_of_2(rows))))
    widest_bytes = 256 if block_rows > 32 else 512
    tokens = 64 if max(head, value) * element_bytes <= widest_bytes else 32
    return Blocks(block_rows, tokens, head, value)


def split_tokens(rows: int) -> int:
    """Choose how many cached tokens one program attends to.

    Few query rows leave a GPU idle unless the tokens are split; every split costs a copy of the
    rows' outputs, so slices grow with the rows.
    """
    return 256 * int(triton.cdiv(rows, 64))
