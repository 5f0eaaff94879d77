"""What `ragged_attention` demands of its arguments, in one place."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def check(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    offsets: Tensor,
    positions: Tensor,
    tail_keys: Tensor,
    tail_values: Tensor,
    tail_tokens: int,
    seen_tokens: int,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
    mass: Tensor | None,
    tail_mass: Tensor | None,
) -> None:
    """Check shapes, dtypes, devices and settings; contents of tensors are not read.

    Raises:
        TypeError: If a dtype is wrong or tensors lie on different devices.
        ValueError: If a shape, a length or a setting is wrong.
    """
    if queries.dim() != 4 or tail_keys.dim() != 4 or values.dim() != 2:
        raise ValueError(
            f"`queries` and `tail_keys` must have 4 axes and `values` 2, but got shapes "
            f"{_shape(queries)}, {_shape(tail_keys)} and {_shape(values)}."
        )
    batch, heads, new, head_dim = queries.shape
    if new < 1:
        raise ValueError("`queries` must hold at least 1 new token, but got 0.")
    kv_heads, capacity = tail_keys.shape[1:3]
    rows, value_dim = values.shape
    if kv_heads < 1 or heads % kv_heads:
        raise ValueError(
            f"`queries` must have a multiple of the {kv_heads} KV heads, but got {heads} heads."
        )
    kind = queries.dtype
    if not kind.is_floating_point:
        raise TypeError(f"`queries` must be floating point, but got {kind}.")
    _demand("keys", keys, (rows, head_dim), kind, queries)
    _demand("values", values, (rows, value_dim), kind, queries)
    _demand("offsets", offsets, (batch * kv_heads + 1,), torch.int64, queries)
    _demand("positions", positions, (rows,), torch.int32, queries)
    _demand("tail_keys", tail_keys, (batch, kv_heads, capacity, head_dim), kind, queries)
    _demand("tail_values", tail_values, (batch, kv_heads, capacity, value_dim), kind, queries)
    if sinks is not None:
        _demand("sinks", sinks, (heads,), sinks.dtype, queries)
    if mass is not None:
        _demand("mass", mass, (rows,), torch.float32, queries)
    if tail_mass is not None:
        _demand("tail_mass", tail_mass, (batch, kv_heads, capacity), torch.float32, queries)
    if not 0 <= tail_tokens <= capacity:
        raise ValueError(
            f"`tail_tokens` must be between 0 and the capacity {capacity}, but got {tail_tokens}."
        )
    if seen_tokens < max(new, tail_tokens):
        raise ValueError(
            f"`seen_tokens` must count the {new} new and the {tail_tokens} tail tokens, "
            f"but got {seen_tokens}."
        )
    if window is not None and window < 1:
        raise ValueError(f"`window` must be at least 1, but got window={window}.")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"`softcap` must be above 0, but got softcap={softcap}.")


def _demand(
    name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, queries: Tensor
) -> None:
    if tensor.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}, but got {_shape(tensor)}.")
    if tensor.dtype != dtype:
        raise TypeError(f"`{name}` must be {dtype}, but got {tensor.dtype}.")
    if tensor.device != queries.device:
        raise TypeError(
            f"`{name}` must lie on {queries.device} as `queries` do, but got {tensor.device}."
        )
    if not tensor.is_contiguous():
        raise ValueError(
            f"`{name}` must be contiguous, but got strides {tensor.stride()}. "
            "Pass the whole storage."
        )


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def segment_bounds(offsets: Tensor, rows: int) -> list[int]:
    """Read `offsets` to the host and check them.

    Raises:
        ValueError: If they do not start at 0, fall, or end beyond `rows`.
    """
    bounds: list[int] = offsets.tolist()
    if bounds[0] != 0 or bounds[-1] > rows or any(a > b for a, b in pairwise(bounds)):
        raise ValueError(
            f"`offsets` must rise from 0 to at most the {rows} rows of `keys`, but got {bounds}."
        )
    return bounds
