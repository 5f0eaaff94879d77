"""Calls of the moving of rows whose launches `test_compile.py` compiles for real GPUs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch


def move(dtype: torch.dtype, head_dim: int, value_dim: int) -> None:
    from kvbudget.kernels.move_rows import triton_kernel

    keys, values = torch.zeros(40, head_dim, dtype=dtype), torch.zeros(40, value_dim, dtype=dtype)
    triton_kernel.move_rows(keys, values, torch.arange(9), torch.arange(9, 18))


CALLS: dict[str, Callable[[], object]] = {
    "half": partial(move, torch.bfloat16, 128, 128),
    "half, latent": partial(move, torch.bfloat16, 576, 512),
    "float32": partial(move, torch.float32, 128, 128),
    "float64, odd": partial(move, torch.float64, 96, 40),
}
