"""Calls of the softmax at levels whose launches `test_compile.py` compiles for real GPUs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

HALF = {"dtype": torch.bfloat16, "group": 4, "head_dim": 128}


def cut(
    *,
    dtype: torch.dtype = torch.float32,
    group: int = 1,
    new: int = 64,
    head_dim: int = 128,
    value_dim: int | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: bool = False,
    slopes: bool = False,
) -> None:
    from kvbudget.kernels.level_softmax import Future, triton_kernel

    value_dim = head_dim if value_dim is None else value_dim
    kv_heads, context = 2, 40
    heads = kv_heads * group
    triton_kernel.level_softmax(
        torch.zeros(heads, new, head_dim, dtype=dtype),
        torch.arange(new),
        torch.zeros(kv_heads, context, head_dim, dtype=dtype),
        torch.zeros(kv_heads, context, value_dim, dtype=dtype),
        torch.zeros(kv_heads, context, dtype=torch.int64),
        Future(
            torch.zeros(kv_heads, new, head_dim, dtype=dtype),
            torch.zeros(kv_heads, new, value_dim, dtype=dtype),
            torch.arange(new),
        ),
        (0, 20, 20, 40),
        scaling=0.1,
        window=window,
        softcap=softcap,
        sinks=torch.zeros(heads, dtype=dtype) if sinks else None,
        slopes=torch.zeros(heads) if slopes else None,
    )


CALLS: dict[str, Callable[[], object]] = {
    "half": partial(cut, **HALF),
    "half, sinks": partial(cut, dtype=torch.float16, group=8, head_dim=64, sinks=True),
    "half, wide, softcap": partial(cut, **HALF | {"head_dim": 256}, softcap=50.0, window=100),
    "half, slopes": partial(cut, **HALF | {"head_dim": 80}, slopes=True),
    "latent": partial(cut, **HALF | {"head_dim": 576, "group": 16}, value_dim=512),
    "float32": partial(cut, group=3, new=7),
    "float32, wide": partial(cut, group=4, head_dim=256),
    "float32, latent": partial(cut, group=4, head_dim=576, value_dim=512),
}
