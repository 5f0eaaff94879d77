"""Ragged attention in plain torch: the CPU path and the specification.

Matrix products on views: one pair of them for every run of segments of one length, one for the
rectangular tail. Keys and values are never copied, joined or converted. Products are taken in the
storage dtype (so half precision rounds each logit once, as eager attention does), the softmax in
float32 (in float64 for float64 storage).
"""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .arguments import segment_bounds

# many queries are attended in slices, so that the logits of one run stay near 16 MiB
_MOST_LOGITS = 1 << 22


def ragged_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    offsets: Tensor,
    positions: Tensor,
    tail_keys: Tensor,
    tail_values: Tensor,
    tail_tokens: int,
    *,
    seen_tokens: int,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    mass: Tensor | None = None,
    tail_mass: Tensor | None = None,
) -> Tensor:
    """Do what the package's `ragged_attention` documents; arguments are not checked again."""
    batch, heads, new, head_dim = queries.shape
    kv_heads, value_dim = tail_values.shape[1], tail_values.shape[3]
    pairs, group = batch * kv_heads, heads // kv_heads
    prefix = _prefix(keys, values, positions, mass, segment_bounds(offsets, len(keys)))
    tail = _Part(
        tail_keys[:, :, :tail_tokens].flatten(0, 1),
        tail_values[:, :, :tail_tokens].flatten(0, 1),
        _range(seen_tokens - tail_tokens, seen_tokens, positions)[None],
        None if tail_mass is None else tail_mass.view(pairs, -1)[:, :tail_tokens],
    )
    by_pair = queries.reshape(pairs, group, new, head_dim)
    out = queries.new_empty(pairs, group, new, value_dim)
    largest = max(part.values.shape[0] * (part.values.shape[1] + tail_tokens) for part in prefix)
    step = max(1, _MOST_LOGITS // max(1, group * largest))
    for i in range(0, new, step):
        at = None
        # positions lie below seen_tokens: one query without a window sees everything
        if new > 1 or window is not None:
            first = seen_tokens - new + i
            at = _range(first, first + min(step, new - i), positions)
        rule = _Rule(group, scaling, window, softcap, at)
        block = by_pair[:, :, i : i + step]
        attended = _attend(block.flatten(1, 2), prefix, tail, rule, sinks)
        out[:, :, i : i + step] = attended.view(pairs, group, -1, value_dim)
    return out.view(batch, heads, new, value_dim)


class _Part(NamedTuple):
    """Neighbouring segments of equal length, as views; a pair is a sequence and a KV head."""

    keys: Tensor  # [pairs, tokens, head_dim]
    values: Tensor  # [pairs, tokens, value_dim]
    positions: Tensor  # [pairs, tokens], or [1, tokens] if all pairs share them
    mass: Tensor | None  # [pairs, tokens]


class _Rule(NamedTuple):
    """How products become logits, what a query may see, and where its attention is noted."""

    group: int
    scaling: float
    window: int | None
    softcap: float | None
    at: Tensor | None  # positions of the queries, [new]; None if they see everything

    def hidden(self, part: _Part) -> Tensor | None:
        """Which keys the queries must not see, bool [pairs, 1, new, tokens]."""
        if self.at is None:
            return None
        positions = part.positions[:, None, None]
        at = self.at[:, None]
        hidden = positions > at
        return hidden if self.window is None else hidden | (positions <= at - self.window)

    def logits(self, rows: Tensor, part: _Part, hidden: Tensor | None) -> Tensor:
        """Logits of `rows` [pairs, group * new, head_dim], [pairs, group * new, tokens]."""
        unused = rows.new_empty(1)
        logits = torch.baddbmm(unused, rows, part.keys.mT, beta=0, alpha=self.scaling)
        logits = logits.to(torch.float64 if rows.dtype == torch.float64 else torch.float32)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return self._fill(logits, hidden, float("-inf"))

    def weights(self, share: Tensor, part: _Part, hidden: Tensor | None) -> Tensor:
        """Weights of the part's values, from its share of the softmax; adds to its mass."""
        # a row that sees nothing is NaN until here
        share = self._fill(share, hidden, 0.0)
        if part.mass is not None:
            part.mass.add_(share.sum(1), alpha=1 / self.group)
        return share.to(part.values.dtype)

    def _fill(self, rows: Tensor, hidden: Tensor | None, value: float) -> Tensor:
        if hidden is not None:
            rows.unflatten(1, (self.group, -1)).masked_fill_(hidden, value)
        return rows


def _attend(
    rows: Tensor, prefix: list[_Part], tail: _Part, rule: _Rule, sinks: Tensor | None
) -> Tensor:
    """Attend with `rows` [pairs, group * new, head_dim]; [pairs, group * new, value_dim]."""
    tail_hidden = rule.hidden(tail)
    # logits of the tail and the sink at first, their probabilities after the loop
    rest = rule.logits(rows, tail, tail_hidden)
    if sinks is not None:
        rest = torch.cat([rest, _sink_column(sinks, rest, rule.group)], -1)
    out = rows.new_empty(*rows.shape[:2], tail.values.shape[2])
    counts = [part.keys.shape[0] for part in prefix]
    cut = zip(prefix, rows.split(counts), rest.split(counts), out.split(counts), strict=True)
    for part, part_rows, part_rest, part_out in cut:
        hidden = rule.hidden(part)
        logits = rule.logits(part_rows, part, hidden)
        joint = torch.cat([logits, part_rest], -1).softmax(-1)
        share, rest_share = joint.tensor_split((logits.shape[2],), -1)
        part_rest.copy_(rest_share)
        torch.bmm(rule.weights(share, part, hidden), part.values, out=part_out)
    share = rest[..., : tail.keys.shape[1]]
    return out.baddbmm_(rule.weights(share, tail, tail_hidden), tail.values)


def _prefix(
    keys: Tensor, values: Tensor, positions: Tensor, mass: Tensor | None, bounds: list[int]
) -> list[_Part]:
    """Cut the flat prefix into runs of segments of one length."""
    sizes = [(n, len(list(run))) for n, run in groupby(b - a for a, b in pairwise(bounds))]
    rows = [tokens * pairs for tokens, pairs in sizes]

    def cut(flat: Tensor) -> list[Tensor]:
        runs = flat[: bounds[-1]].split(rows)
        shape = flat.shape[1:]
        return [r.view(n, t, *shape) for r, (t, n) in zip(runs, sizes, strict=True)]

    shares = [None] * len(sizes) if mass is None else cut(mass)
    return list(map(_Part, cut(keys), cut(values), cut(positions), shares))


def _sink_column(sinks: Tensor, rest: Tensor, group: int) -> Tensor:
    """Sink logit of every row of `rest`, [pairs, group * new, 1]."""
    pairs, rows, _ = rest.shape
    by_pair = sinks.to(rest.dtype).view(-1, group).repeat(pairs * group // len(sinks), 1)
    return by_pair.repeat_interleave(rows // group, 1)[..., None]


def _range(first: int, end: int, like: Tensor) -> Tensor:
    return torch.arange(first, end, dtype=like.dtype, device=like.device)
