"""Softmax at nested levels in plain torch: the CPU path and the specification.

Each key is met once: the tokens between two levels are added to a running softmax, whose state
after each level is what that level sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..attention import attention_logits, linear_bias, visible
from .states import Future, LevelStates, empty_states

_LOWEST = torch.finfo(torch.float32).min
_TINY = torch.finfo(torch.float32).tiny


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
    """Do what the package's `level_softmax` documents; arguments are not checked again."""
    states = empty_states(queries, values, len(kept_tokens))
    shape = states.mass.shape[:3]
    rule = _Rule(scaling, window, softcap, None if slopes is None else slopes.view(shape[:2]))
    state = _nothing_yet(shape, states.output, sinks)
    state = state.extended(queries, query_positions, *future, rule)
    for level, (start, stop) in enumerate(pairwise((0, *kept_tokens))):
        part = (keys[:, start:stop], values[:, start:stop], positions[:, start:stop])
        state = state.extended(queries, query_positions, *part, rule)
        states.highest[..., level] = state.highest
        states.mass[..., level] = state.mass
        total = state.mass.clamp_min(_TINY).unsqueeze(-1)
        torch.div(state.output, total, out=states.output[..., level, :])
    return states


class _Rule(NamedTuple):
    """How products become logits."""

    scaling: float
    window: int | None
    softcap: float | None
    slopes: Tensor | None  # [kv_heads, group]


class _State(NamedTuple):
    """A softmax over the keys met so far, [kv_heads, group, rows]; outputs not yet divided."""

    highest: Tensor
    mass: Tensor
    output: Tensor

    def extended(
        self,
        queries: Tensor,
        query_positions: Tensor,
        keys: Tensor,
        values: Tensor,
        positions: Tensor,
        rule: _Rule,
    ) -> _State:
        """Add keys with their values; positions [kv_heads, tokens] or, alike in all, [tokens]."""
        if not keys.shape[1]:
            return self
        kv_heads, group, rows = self.mass.shape
        by_kv_head = queries.reshape(kv_heads, group * rows, -1)
        logits = attention_logits(by_kv_head, keys, scaling=rule.scaling, softcap=rule.softcap)
        by_head = logits.view(kv_heads, group, rows, -1)
        if rule.slopes is not None:
            by_head += linear_bias(rule.slopes, positions, query_positions)
        seen = visible(positions, query_positions, rule.window)
        if seen.dim() == 3:
            seen = seen.unsqueeze(1)
        by_head.masked_fill_(~seen, -torch.inf)
        highest = torch.maximum(self.highest, by_head.amax(-1))
        shares = by_head.sub_(highest.unsqueeze(-1)).exp_()
        shrink = (self.highest - highest).exp()
        added = (shares.flatten(1, 2) @ values.float()).view_as(self.output)
        output = self.output * shrink.unsqueeze(-1) + added
        return _State(highest, self.mass * shrink + shares.sum(-1), output)


def _nothing_yet(shape: torch.Size, like: Tensor, sinks: Tensor | None) -> _State:
    """State before any key: nothing, or the learned sink, which has no value."""
    output = like.new_zeros(*shape, like.shape[-1])
    if sinks is None:
        return _State(like.new_full(shape, _LOWEST), like.new_zeros(shape), output)
    highest = sinks.float().view(*shape[:2], 1).expand(shape)
    return _State(highest, like.new_ones(shape), output)
