"""Rows of keys and values moved to other places of the same storage."""

from __future__ import annotations

import torch
from torch import Tensor

from ..available import triton_is_installed
from . import reference

__all__ = ["move_rows"]


def move_rows(keys: Tensor, values: Tensor, sources: Tensor, targets: Tensor) -> None:
    """Copy row `sources[i]` onto row `targets[i]` in both storages, in place.

    No row may be both a source and a target, and no target may be named twice, which is not
    checked; then all rows can move at once, and nothing is copied beside but, on the CPU, a few
    of them at a time. On a GPU nothing waits for the device.

    Args:
        keys: [rows, head_dim], contiguous, any dtype; written in place.
        values: [rows, value_dim], contiguous, any dtype; written in place.
        sources: Rows to copy, int64 [moved].
        targets: Where each of them goes, int64 [moved].

    Raises:
        TypeError: If a dtype is wrong or tensors lie on different devices.
        ValueError: If a shape is wrong or a storage is not contiguous.
    """
    _check(keys, values, sources, targets)
    if keys.is_cuda and triton_is_installed():
        # only here, so that machines without a GPU need no triton
        from .triton_kernel import move_rows as implementation
    else:
        implementation = reference.move_rows
    implementation(keys, values, sources, targets)


def _check(keys: Tensor, values: Tensor, sources: Tensor, targets: Tensor) -> None:
    if keys.dim() != 2 or values.dim() != 2 or len(keys) != len(values):
        raise ValueError(
            f"`keys` and `values` must have the shapes [rows, head_dim] and [rows, value_dim], "
            f"but got {tuple(keys.shape)} and {tuple(values.shape)}."
        )
    if not (keys.is_contiguous() and values.is_contiguous()):
        raise ValueError(
            f"`keys` and `values` must be contiguous, but got strides {keys.stride()} and "
            f"{values.stride()}."
        )
    if sources.dim() != 1 or sources.shape != targets.shape:
        raise ValueError(
            f"`sources` and `targets` must share the shape [moved], but got "
            f"{tuple(sources.shape)} and {tuple(targets.shape)}."
        )
    if sources.dtype != torch.int64 or targets.dtype != torch.int64:
        raise TypeError(
            f"`sources` and `targets` must be int64, but got {sources.dtype} and {targets.dtype}."
        )
    if not keys.device == values.device == sources.device == targets.device:
        raise TypeError("All tensors of `move_rows` must lie on one device, but got several.")
