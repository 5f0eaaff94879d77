"""Ragged attention in plain torch: the CPU path and the specification.

For every run of segments of one length the logits of the prefix and of the tail are written side
by side, so that one softmax covers both. Keys and values are never copied, joined or converted.
Products are taken in the storage dtype (so half precision rounds each logit once, as eager
attention does), the softmax in float32 (in float64 for float64 storage).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .prefix import Prefix, Run

# many queries are attended in slices, so that the logits of one slice stay near 16 MiB
_MOST_LOGITS = 1 << 22
# its exponential is 0 beside any other logit, and infinities among themselves would give NaN
_HIDDEN = torch.finfo(torch.float32).min


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
    slopes: Tensor | None = None,
    sinks: Tensor | None = None,
    first_seen: Tensor | None = None,
    mass: Tensor | None = None,
    tail_mass: Tensor | None = None,
    prefix: Prefix | None = None,
    ends: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """Do what the package's `ragged_attention` documents; arguments are not checked again."""
    batch, heads, new, head_dim = queries.shape
    kv_heads, value_dim = tail_values.shape[1], tail_values.shape[3]
    pairs, group = batch * kv_heads, heads // kv_heads
    prefix = Prefix(keys, values, offsets, positions, ends) if prefix is None else prefix
    factor, rest = _split_factor(scaling, queries.dtype)
    by_pair = (queries * factor).reshape(pairs, group, new, head_dim)
    rule = _Rule(group, rest, softcap, _by_pair(slopes, batch, kv_heads))
    tail = _Tail(
        tail_keys.flatten(0, 1).narrow(1, 0, tail_tokens).mT,
        tail_values.flatten(0, 1).narrow(1, 0, tail_tokens),
        seen_tokens - tail_tokens,
    )
    noted = None
    if mass is not None or tail_mass is not None:
        tail_share = None if tail_mass is None else tail_mass.flatten(0, 1)
        noted = _Noted(mass, tail_share, group)
    sink = _by_pair(sinks, batch, kv_heads)
    first = None if first_seen is None else first_seen.repeat_interleave(kv_heads, 0)
    segments, most_rows = prefix.largest
    step = max(1, _MOST_LOGITS // max(1, group * (most_rows + segments * tail_tokens)))
    parts = []
    for i in range(0, new, step):
        at, count = seen_tokens - new + i, min(step, new - i)
        sight = _Sight(at, count, window, None if first is None else first[:, i : i + count])
        sink_rows = None if sink is None else sink.repeat_interleave(count, 1)[..., None]
        rows = by_pair.narrow(2, i, count).flatten(1, 2)
        out = _attend(rows, prefix, tail, rule, sight, sink_rows, noted)
        parts.append(out.view(pairs, group, count, value_dim))
    joined = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
    return joined.view(batch, heads, new, value_dim)


class _Sight(NamedTuple):
    """Where consecutive queries stand and how far back they see."""

    at: int
    queries: int
    window: int | None
    first_seen: Tensor | None  # [pairs, queries]

    def places(self, like: Tensor) -> Tensor:
        """Position of each query, [queries, 1]."""
        end = self.at + self.queries
        return torch.arange(self.at, end, dtype=like.dtype, device=like.device)[:, None]

    def hides_any(self, low: int, high: int) -> bool:
        """Whether some query may not see some position from `low` to `high`."""
        if high > self.at:
            return True
        if self.window is not None and low <= self.at + self.queries - 1 - self.window:
            return True
        return self.first_seen is not None and low < int(self.first_seen.max())

    def hidden(self, positions: Tensor, segments: int | slice) -> Tensor:
        """Which keys the queries must not see, bool, broadcasts to [pairs, group, new, tokens]."""
        places, positions = self.places(positions), positions[..., None, :]
        hidden = positions > places
        if self.window is not None:
            hidden = hidden | (positions <= places - self.window)
        if self.first_seen is not None:
            hidden = hidden | (positions < self.first_seen[segments][..., None])
        return hidden.unsqueeze(-3)

    def distances(self, positions: Tensor) -> Tensor:
        """From each query to each key, never above 0 if it is seen; broadcasts likewise."""
        return (positions[..., None, :] - self.places(positions)).unsqueeze(-3)


class _Tail(NamedTuple):
    """The newest tokens of all pairs."""

    keys: Tensor  # [pairs, head_dim, tokens]
    values: Tensor  # [pairs, tokens, value_dim]
    first: int  # position of the first slot

    @property
    def tokens(self) -> int:
        """Slots in use."""
        return self.values.shape[1]

    def behind(self, positions: Tensor) -> Tensor:
        """These positions followed by those of the tail, along the last axis."""
        end = self.first + self.tokens
        own = torch.arange(self.first, end, dtype=positions.dtype, device=positions.device)
        return torch.cat([positions, own.expand(*positions.shape[:-1], -1)], -1)


class _Rule(NamedTuple):
    """How products become logits."""

    group: int
    factor: float
    softcap: float | None
    slopes: Tensor | None  # [pairs, group]

    @property
    def keeps_products(self) -> bool:
        """Whether logits are the products themselves."""
        return self.factor == 1.0 and self.softcap is None and self.slopes is None

    def finish(
        self, logits: Tensor, run: Run, tail: _Tail, sight: _Sight, hides: bool
    ) -> Tensor | None:
        """Turn the products of a run and the tail into logits in place; say what is hidden.

        Args:
            logits: [segments, group * new, tokens], first those of the run.
            run: Some segments.
            tail: Of all segments.
            sight: What the queries see.
            hides: Whether anything is hidden from any of them.
        """
        if self.factor != 1.0:
            logits.mul_(self.factor)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        if self.slopes is None and not hides:
            return None
        by_query, positions = self.by_query(logits), tail.behind(run.positions)
        if self.slopes is not None:
            slopes = self.slopes[run.segments][..., None, None].to(logits.dtype)
            by_query.addcmul_(slopes, sight.distances(positions).to(logits.dtype))
        hidden = sight.hidden(positions, run.segments)
        by_query.masked_fill_(hidden, _HIDDEN)
        return hidden

    def by_query(self, rows: Tensor) -> Tensor:
        """[pairs, group * new, tokens] as [pairs, group, new, tokens]."""
        by_query: Tensor = rows.unflatten(-2, (self.group, -1))
        return by_query


class _Noted(NamedTuple):
    """Where it is noted what each token got of the softmax, averaged over the group."""

    mass: Tensor | None  # [rows]
    tail_mass: Tensor | None  # [pairs, tail_capacity]
    group: int

    def add(self, run: Run, held: Tensor, newer: Tensor) -> None:
        """Add the weights of a run, [segments, group * new, tokens]."""
        if self.mass is not None:
            mass = run.place.of(self.mass)
            mass.add_(held.sum(-2), alpha=1 / self.group)
        if self.tail_mass is not None:
            mass = self.tail_mass[run.segments].narrow(-1, 0, newer.shape[-1])
            mass.add_(newer.sum(-2), alpha=1 / self.group)


def _attend(
    rows: Tensor,
    prefix: Prefix,
    tail: _Tail,
    rule: _Rule,
    sight: _Sight,
    sinks: Tensor | None,
    noted: _Noted | None,
) -> Tensor:
    """Attend with `rows` [pairs, group * new, head_dim]; [pairs, group * new, value_dim]."""
    kind, tail_tokens, sink_columns = rows.dtype, tail.tokens, 0 if sinks is None else 1
    exact = torch.float64 if kind == torch.float64 else torch.float32
    low, high = prefix.span
    hides = sight.hides_any(min(low, tail.first), max(high, tail.first + tail_tokens - 1))
    plain = rule.keeps_products and not hides
    out = rows.new_empty(*rows.shape[:2], tail.values.shape[2])
    cut = (prefix.cut(x) for x in (rows, out, tail.keys, tail.values))
    for run, run_rows, run_out, tail_keys, tail_values in zip(prefix.runs, *cut, strict=True):
        multiply = torch.mm if run_rows.dim() == 2 else torch.bmm
        tokens, hidden = run.values.shape[-2], None
        width = tokens + tail_tokens
        joint = run_rows.new_empty(*run_rows.shape[:-1], width + sink_columns, dtype=exact)
        held, newer = joint.narrow(-1, 0, tokens), joint.narrow(-1, tokens, tail_tokens)
        if kind == exact:
            multiply(run_rows, run.keys, out=held)
            multiply(run_rows, tail_keys, out=newer)
        else:
            held.copy_(multiply(run_rows, run.keys))
            newer.copy_(multiply(run_rows, tail_keys))
        if not plain:
            logits = joint.narrow(-1, 0, width)
            hidden = rule.finish(logits, run, tail, sight, hides)
        if sinks is not None:
            joint.narrow(-1, width, 1).copy_(sinks[run.segments])
        torch.softmax(joint, -1, out=joint)
        if hidden is not None:
            # a row that sees nothing shares itself out among what is hidden
            rule.by_query(logits).masked_fill_(hidden, 0.0)
        if noted is not None:
            noted.add(run, held, newer)
        if kind != exact:
            held, newer = held.to(kind), newer.to(kind)
        multiply(held, run.values, out=run_out)
        add = run_out.addmm_ if run_rows.dim() == 2 else run_out.baddbmm_
        add(newer, tail_values)
    return out


def _by_pair(by_head: Tensor | None, batch: int, kv_heads: int) -> Tensor | None:
    """[heads] as [pairs, group]."""
    return None if by_head is None else by_head.view(kv_heads, -1).repeat(batch, 1)


def _split_factor(scaling: float, dtype: torch.dtype) -> tuple[float, float]:
    """What queries are multiplied by before the product, and logits after it.

    In half precision only a power of two leaves the queries as exact as they were.
    """
    if dtype in (torch.float32, torch.float64) or scaling == 0:
        return scaling, 1.0
    fraction, exponent = math.frexp(scaling)
    return 2.0 ** (exponent - 1), 2 * fraction
