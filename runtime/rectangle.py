"""Attention over held tokens spread into a rectangle, under any mask the model makes.

Ragged attention knows where a query may look by position alone. Some layers need more: chunks that
begin where a row's padding ends, a bias for every pair of query and column, keys that the model
expands anew at each step. They attend here, densely, over the tokens held by one layer.
"""

from dataclasses import replace

import torch
from torch import Tensor

from .attention_call import QUERY_CHUNK, AttentionCall, dense_attention
from .padded_tokens import PaddedTokens

_HIDDEN = torch.finfo(torch.float32).min


def rectangle_attention(
    call: AttentionCall, tokens: PaddedTokens, window: int | None = None
) -> Tensor:
    """Attend to the held tokens and the new ones among them.

    Args:
        call: The new tokens' queries; its mask and its bias cover all columns seen so far.
        tokens: All tokens held, the new ones included.
        window: Sliding window in tokens, besides the mask; None for none.

    Returns:
        [batch, new, heads, value_dim].
    """
    new = call.queries.shape[2]
    parts = [
        _attend(call, tokens, window, slice(start, min(start + QUERY_CHUNK, new)))
        for start in range(0, new, QUERY_CHUNK)
    ]
    return torch.cat(parts, 1)


def _attend(call: AttentionCall, tokens: PaddedTokens, window: int | None, rows: slice) -> Tensor:
    sinks = call.rules.sinks
    if sinks is not None and sinks.dim() == 4:
        sinks = sinks[:, :, rows]
    part = replace(
        call,
        queries=call.queries[:, :, rows],
        keys=tokens.keys,
        values=tokens.values,
        mask=_mask(call, tokens, window, rows),
        bias=None,
        rules=replace(call.rules, sinks=sinks),
    )
    return dense_attention(part)


def _mask(call: AttentionCall, tokens: PaddedTokens, window: int | None, rows: slice) -> Tensor:
    """What each query adds to its logits, [batch, heads, rows, tokens], float32."""
    heads = call.queries.shape[1]
    newest = tokens.positions.amax()
    query = torch.arange(rows.start, rows.stop, device=newest.device)[:, None]
    query = query + newest + 1 - call.queries.shape[2]
    column = tokens.positions[:, :, None, :]
    hidden = ~tokens.valid[:, :, None, :] | (column > query)
    if window is not None:
        hidden = hidden | (column <= query - window)
    added = torch.zeros(hidden.shape, device=hidden.device).masked_fill(hidden, _HIDDEN)
    added = added.repeat_interleave(heads // added.shape[1], 1)
    at = column.repeat_interleave(heads // column.shape[1], 1).expand(added.shape)
    for extra in (_additive(call.mask), call.bias):
        if extra is not None:
            shape = (*added.shape[:3], extra.shape[3])
            added = added + extra[:, :, rows].expand(shape).gather(3, at)
    return added.clamp_min(_HIDDEN)


def _additive(mask: Tensor | None) -> Tensor | None:
    if mask is None or mask.dtype != torch.bool:
        return None if mask is None else mask.float()
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, _HIDDEN)
