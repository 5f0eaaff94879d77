"""What `attention_sums` demands of its arguments, and in part `level_softmax` too."""

from __future__ import annotations

import torch
from torch import Tensor


def check(
    queries: Tensor,
    keys: Tensor,
    valid: Tensor,
    positions: Tensor,
    query_positions: Tensor,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
    slopes: Tensor | None,
) -> None:
    """Check shapes, dtypes and devices; contents are not read.

    Raises:
        TypeError: If a dtype is wrong or tensors lie on different devices.
        ValueError: If a shape or a setting is wrong.
    """
    if queries.dim() != 4 or keys.dim() != 4:
        raise ValueError(
            "`queries` must be [batch, heads, new, head_dim] and `keys` [batch, kv_heads, tokens, "
            f"head_dim], but got shapes {tuple(queries.shape)} and {tuple(keys.shape)}."
        )
    batch, heads, new, head_dim = queries.shape
    kv_heads, tokens = keys.shape[1:3]
    if kv_heads < 1 or heads % kv_heads:
        raise ValueError(
            f"`queries` must have a multiple of the {kv_heads} KV heads, but got {heads} heads."
        )
    for name, tensor in (("queries", queries), ("keys", keys)):
        if not tensor.dtype.is_floating_point:
            raise TypeError(f"`{name}` must be floating point, but got {tensor.dtype}.")
    places, device = (batch, kv_heads, tokens), queries.device
    demand("keys", keys, (*places, head_dim), keys.dtype, device)
    demand("valid", valid, places, torch.bool, device)
    demand("positions", positions, places, torch.int64, device)
    demand("query_positions", query_positions, (new,), torch.int64, device)
    check_rule(heads, device, window, softcap, sinks, slopes)


def check_rule(
    heads: int,
    device: torch.device,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
    slopes: Tensor | None,
) -> None:
    """Check what says how logits become shares, for `heads` query heads on `device`.

    Raises:
        TypeError: If a dtype is wrong or a tensor lies on another device.
        ValueError: If a shape or a setting is wrong.
    """
    if sinks is not None:
        demand("sinks", sinks, (heads,), sinks.dtype, device)
    if slopes is not None:
        demand("slopes", slopes, (heads,), torch.float32, device)
    if window is not None and window < 1:
        raise ValueError(f"`window` must be at least 1, but got window={window}.")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"`softcap` must be above 0, but got softcap={softcap}.")


def demand(
    name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    """Refuse a tensor of another shape, dtype or device than it must have.

    Raises:
        TypeError: If the dtype or the device is wrong.
        ValueError: If the shape is wrong.
    """
    if tensor.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}, but got {tuple(tensor.shape)}.")
    if tensor.dtype != dtype:
        raise TypeError(f"`{name}` must be {dtype}, but got {tensor.dtype}.")
    if tensor.device != device:
        raise TypeError(f"`{name}` must lie on {device} as the others do, but got {tensor.device}.")
