"""Calls of the gathering whose launches `test_compile.py` compiles for real GPUs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch


def gather(dtype: torch.dtype, head_dim: int, value_dim: int) -> None:
    from kvbudget.kernels.gather_kept import triton_kernel

    triton_kernel.gather_kept(
        torch.ones(1, 2, 40, dtype=torch.bool),
        torch.zeros(1, 40, 2, head_dim, dtype=dtype).transpose(1, 2),
        torch.zeros(1, 2, 40, value_dim, dtype=dtype),
        torch.zeros(80, head_dim, dtype=dtype),
        torch.zeros(80, value_dim, dtype=dtype),
        torch.tensor([0, 40]),
    )


CALLS: dict[str, Callable[[], object]] = {
    "half": partial(gather, torch.bfloat16, 128, 128),
    "half, latent": partial(gather, torch.bfloat16, 576, 512),
    "float32": partial(gather, torch.float32, 128, 128),
    "float64, odd": partial(gather, torch.float64, 96, 40),
}
