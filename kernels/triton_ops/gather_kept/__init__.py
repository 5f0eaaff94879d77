"""The kept rows of a rectangle of tokens, written back to back."""

from __future__ import annotations

import torch
from torch import Tensor

from ..available import triton_is_installed
from . import reference

__all__ = ["gather_kept"]


def gather_kept(
    keep: Tensor,
    keys: Tensor,
    values: Tensor,
    out_keys: Tensor,
    out_values: Tensor,
    starts: Tensor,
) -> None:
    """Write the kept tokens of every sequence and KV head into flat storage, in their order.

    The kept tokens of pair `p = b * kv_heads + h` go to the rows `starts[p]`, `starts[p] + 1`,
    and so on, of `out_keys` and `out_values`; no other row is touched. That these rows exist, and
    that no two pairs claim the same, is not checked. On a GPU nothing waits for the device, and no
    copy of keys or values is made beside.

    Args:
        keep: Which tokens to write, bool [batch, kv_heads, tokens], any strides.
        keys: [batch, kv_heads, tokens, head_dim], any strides.
        values: [batch, kv_heads, tokens, value_dim], any strides.
        out_keys: [rows, head_dim], contiguous, dtype of `keys`; written in place.
        out_values: [rows, value_dim], contiguous, dtype of `values`; written in place.
        starts: First row of each pair, int64 [batch * kv_heads].

    Raises:
        TypeError: If a dtype is wrong or tensors lie on different devices.
        ValueError: If a shape is wrong or an output is not contiguous.
    """
    _check(keep, keys, values, out_keys, out_values, starts)
    if keep.is_cuda and triton_is_installed():
        # only here, so that machines without a GPU need no triton
        from .triton_kernel import gather_kept as implementation
    else:
        implementation = reference.gather_kept
    with torch.no_grad():
        implementation(keep, keys, values, out_keys, out_values, starts)


def _check(
    keep: Tensor,
    keys: Tensor,
    values: Tensor,
    out_keys: Tensor,
    out_values: Tensor,
    starts: Tensor,
) -> None:
    if keep.dim() != 3 or keys.shape[:-1] != keep.shape or values.shape[:-1] != keep.shape:
        raise ValueError(
            f"`keep`, `keys` and `values` must share the axes [batch, kv_heads, tokens], but got "
            f"shapes {tuple(keep.shape)}, {tuple(keys.shape)} and {tuple(values.shape)}."
        )
    if keep.dtype != torch.bool or starts.dtype != torch.int64:
        raise TypeError(
            f"`keep` must be bool and `starts` int64, but got {keep.dtype} and {starts.dtype}."
        )
    if starts.shape != (keep.shape[0] * keep.shape[1],):
        raise ValueError(
            f"`starts` must have the shape [batch * kv_heads], here "
            f"({keep.shape[0] * keep.shape[1]},), but got {tuple(starts.shape)}."
        )
    _check_output("keys", keys, out_keys)
    _check_output("values", values, out_values)
    if any(x.device != keep.device for x in (keys, values, out_keys, out_values, starts)):
        raise TypeError("All tensors of `gather_kept` must lie on one device, but got several.")


def _check_output(name: str, tokens: Tensor, out: Tensor) -> None:
    if out.dim() != 2 or out.shape[1] != tokens.shape[3] or not out.is_contiguous():
        raise ValueError(
            f"`out_{name}` must be contiguous, [rows, {tokens.shape[3]}], but got shape "
            f"{tuple(out.shape)} and strides {out.stride()}."
        )
    if out.dtype != tokens.dtype:
        raise TypeError(f"`out_{name}` must be {tokens.dtype} as `{name}`, but got {out.dtype}.")
