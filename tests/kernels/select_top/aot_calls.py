"""Calls of the selection whose launches `test_compile.py` compiles for real GPUs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch


def select(dtype: torch.dtype) -> None:
    from kvbudget.kernels.select_top import triton_kernel

    triton_kernel.select_top(torch.zeros(2, 50, dtype=dtype), torch.tensor([3, 50]))


CALLS: dict[str, Callable[[], object]] = {
    "float32": partial(select, torch.float32),
    "int32": partial(select, torch.int32),
}
