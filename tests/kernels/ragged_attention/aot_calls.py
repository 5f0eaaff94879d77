"""Calls of ragged attention whose launches `test_compile.py` compiles for real GPUs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

HALF = {"dtype": torch.bfloat16, "group": 4, "head_dim": 128}


def attend(
    *,
    dtype: torch.dtype = torch.float32,
    group: int = 1,
    new: int = 1,
    head_dim: int = 128,
    value_dim: int | None = None,
    mass: bool = True,
    lengths: bool = False,
    window: int | None = None,
    softcap: float | None = None,
    slopes: bool = False,
    sinks: bool = False,
    first_seen: bool = False,
) -> None:
    from kvbudget.kernels.ragged_attention import triton_kernel

    value_dim = head_dim if value_dim is None else value_dim
    rows, kv_heads, capacity = 40, 2, 8
    heads = kv_heads * group
    triton_kernel.ragged_attention(
        torch.zeros(1, heads, new, head_dim, dtype=dtype),
        torch.zeros(rows, head_dim, dtype=dtype),
        torch.zeros(rows, value_dim, dtype=dtype),
        torch.tensor([0, 30, 40]),
        torch.zeros(rows, dtype=torch.int32),
        torch.zeros(1, kv_heads, capacity, head_dim, dtype=dtype),
        torch.zeros(1, kv_heads, capacity, value_dim, dtype=dtype),
        1,
        seen_tokens=new + 50,
        scaling=0.1,
        window=window,
        softcap=softcap,
        slopes=torch.zeros(heads) if slopes else None,
        sinks=torch.zeros(heads, dtype=dtype) if sinks else None,
        first_seen=torch.zeros(1, new, dtype=torch.int64) if first_seen else None,
        mass=torch.zeros(rows) if mass else None,
        tail_mass=torch.zeros(1, kv_heads, capacity) if mass else None,
        lengths=torch.tensor([1, new + 50], dtype=torch.int32) if lengths else None,
    )


CALLS: dict[str, Callable[[], object]] = {
    "decode": partial(attend, **HALF, lengths=True),
    "decode, no mass": partial(attend, **HALF, mass=False),
    "decode, sinks": partial(
        attend, dtype=torch.float16, group=8, head_dim=64, sinks=True, mass=False
    ),
    "decode, slopes and bounds": partial(attend, **HALF, slopes=True, first_seen=True),
    "decode, softcap": partial(attend, **HALF | {"head_dim": 256}, softcap=50.0),
    "decode, two tiles": partial(attend, **HALF | {"head_dim": 192}, value_dim=128),
    "drafts": partial(attend, **HALF, new=5, lengths=True),
    "prompt": partial(attend, **HALF, new=64),
    "prompt, slopes and bounds": partial(attend, **HALF, new=64, slopes=True, first_seen=True),
    "prompt, wide, softcap": partial(attend, **HALF | {"head_dim": 256}, new=64, softcap=50.0),
    "latent, few rows": partial(
        attend, dtype=torch.bfloat16, group=16, head_dim=576, value_dim=512
    ),
    "latent, many rows": partial(
        attend, dtype=torch.bfloat16, group=128, head_dim=576, value_dim=512
    ),
    "float32": partial(attend, group=4),
    "float32, wide": partial(attend, group=4, head_dim=256, new=16),
    "float32, narrow": partial(attend, head_dim=32, mass=False),
}
