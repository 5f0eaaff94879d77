"""Attention that each token gets from some queries, summed over them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..available import triton_is_installed
from . import reference
from .arguments import check

__all__ = ["attention_sums"]


def attention_sums(
    queries: Tensor,
    keys: Tensor,
    valid: Tensor,
    positions: Tensor,
    query_positions: Tensor,
    *,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    slopes: Tensor | None = None,
) -> Tensor:
    """Sum the attention that each token gets over the queries; average it over the group.

    Query head `j` reads KV head `j // group`, where `group = heads // kv_heads`. A query sees the
    valid tokens at its own position and before, no further back than `window` positions (its own
    included). A logit `s = scaling * (q . k)` becomes `c * tanh(s / c)` with softcap `c`; a slope
    then adds `slope * (key position - query position)`. A sink takes its share of each softmax. A
    query that sees nothing gives nothing.

    Products, sums and softmax are taken in float32. Neither here nor on a GPU is there ever an
    array of queries by tokens: memory is linear in both. All tensors may have any strides. No
    gradient flows back.

    Args:
        queries: [batch, heads, new, head_dim], any floating dtype.
        keys: [batch, kv_heads, tokens, head_dim], any floating dtype; what stands at empty places
            may be NaN.
        valid: Which places hold a token, bool [batch, kv_heads, tokens].
        positions: Column of each token in its sequence, int64 [batch, kv_heads, tokens]. It counts
            at valid places only, and is below 2 ** 31 - 1 there.
        query_positions: Columns of the queries, int64 [new], from 0 to below 2 ** 31 - 1.
        scaling: Factor on the products of queries and keys.
        window: Sliding window in tokens; None is full attention.
        softcap: Bound on the absolute logit; None is no bound.
        sinks: Learned sink logit of each query head, [heads].
        slopes: Linear bias (ALiBi) of each query head, float32 [heads].

    Returns:
        Attention received, float32 [batch, kv_heads, tokens], contiguous; 0 at empty places.

    Raises:
        TypeError: If a dtype is wrong or tensors lie on different devices.
        ValueError: If a shape or a setting is wrong.
    """
    tensors = (queries, keys, valid, positions, query_positions)
    check(*tensors, window, softcap, sinks, slopes)
    if not queries.numel() or not valid.numel():
        return torch.zeros(valid.shape, dtype=torch.float32, device=keys.device)
    if queries.is_cuda and triton_is_installed() and _triton_serves(queries, keys):
        # only here, so that machines without a GPU need no triton
        from .triton_kernel import attention_sums as implementation
    else:
        implementation = reference.attention_sums
    with torch.no_grad():
        return implementation(
            *tensors, scaling=scaling, window=window, softcap=softcap, sinks=sinks, slopes=slopes
        )


def _triton_serves(queries: Tensor, keys: Tensor) -> bool:
    return queries.dtype == keys.dtype and keys.dtype != torch.float64
