"""What a token heuristic sees of one layer, and the attention it can ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from kvbudget.allocator.checks import check_count
from kvbudget.kernels import attention_sums
from kvbudget.kernels.attention import (
    attention_logits,
    chunks,
    linear_bias,
    masked_softmax,
    visible,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from .rotation import Rotation

QUERIES_PER_CHUNK = 256


@dataclass(frozen=True, slots=True, eq=False)
class LayerView:
    """The caches of one layer at the moment of eviction.

    Columns number the places of the sequence from 0, padding included. Each KV head may hold
    tokens of other columns than its neighbour. Padding stands before the real tokens. Query head
    ``h`` reads KV head ``h // group``.

    Args:
        layer: Index of the layer.
        keys: Cached keys, as the model rotated them, [batch, kv_heads, tokens, head_dim].
        values: Cached values, [batch, kv_heads, tokens, value_dim].
        valid: Whether a place holds a real token, neither padding nor empty, bool,
            [batch, kv_heads, tokens].
        positions: Column of each held token, int64, [batch, kv_heads, tokens], rising where valid.
        queries: Queries of the newest columns, [batch, heads, new, head_dim]; ``new`` may be 0.
        query_positions: Columns of these queries, int64, [new].
        scaling: Factor on the products of queries and keys.
        window: Sliding window in tokens; None for full attention.
        softcap: Cap on the logits; None for none.
        sinks: Logits of learned sinks, [heads]; None for none.
        slopes: What each query head's logits grow by from one column to the next, float32,
            [heads]; None for none.
        state: What a running heuristic's ``observe`` last returned for each held token, float32,
            [batch, kv_heads, tokens, channels]; 0 for a token it has not met. None for other
            heuristics, and before the first call; ``known_state`` gives zeros then.
        prompt_columns: Columns of the prompt; the queries behind them belong to decoded tokens.
            None while the prompt is still being read.
        rotation: How the model rotates queries and keys by position; None if it does not.
        output_weight: The part of the output projection that each query head writes through,
            [heads, value_dim, hidden], any floating dtype; None if it is not known.

    Raises:
        ValueError: If the shapes do not fit each other.
    """

    layer: int
    keys: Tensor
    values: Tensor
    valid: Tensor
    positions: Tensor
    queries: Tensor
    query_positions: Tensor
    scaling: float
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    slopes: Tensor | None = None
    state: Tensor | None = None
    prompt_columns: int | None = None
    rotation: Rotation | None = None
    output_weight: Tensor | None = None

    def __post_init__(self) -> None:
        """Check that the shapes fit each other."""
        places, heads = tuple(self.keys.shape[:3]), self.queries.shape[1]
        for name in ("values", "valid", "positions"):
            found = tuple(getattr(self, name).shape[:3])
            if found != places:
                raise ValueError(
                    f"`{name}` must start with [batch, kv_heads, tokens] = {list(places)} as the "
                    f"keys do, but got {list(found)}."
                )
        if heads % places[1]:
            raise ValueError(
                f"`queries` must have a multiple of {places[1]} heads, but got {heads}."
            )
        if len(self.query_positions) != self.new:
            raise ValueError(
                f"`query_positions` must hold {self.new} columns, one per query, but got "
                f"{len(self.query_positions)}."
            )

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.queries.shape[1] // self.keys.shape[1]

    @property
    def new(self) -> int:
        """Number of queries in the view."""
        return self.queries.shape[2]

    def attention(self, window: int) -> Tensor:
        """Attention of the last ``window`` queries, mean over the group.

        Returns:
            Probabilities, [batch, kv_heads, min(window, new), tokens], float32. The row of a
            query that sees nothing (padding) is 0.

        Raises:
            TypeError: If the window is not an integer.
            ValueError: If the window is below 1.
        """
        return self.probabilities(self._last(window)).mean(dim=2)

    def recent_attention(self, window: int) -> Tensor:
        """Attention each token received from the last ``window`` queries, mean over queries.

        Queries that see nothing (padding) do not count.

        Returns:
            Mean attention, [batch, kv_heads, tokens], float32; 0 if there was no query at all.

        Raises:
            TypeError: If the window is not an integer.
            ValueError: If the window is below 1.
        """
        rows = self._last(window)
        mass = self._received(rows)
        return mass / self._seeing(rows).clamp_min(1) if mass.numel() else mass

    def total_attention(self) -> Tensor:
        """Attention each token received from all ``queries``, summed over queries.

        Returns:
            Accumulated attention, [batch, kv_heads, tokens], float32.
        """
        return self._received(slice(0, self.new))

    def attention_chunks(self, chunk: int = QUERIES_PER_CHUNK) -> Iterator[tuple[slice, Tensor]]:
        """Attention of all ``queries``, some at a time, so that memory is linear in tokens.

        Args:
            chunk: Queries treated at a time.

        Yields:
            Which queries, oldest first, and their ``probabilities``.
        """
        for rows in chunks(self.new, chunk):
            yield rows, self.probabilities(rows)

    def probabilities(self, rows: slice) -> Tensor:
        """Attention of some of the queries, every query head by itself.

        Args:
            rows: Which of ``queries``, by index.

        Returns:
            Probabilities, [batch, kv_heads, group, rows, tokens], float32.
        """
        seen = self.seen(rows).unsqueeze(2)
        return masked_softmax(self.logits(rows), seen, self._grouped_sinks())

    def logits(self, rows: slice) -> Tensor:
        """What some of the queries make of every place, also of those that they cannot see.

        Args:
            rows: Which of ``queries``, by index.

        Returns:
            Logits, [batch, kv_heads, group, rows, tokens], float32.
        """
        batch, kv_heads, tokens = self.valid.shape
        queries = self.queries[:, :, rows]
        per_kv_head = (batch, kv_heads, self.group * queries.shape[2], queries.shape[3])
        logits = attention_logits(
            queries.reshape(per_kv_head), self.keys, scaling=self.scaling, softcap=self.softcap
        ).view(batch, kv_heads, self.group, queries.shape[2], tokens)
        if self.slopes is None:
            return logits
        slopes = self.slopes.view(kv_heads, self.group)
        return logits.add_(linear_bias(slopes, self.positions, self.query_positions[rows]))

    def seen(self, rows: slice) -> Tensor:
        """Which tokens some of the queries may see, [batch, kv_heads, rows, tokens], bool."""
        seen = visible(self.positions, self.query_positions[rows], self.window)
        return seen & self.valid.unsqueeze(2)

    def newest(self, count: int) -> LayerView:
        """The same tokens with only the newest ``count`` queries."""
        rows = slice(self.new - min(count, self.new), self.new)
        return replace(
            self, queries=self.queries[:, :, rows], query_positions=self.query_positions[rows]
        )

    def only(self, kv_head: int) -> LayerView:
        """One KV head with the query heads that read it."""
        one = slice(kv_head, kv_head + 1)
        heads = slice(kv_head * self.group, (kv_head + 1) * self.group)
        return replace(
            self,
            keys=self.keys[:, one],
            values=self.values[:, one],
            valid=self.valid[:, one],
            positions=self.positions[:, one],
            queries=self.queries[:, heads],
            sinks=None if self.sinks is None else self.sinks[heads],
            slopes=None if self.slopes is None else self.slopes[heads],
            state=None if self.state is None else self.state[:, one],
            output_weight=None if self.output_weight is None else self.output_weight[heads],
        )

    def known_state(self, channels: int) -> Tensor:
        """``state``, or zeros if there is none yet, [batch, kv_heads, tokens, channels]."""
        if self.state is not None:
            return self.state
        return torch.zeros(*self.valid.shape, channels, device=self.keys.device)

    def rank(self) -> Tensor:
        """How many held tokens stand up to each place: 1 for the oldest, int64, as ``valid``."""
        return self.valid.cumsum(dim=-1)

    def age(self) -> Tensor:
        """How many held tokens are newer: 0 for the newest, int64, as ``valid``."""
        rank = self.rank()
        return rank[..., -1:] - rank

    def held_keys(self) -> Tensor:
        """Keys in float32, 0 at empty places, [batch, kv_heads, tokens, head_dim]."""
        return self.keys.float().masked_fill(~self.valid.unsqueeze(-1), 0.0)

    def held_values(self) -> Tensor:
        """Values in float32, 0 at empty places, [batch, kv_heads, tokens, value_dim]."""
        return self.values.float().masked_fill(~self.valid.unsqueeze(-1), 0.0)

    def unrotated_keys(self) -> Tensor:
        """``held_keys`` as they were before the model rotated them by position.

        Where padding shifted the positions of a sequence, all its keys and queries stay turned by
        one and the same rotation, so what they are to each other is right.
        """
        keys = self.held_keys()
        return keys if self.rotation is None else self.rotation.undo(keys, self.positions)

    def unrotated_queries(self) -> Tensor:
        """Queries in float32 as they were before the rotation, [batch, heads, new, head_dim]."""
        queries = self.queries.float()
        if self.rotation is None:
            return queries
        return self.rotation.undo(queries, self.query_positions)

    def packed_order(self) -> Tensor:
        """Places with the held tokens first, in their order, int64, as ``valid``.

        Neighbours among the held tokens are then neighbours in the tensor:
        ``packed = tensor.gather(-1, order)``, and back again
        ``torch.empty_like(packed).scatter_(-1, order, packed)``.
        """
        return (~self.valid).to(torch.uint8).argsort(dim=-1, stable=True)

    def group_mean(self, per_head: Tensor) -> Tensor:
        """Mean over the query heads of each KV head.

        Args:
            per_head: [batch, heads, ...].

        Returns:
            [batch, kv_heads, ...].
        """
        grouped: Tensor = per_head.unflatten(1, (self.keys.shape[1], self.group))
        return grouped.mean(dim=2)

    def _received(self, rows: slice) -> Tensor:
        """Attention from some of the queries, summed, [batch, kv_heads, tokens], float32."""
        return attention_sums(
            self.queries[:, :, rows],
            self.keys,
            self.valid,
            self.positions,
            self.query_positions[rows],
            scaling=self.scaling,
            window=self.window,
            softcap=self.softcap,
            sinks=self.sinks,
            slopes=self.slopes,
        )

    def _seeing(self, rows: slice) -> Tensor:
        """How many of these queries see any token, [batch, kv_heads, 1], int64."""
        at, empty = self.query_positions[rows], ~self.valid
        limits = torch.iinfo(torch.int64)
        if self.window is None:
            oldest = self.positions.masked_fill(empty, limits.max).amin(-1, keepdim=True)
            return (oldest <= at).sum(-1, keepdim=True)
        # positions rise where valid, so this is the newest token up to each place
        newest = self.positions.masked_fill(empty, limits.min).cummax(-1).values
        at = at.expand(*newest.shape[:2], -1).contiguous()
        up_to = torch.searchsorted(newest, at, right=True)
        too_old = torch.searchsorted(newest, at - self.window, right=True)
        return (up_to > too_old).sum(-1, keepdim=True)

    def _grouped_sinks(self) -> Tensor | None:
        if self.sinks is None:
            return None
        return self.sinks.float().view(self.keys.shape[1], self.group, 1, 1)

    def _last(self, window: int) -> slice:
        check_count("window", window)
        return slice(self.new - min(window, self.new), self.new)
