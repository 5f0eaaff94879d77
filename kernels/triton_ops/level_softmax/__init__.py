"""One softmax at many nested levels of tokens that are sorted by worth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..attention_sums.arguments import check_rule, demand
from ..available import triton_is_installed
from . import reference
from .states import Future, LevelStates

__all__ = ["Future", "LevelStates", "level_softmax"]

# the widest output that a program can hold
_MOST_VALUE_DIM = 512


def level_softmax(
    queries: Tensor,
    query_positions: Tensor,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    future: Future,
    kept_tokens: Sequence[int],
    *,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    slopes: Tensor | None = None,
) -> LevelStates:
    """Attend with some future queries to every level of a context at once.

    Level `l` is the future and the first `kept_tokens[l]` tokens of the context, of which every
    KV head has an order of its own. As levels are nested, every key is met once, whatever their
    number. A query sees the tokens at its own position and before, no further back than `window`
    positions (its own included). Logits, softcap, slopes and sinks are those of `attention_sums`.

    Logits and softmax are taken in float32, and so are the outputs: half-precision weights would
    drown what two levels differ by. All tensors may have any strides. No gradient flows back.

    Args:
        queries: [heads, rows, head_dim], any floating dtype.
        query_positions: Columns of the queries, int64 [rows], below 2 ** 31 - 1.
        keys: Keys of the context, best token first, [kv_heads, tokens, head_dim].
        values: Values of the context in the same order, [kv_heads, tokens, value_dim].
        positions: Columns of the context in that order, int64 [kv_heads, tokens].
        future: What all levels see, the queries' own keys and values among it.
        kept_tokens: Tokens of the context at each level, never falling, at most `tokens`.
        scaling: Factor on the products of queries and keys.
        window: Sliding window in tokens; None is full attention.
        softcap: Bound on the absolute logit; None is no bound.
        sinks: Learned sink logit of each query head, [heads].
        slopes: Linear bias (ALiBi) of each query head, float32 [heads].

    Returns:
        The states at all levels. Those of levels of one length are equal to the last bit.

    Raises:
        TypeError: If a dtype is wrong or tensors lie on different devices.
        ValueError: If a shape, a level or a setting is wrong.
    """
    _check(queries, query_positions, keys, values, positions, future)
    check_rule(len(queries), queries.device, window, softcap, sinks, slopes)
    _check_levels(kept_tokens, keys.shape[1])
    if queries.is_cuda and triton_is_installed() and _triton_serves(queries, keys, values, future):
        # only here, so that machines without a GPU need no triton
        from .triton_kernel import level_softmax as implementation
    else:
        implementation = reference.level_softmax
    with torch.no_grad():
        return implementation(
            *(queries, query_positions, keys, values, positions, future, kept_tokens),
            scaling=scaling,
            window=window,
            softcap=softcap,
            sinks=sinks,
            slopes=slopes,
        )


def _triton_serves(queries: Tensor, keys: Tensor, values: Tensor, future: Future) -> bool:
    kinds = {x.dtype for x in (queries, keys, values, future.keys, future.values)}
    fits = values.shape[-1] <= _MOST_VALUE_DIM and queries.numel() > 0
    return len(kinds) == 1 and torch.float64 not in kinds and fits


def _check(
    queries: Tensor,
    query_positions: Tensor,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    future: Future,
) -> None:
    if not queries.dim() == keys.dim() == values.dim() == 3:
        raise ValueError(
            "`queries`, `keys` and `values` must have 3 axes, but got shapes "
            f"{tuple(queries.shape)}, {tuple(keys.shape)} and {tuple(values.shape)}."
        )
    heads, rows, head_dim = queries.shape
    kv_heads, tokens, value_dim = values.shape
    if kv_heads < 1 or heads % kv_heads:
        raise ValueError(
            f"`queries` must have a multiple of the {kv_heads} KV heads, but got {heads} heads."
        )
    behind = len(future.positions)
    whole = torch.int64
    for name, tensor, shape, dtype in (
        ("query_positions", query_positions, (rows,), whole),
        ("keys", keys, (kv_heads, tokens, head_dim), keys.dtype),
        ("values", values, (kv_heads, tokens, value_dim), values.dtype),
        ("positions", positions, (kv_heads, tokens), whole),
        ("future.keys", future.keys, (kv_heads, behind, head_dim), keys.dtype),
        ("future.values", future.values, (kv_heads, behind, value_dim), values.dtype),
        ("future.positions", future.positions, (behind,), whole),
    ):
        demand(name, tensor, shape, dtype, queries.device)
    for name, tensor in (("queries", queries), ("keys", keys), ("values", values)):
        if not tensor.dtype.is_floating_point:
            raise TypeError(f"`{name}` must be floating point, but got {tensor.dtype}.")


def _check_levels(kept_tokens: Sequence[int], tokens: int) -> None:
    if any(low > high for low, high in pairwise((0, *kept_tokens, tokens))):
        raise ValueError(
            f"`kept_tokens` must hold numbers from 0 to {tokens} that never fall, but got "
            f"{tuple(kept_tokens)}."
        )
