"""The largest scores of every row, each row as many as it is told."""

from __future__ import annotations

import torch
from torch import Tensor

from ..available import triton_is_installed
from . import reference

__all__ = ["select_top"]


def select_top(scores: Tensor, counts: Tensor) -> Tensor:
    """Mark the largest scores of every row, of equal ones the first.

    On a GPU nothing waits for the device: the counts are read there.

    Args:
        scores: [rows, tokens], float32 or int32, any strides. Minus infinity is the lowest score
            and may be taken, -0.0 equals 0.0, and NaN is not allowed (which is not checked).
        counts: How many to mark in each row, int64 [rows], at least 0. Above `tokens` it means
            all of them.

    Returns:
        Marks, bool [rows, tokens], contiguous; row `r` has `min(counts[r], tokens)` of them.

    Raises:
        TypeError: If a dtype is wrong or the tensors lie on different devices.
        ValueError: If a shape is wrong.
    """
    _check(scores, counts)
    if scores.is_cuda and triton_is_installed():
        # only here, so that machines without a GPU need no triton
        from .triton_kernel import select_top as implementation
    else:
        implementation = reference.select_top
    return implementation(scores, counts)


def _check(scores: Tensor, counts: Tensor) -> None:
    if scores.dim() != 2 or counts.shape != scores.shape[:1]:
        raise ValueError(
            f"`scores` and `counts` must have the shapes [rows, tokens] and [rows], but got "
            f"{tuple(scores.shape)} and {tuple(counts.shape)}."
        )
    if scores.dtype not in (torch.float32, torch.int32):
        raise TypeError(f"`scores` must be float32 or int32, but got {scores.dtype}.")
    if counts.dtype != torch.int64:
        raise TypeError(f"`counts` must be int64, but got {counts.dtype}.")
    if counts.device != scores.device:
        raise TypeError(
            f"`counts` must lie where `scores` do, on {scores.device}, but got {counts.device}."
        )
