"""Calls of attention sums whose launches `test_compile.py` compiles for real GPUs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

# many tokens for few rows, so that the splits are joined
TOKENS = 4000
HALF = {"dtype": torch.bfloat16, "group": 4, "head_dim": 128}


def add_up(
    *,
    dtype: torch.dtype = torch.float32,
    group: int = 1,
    new: int = 32,
    head_dim: int = 128,
    window: int | None = None,
    softcap: float | None = None,
    sinks: bool = False,
    slopes: bool = False,
) -> None:
    from kvbudget.kernels.attention_sums import triton_kernel

    kv_heads = 2
    heads = kv_heads * group
    triton_kernel.attention_sums(
        torch.zeros(1, heads, new, head_dim, dtype=dtype),
        torch.zeros(1, 1, 1, head_dim, dtype=dtype).expand(1, kv_heads, TOKENS, head_dim),
        torch.ones(1, kv_heads, TOKENS, dtype=torch.bool),
        torch.arange(TOKENS).expand(1, kv_heads, TOKENS),
        torch.arange(TOKENS - new, TOKENS),
        scaling=0.1,
        window=window,
        softcap=softcap,
        sinks=torch.zeros(heads, dtype=dtype) if sinks else None,
        slopes=torch.zeros(heads) if slopes else None,
    )


CALLS: dict[str, Callable[[], object]] = {
    "last queries": partial(add_up, **HALF),
    "one query": partial(add_up, **HALF, new=1),
    "prompt": partial(add_up, **HALF, new=2000),
    "prompt, sinks": partial(
        add_up, dtype=torch.float16, group=8, head_dim=64, new=300, sinks=True
    ),
    "prompt, wide, softcap": partial(
        add_up, **HALF | {"head_dim": 256}, new=300, softcap=50.0, window=100
    ),
    "prompt, slopes": partial(add_up, **HALF | {"head_dim": 80}, new=300, slopes=True),
    "latent": partial(add_up, **HALF | {"head_dim": 576, "group": 16}),
    "float32": partial(add_up, group=4),
    "float32, wide": partial(add_up, group=4, head_dim=256),
    "float32, latent": partial(add_up, group=4, head_dim=576),
}
