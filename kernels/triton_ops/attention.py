"""Pieces of softmax attention in plain torch: logits, visibility, probabilities.

The references of the operations are made of them, and so are the views of the heuristics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

TOKENS_PER_CHUNK = 4096
"""Keys and values are converted to float32 at most this many tokens at a time."""


def chunks(length: int, chunk: int) -> Iterator[slice]:
    """Cut ``range(length)`` into consecutive slices of at most ``chunk``."""
    for start in range(0, length, chunk):
        yield slice(start, min(start + chunk, length))


def attention_logits(
    queries: Tensor, keys: Tensor, *, scaling: float, softcap: float | None
) -> Tensor:
    """Multiply queries and keys in float32, scale, and cap.

    Args:
        queries: [..., rows, head_dim], any floating dtype.
        keys: [..., tokens, head_dim], any floating dtype.
        scaling: Factor on the products, usually head_dim ** -0.5.
        softcap: Logits become ``softcap * tanh(logits / softcap)``; None leaves them.

    Returns:
        Logits, [..., rows, tokens], float32.
    """
    scaled = queries.float() * scaling
    tokens = keys.shape[-2]
    if tokens <= TOKENS_PER_CHUNK:
        logits = scaled @ keys.float().mT
    else:
        logits = scaled.new_empty(*scaled.shape[:-1], tokens)
        for part in chunks(tokens, TOKENS_PER_CHUNK):
            logits[..., part] = scaled @ keys[..., part, :].float().mT
    if softcap is None:
        return logits
    return logits.div_(softcap).tanh_().mul_(softcap)


def linear_bias(slopes: Tensor, key_positions: Tensor, query_positions: Tensor) -> Tensor:
    """What attention with linear biases adds to its logits: 0 at a query's own key, less before.

    Args:
        slopes: Slope of each query head, [kv_heads, group], float32.
        key_positions: Columns of the keys, [..., kv_heads, tokens] or [tokens].
        query_positions: Columns of the queries, [rows].

    Returns:
        [..., kv_heads, group, rows, tokens], float32.
    """
    distance = key_positions.unsqueeze(-2) - query_positions.unsqueeze(-1)
    return slopes[..., None, None] * distance.unsqueeze(-3)


def visible(key_positions: Tensor, query_positions: Tensor, window: int | None) -> Tensor:
    """Tell which keys each query may see: none after itself, none a window or more before it.

    Args:
        key_positions: Columns of the keys, [..., tokens].
        query_positions: Columns of the queries, [rows].
        window: Sliding window in tokens, the query's own included; None for no window.

    Returns:
        Bool, [..., rows, tokens].
    """
    keys = key_positions.unsqueeze(-2)
    rows = query_positions.unsqueeze(-1)
    seen = keys <= rows
    return seen if window is None else seen & (keys > rows - window)


def masked_softmax(logits: Tensor, seen: Tensor, sinks: Tensor | None) -> Tensor:
    """Softmax over the last axis of what is seen; a row that sees nothing is 0.

    Overwrites ``logits``.

    Args:
        logits: [..., rows, tokens], float32.
        seen: Bool, broadcastable to the logits.
        sinks: Logits of learned sinks, broadcastable to [..., rows, 1]. They take a share of
            every row, so rows then sum to less than 1. None for no sinks.

    Returns:
        Probabilities in the memory of ``logits``.
    """
    if logits.shape[-1] == 0:
        return logits
    logits.masked_fill_(~seen, -torch.inf)
    highest = logits.amax(dim=-1, keepdim=True)
    if sinks is not None:
        highest = torch.maximum(highest, sinks)
    # a row that sees nothing would otherwise subtract -inf from -inf
    highest = highest.clamp_min(torch.finfo(torch.float32).min)
    logits.sub_(highest).exp_()
    total = logits.sum(dim=-1, keepdim=True)
    if sinks is not None:
        total = total + (sinks - highest).exp()
    return logits.div_(total.clamp_min(torch.finfo(torch.float32).tiny))
