"""What `ragged_attention` demands of its arguments, in one place."""

from __future__ import annotations

import torch
from torch import Tensor

from .prefix import Prefix


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
    prefix: Prefix | None,
    ends: Tensor | None = None,
) -> None:
    """Check shapes, dtypes and devices of what is attended to; contents are not read.

    Raises:
        TypeError: If a dtype is wrong or tensors lie on different devices.
        ValueError: If a shape or a length is wrong.
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
    told = (kind, queries.device, batch * kv_heads, head_dim)
    if prefix is not None and not prefix.holds(keys, values, offsets, positions, ends):
        raise ValueError(
            "`prefix` must be made of the `keys`, `values`, `offsets`, `positions` and `ends` that "
            "are passed with it, but it holds others. Make a new one when one of them changes."
        )
    # the tensors of a kept prefix are checked at the first call only
    if prefix is None or prefix.checked_for != told:
        _demand("keys", keys, (rows, head_dim), kind, queries)
        _demand("values", values, (rows, value_dim), kind, queries)
        _demand("offsets", offsets, (batch * kv_heads + 1,), torch.int64, queries)
        _demand("positions", positions, (rows,), torch.int32, queries)
        if ends is not None:
            _demand("ends", ends, (batch * kv_heads,), torch.int64, queries)
    if prefix is not None:
        prefix.checked_for = told
    _demand("tail_keys", tail_keys, (batch, kv_heads, capacity, head_dim), kind, queries)
    _demand("tail_values", tail_values, (batch, kv_heads, capacity, value_dim), kind, queries)
    if not 0 <= tail_tokens <= capacity:
        raise ValueError(
            f"`tail_tokens` must be between 0 and the capacity {capacity}, but got {tail_tokens}."
        )
    if seen_tokens < max(new, tail_tokens):
        raise ValueError(
            f"`seen_tokens` must count the {new} new and the {tail_tokens} tail tokens, "
            f"but got {seen_tokens}."
        )


def check_rules(
    queries: Tensor,
    window: int | None,
    softcap: float | None,
    slopes: Tensor | None,
    sinks: Tensor | None,
    first_seen: Tensor | None,
) -> None:
    """Check what decides the logits and what is seen; `queries` are right already.

    Raises:
        TypeError: If a dtype is wrong or tensors lie on different devices.
        ValueError: If a shape or a setting is wrong.
    """
    batch, heads, new, _ = queries.shape
    if slopes is not None:
        _demand("slopes", slopes, (heads,), torch.float32, queries)
    if sinks is not None:
        _demand("sinks", sinks, (heads,), sinks.dtype, queries)
    if first_seen is not None:
        is_int32 = first_seen.dtype == torch.int32
        kind = torch.int32 if is_int32 else torch.int64
        _demand("first_seen", first_seen, (batch, new), kind, queries)
    if window is not None and window < 1:
        raise ValueError(f"`window` must be at least 1, but got window={window}.")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"`softcap` must be above 0, but got softcap={softcap}.")
    if softcap is not None and slopes is not None:
        raise ValueError(
            "`slopes` must not be given together with `softcap`: it is not settled which comes "
            "first. Leave one of them out."
        )


def check_lengths(queries: Tensor, lengths: Tensor) -> None:
    """Check the lengths that the device knows; their contents are not read.

    Raises:
        TypeError: If the dtype is wrong or they lie on another device.
        ValueError: If the shape is wrong.
    """
    _demand("lengths", lengths, (2,), torch.int32, queries)


def check_mass(
    keys: Tensor, tail_keys: Tensor, mass: Tensor | None, tail_mass: Tensor | None
) -> None:
    """Check the buffers that mass is added to; the other arguments are right already.

    Raises:
        TypeError: If a dtype is wrong or tensors lie on different devices.
        ValueError: If a shape is wrong.
    """
    if mass is not None:
        _demand("mass", mass, (len(keys),), torch.float32, keys)
    if tail_mass is not None:
        _demand("tail_mass", tail_mass, tuple(tail_keys.shape[:3]), torch.float32, keys)


def _demand(
    name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, others: Tensor
) -> None:
    if tensor.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}, but got {_shape(tensor)}.")
    if tensor.dtype != dtype:
        raise TypeError(f"`{name}` must be {dtype}, but got {tensor.dtype}.")
    if tensor.device != others.device:
        raise TypeError(
            f"`{name}` must lie on {others.device} as the others do, but got {tensor.device}."
        )
    if not tensor.is_contiguous():
        raise ValueError(
            f"`{name}` must be contiguous, but got strides {tensor.stride()}. "
            "Pass whole rows of its storage."
        )


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
