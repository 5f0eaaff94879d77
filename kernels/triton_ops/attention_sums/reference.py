"""Attention sums in plain torch: the CPU path and the specification.

Some queries are treated at a time. Tokens that none of them sees are left out, and only those that
are hidden from one of them are masked; of a long prompt read at once that leaves half of the work.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..attention import attention_logits, chunks, linear_bias

# logits of one slice of queries stay near 4 MiB, where a processor's cache still holds most of them
_MOST_LOGITS = 1 << 20
# fewer queries at a time would be outweighed by the conversion of half-precision keys
_LEAST_QUERIES = 16
# as a position: behind every query
_NEVER = torch.iinfo(torch.int64).max
# its exponential is 0 beside any other logit, and infinities among themselves would give NaN
_HIDDEN = torch.finfo(torch.float32).min


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
    """Do what the package's `attention_sums` documents; arguments are not checked again."""
    rule = _Rule(scaling, window, softcap, sinks, slopes)
    places = positions.masked_fill(~valid, _NEVER)
    batch, heads, new, _ = queries.shape
    step = max(_LEAST_QUERIES, _MOST_LOGITS // (batch * heads * places.shape[2]))
    if new <= step:
        # looking what can be left out costs more than a single slice may gain
        return _sums(queries, keys, places, query_positions, slice(None), rule)
    sums = torch.zeros(valid.shape, dtype=torch.float32, device=keys.device)
    for rows in chunks(new, step):
        at = query_positions[rows]
        seen, hidden = _spans(places, at, window)
        part = (queries[:, :, rows], keys[:, :, seen], places[..., seen])
        sums[..., seen] += _sums(*part, at, hidden, rule)
    return sums


class _Rule(NamedTuple):
    """What decides logits and shares, as in the arguments."""

    scaling: float
    window: int | None
    softcap: float | None
    sinks: Tensor | None
    slopes: Tensor | None


def _sums(
    queries: Tensor, keys: Tensor, places: Tensor, at: Tensor, hidden: slice, rule: _Rule
) -> Tensor:
    """Attention from some queries to some tokens, [batch, kv_heads, tokens].

    Args:
        queries: [batch, heads, rows, head_dim].
        keys: [batch, kv_heads, tokens, head_dim].
        places: Positions of the tokens, `_NEVER` for an empty one, [batch, kv_heads, tokens].
        at: Positions of the queries, [rows].
        hidden: Among the tokens, where those lie that some query does not see.
        rule: How it is done.
    """
    batch, kv_heads, _ = places.shape
    group, rows = queries.shape[1] // kv_heads, len(at)
    by_pair = queries.reshape(batch, kv_heads, group * rows, -1)
    logits = attention_logits(by_pair, keys, scaling=rule.scaling, softcap=rule.softcap)
    by_head = logits.view(batch, kv_heads, group, rows, -1)
    if rule.slopes is not None:
        by_head += linear_bias(rule.slopes.view(kv_heads, group), places, at)
    mask = _masked(places[..., hidden], at, rule.window)
    by_head[..., hidden].masked_fill_(mask.unsqueeze(2), _HIDDEN)
    shares = _softmax(logits, by_head, rule.sinks)
    weights = shares.new_full((batch, kv_heads, 1, group * rows), 1 / group)
    if mask.shape[-1] == shares.shape[-1]:
        # a row that sees nothing shares itself out among what is hidden
        blind = mask.all(-1).unsqueeze(2)
        weights.view(batch, kv_heads, group, rows).masked_fill_(blind, 0.0)
    return (weights @ shares).squeeze(2)


def _spans(places: Tensor, at: Tensor, window: int | None) -> tuple[slice, slice]:
    """Where tokens lie that any query at `at` sees, and among them those that any does not see."""
    lowest, highest = places.flatten(0, 1).aminmax(dim=0)
    first, last = at.aminmax()
    seen, hidden = lowest <= last, highest > first
    if window is not None:
        seen &= highest > first - window
        hidden |= lowest <= last - window
    span = _span(seen)
    return span, _span(hidden[span])


def _span(marked: Tensor) -> slice:
    found = marked.nonzero()
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def _masked(places: Tensor, at: Tensor, window: int | None) -> Tensor:
    """Which tokens the queries do not see, [batch, kv_heads, rows, tokens], bool."""
    places, at = places.unsqueeze(-2), at.unsqueeze(-1)
    masked = places > at
    return masked if window is None else masked | (places <= at - window)


def _softmax(logits: Tensor, by_head: Tensor, sinks: Tensor | None) -> Tensor:
    """Softmax of the logits, [batch, kv_heads, group * rows, tokens]; overwrites them.

    Args:
        logits: [batch, kv_heads, group * rows, tokens].
        by_head: The same memory as [batch, kv_heads, group, rows, tokens].
        sinks: Learned sink of each query head, [heads]; None for none.
    """
    if sinks is None:
        return torch.softmax(logits, -1, out=logits)
    column = sinks.float().view(*by_head.shape[1:3], 1, 1).expand(*by_head.shape[:4], 1)
    return torch.cat([by_head, column], -1).softmax(-1)[..., :-1].flatten(2, 3)
