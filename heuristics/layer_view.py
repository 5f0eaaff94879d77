"""What a token heuristic sees of one layer, and the attention it can ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from .attention import attention_logits, chunks, masked_softmax, visible

if TYPE_CHECKING:
    from torch import Tensor


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
        past_attention: Attention each token received from all queries before those in
            ``queries``: summed over queries, mean over the group, float32,
            [batch, kv_heads, tokens]. None if there were none.
        recent_attention_mass: The part of ``past_attention`` since the last eviction.
        recent_queries: How many queries that part comes from.
        all_counted: ``past_attention`` already includes the attention of ``queries``.

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
    past_attention: Tensor | None = None
    recent_attention_mass: Tensor | None = None
    recent_queries: int = 0
    all_counted: bool = False

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
        """
        return self.probabilities(self._last(window)).mean(dim=2)

    def recent_attention(self, window: int) -> Tensor:
        """Attention each token received from the last ``window`` queries, mean over queries.

        Queries that see nothing (padding) do not count. If the view holds fewer queries than the
        window, what was gathered since the last eviction is averaged in.

        Returns:
            Mean attention, [batch, kv_heads, tokens], float32; 0 if there was no query at all.
        """
        rows = self._last(window)
        mass = self.probabilities(rows).mean(dim=2).sum(dim=2)
        num_queries = self._seen(rows).any(dim=-1).sum(dim=-1, keepdim=True)
        if self.recent_attention_mass is not None and self.new < window:
            mass = mass + self.recent_attention_mass
            num_queries = num_queries + self.recent_queries
        return mass / num_queries.clamp_min(1)

    def total_attention(self, chunk: int = 256) -> Tensor:
        """Attention each token received from all queries so far, summed over queries.

        Args:
            chunk: Queries treated at a time, so that memory is linear in tokens.

        Returns:
            Accumulated attention, [batch, kv_heads, tokens], float32.
        """
        total = torch.zeros(self.valid.shape, dtype=torch.float32, device=self.keys.device)
        if self.past_attention is not None:
            total += self.past_attention
        if self.all_counted:
            return total
        for rows in chunks(self.new, chunk):
            total += self.probabilities(rows).mean(dim=2).sum(dim=2)
        return total

    def counted(self) -> LayerView:
        """The same view with the attention of ``queries`` counted once and for all."""
        return replace(self, past_attention=self.total_attention(), all_counted=True)

    def probabilities(self, rows: slice) -> Tensor:
        """Attention of some of the queries, every query head by itself.

        Args:
            rows: Which of ``queries``, by index.

        Returns:
            Probabilities, [batch, kv_heads, group, rows, tokens], float32.
        """
        batch, kv_heads, tokens = self.valid.shape
        queries = self.queries[:, :, rows]
        per_kv_head = (batch, kv_heads, self.group * queries.shape[2], queries.shape[3])
        logits = attention_logits(
            queries.reshape(per_kv_head), self.keys, scaling=self.scaling, softcap=self.softcap
        ).view(batch, kv_heads, self.group, queries.shape[2], tokens)
        return masked_softmax(logits, self._seen(rows).unsqueeze(2), self._grouped_sinks())

    def _seen(self, rows: slice) -> Tensor:
        """Bool, [batch, kv_heads, rows, tokens]."""
        seen = visible(self.positions, self.query_positions[rows], self.window)
        return seen & self.valid.unsqueeze(2)

    def _grouped_sinks(self) -> Tensor | None:
        if self.sinks is None:
            return None
        return self.sinks.float().view(self.keys.shape[1], self.group, 1, 1)

    def _last(self, window: int) -> slice:
        return slice(self.new - min(window, self.new), self.new)
