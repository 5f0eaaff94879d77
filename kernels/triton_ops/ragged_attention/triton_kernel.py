"""Ragged attention in Triton: split over the cached tokens, then joined.

A first kernel attends to slices of the prefix (the items of a work list) and of the tail, each
with all query heads of its group, so that a key is read once; a second joins the slices of each
query row. Only if the attention mass is wanted there is a third: of few rows the first one noted
its logits, which are shared out by the final normaliser; of many rows the keys are read again.

Reference:
    Dao, Haziza, Massa, Sizov, "Flash-Decoding for long-context inference", 2023.
    https://pytorch.org/blog/flash-decoding/ (splitting one softmax over the cached tokens).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ..launches import Launch, Program, launch_for
from ..triton_tiles import block_of
from .prefix import Prefix
from .triton_joining import join_kernel, share_kernel
from .triton_programs import attend_kernel, mass_kernel

# further back than any sequence is long, so that "no window" needs no kernel of its own
_NO_WINDOW = 2**30
# of more rows, noting all logits would move more bytes than the keys have
_MOST_NOTED_ROWS = 16
# a shorter slice costs more to join than it gains
_LEAST_SPLIT_TOKENS = 64
# the tiles of a slice are an axis of a grid
_MOST_SPLIT_TOKENS = 2**16


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
    ends: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """Do what the package's `ragged_attention` documents; arguments are not checked again."""
    prefix = Prefix(keys, values, offsets, positions, ends) if prefix is None else prefix
    batch, heads, new, head_dim = queries.shape
    kv_heads, capacity = tail_keys.shape[1:3]
    (stored_rows, value_dim), device = values.shape, queries.device
    pairs, group = batch * kv_heads, heads // kv_heads
    rows = group * new
    launch = launch_for(program_for(rows, head_dim, value_dim, queries.element_size()), device)
    block_rows = min(launch.rows, block_of(rows))
    split = split_tokens(launch, rows, stored_rows, device)
    work = prefix.work_list(split)
    # the device may hold more of the tail than the host knows of, but never more than fits
    splits = _parts(tail_tokens if lengths is None else capacity, split)
    programs = work.capacity + pairs * splits
    queries = queries.contiguous()
    wants_mass = mass is not None or tail_mass is not None
    notes = wants_mass and rows <= _MOST_NOTED_ROWS
    width = stored_rows + pairs * capacity if notes else 0

    def empty(*shape: int) -> Tensor:
        return torch.empty(*shape, dtype=torch.float32, device=device)

    partial = (empty(programs, rows, value_dim), empty(programs, rows), empty(programs, rows))
    normaliser, noted = empty(pairs, rows), empty(rows, width)
    out = torch.empty(batch, heads, new, value_dim, dtype=queries.dtype, device=device)
    # a pointer is always passed; what is absent is never read
    known = work.first if lengths is None else lengths
    lowest = queries if first_seen is None else first_seen.to(torch.int32)
    biases = (queries if slopes is None else slopes, lowest)
    listed = (work.pair, work.start, work.end, known)
    amount = (work.capacity, split, splits, tail_tokens, capacity)
    sizes = (*amount, seen_tokens, new, _NO_WINDOW if window is None else window)
    factors = (float(scaling), float(softcap or 1.0))
    told = {"GROUP": group, "HAS_LENGTHS": lengths is not None}
    head, rest = pieces(head_dim)
    shape = {
        "KV_HEADS": kv_heads,
        "HEAD_DIM": head_dim,
        "HAS_SOFTCAP": softcap is not None,
        "HAS_SLOPES": slopes is not None,
        "HAS_FIRST_SEEN": first_seen is not None,
        "BLOCK_ROWS": block_rows,
        "BLOCK_TOKENS": launch.tokens,
        "BLOCK_HEAD": head,
        "BLOCK_REST": rest,
        **told,
    }
    value_shape = {"VALUE_DIM": value_dim, "BLOCK_VALUE": block_of(value_dim)}
    wanted = {"HAS_MASS": mass is not None, "HAS_TAIL_MASS": tail_mass is not None}
    masses = (normaliser if mass is None else mass, normaliser if tail_mass is None else tail_mass)
    with torch.cuda.device_of(queries):
        if programs:
            attend_kernel[(programs, _parts(rows, block_rows))](
                *(queries, keys, values, positions, tail_keys, tail_values, *listed, *biases),
                *(*partial, noted, pairs, *sizes, stored_rows, *factors),
                NOTES=notes,
                **shape,
                **value_shape,
                **launch.options,
            )
        joining = launch_for(Program.JOIN, device)
        join_kernel[(pairs * rows,)](
            *(*partial, work.first, known, queries if sinks is None else sinks),
            *(out, normaliser, work.capacity, split, splits, tail_tokens, new),
            KV_HEADS=kv_heads,
            HAS_SINKS=sinks is not None,
            BLOCK_SLICES=joining.rows,
            **told,
            **value_shape,
            **joining.options,
        )
        if programs and notes:
            sharing = launch_for(Program.SHARE, device)
            share_kernel[(programs,)](
                *(noted, normaliser, *listed, *masses, pairs, *amount, new, stored_rows),
                BLOCK_ROWS=block_rows,
                BLOCK_TOKENS=sharing.tokens,
                **told,
                **wanted,
                **sharing.options,
            )
        elif programs and wants_mass:
            mass_kernel[(programs, _parts(split, launch.tokens))](
                *(queries, keys, positions, tail_keys, *listed, *biases, normaliser, *masses),
                *(*sizes, *factors),
                **shape,
                **wanted,
                **launch.options,
            )
    return out


def program_for(rows: int, head_dim: int, value_dim: int, element_bytes: int) -> Program:
    """Which row of the table of launches a call takes.

    Args:
        rows: Query rows of one KV head, its group times the new tokens.
        head_dim: Width of a key.
        value_dim: Width of a value.
        element_bytes: Bytes of an element of keys and values.
    """
    widest = max(head_dim, value_dim)
    if element_bytes > 2:
        return Program.ATTEND_FLOAT32
    if widest > 256:
        return Program.ATTEND_LATENT
    if rows <= 16:
        return Program.ATTEND_FEW if widest <= 128 else Program.ATTEND_FEW_WIDE
    return Program.ATTEND_MANY if widest <= 128 else Program.ATTEND_MANY_WIDE


def pieces(head_dim: int) -> tuple[int, int]:
    """Columns of the one or two tiles that a key is read in, where two waste less than one.

    The second is 0 if one is enough: 128 is (128, 0), 96 is (64, 32), 576 is (512, 64).
    """
    whole = block_of(head_dim)
    rest = block_of(head_dim - whole // 2) if head_dim < whole else whole
    return (whole // 2, rest) if whole // 2 + rest < whole else (whole, 0)


def split_tokens(launch: Launch, rows: int, stored_rows: int, device: torch.device) -> int:
    """Choose how many cached tokens one program attends to.

    Few query rows leave a GPU idle unless the tokens are split; every split costs a copy of the
    rows' outputs, so slices grow with the rows. The same for all calls over a storage.
    """
    split = min(_MOST_SPLIT_TOKENS, launch.split_tokens * _parts(rows, 64))
    blocks = _parts(rows, launch.rows)
    while split > _LEAST_SPLIT_TOKENS and stored_rows * blocks < split * _processors(device):
        split //= 2
    return split


def _parts(whole: int, part: int) -> int:
    """In how many parts of a size something can be cut."""
    return -(-whole // part)


@cache
def _processors(device: torch.device) -> int:
    """Programs that a device runs beside each other; none in the interpreter."""
    if device.type != "cuda":
        return 0
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count
