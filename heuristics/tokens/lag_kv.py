"""Tokens that lie outside the range of those that come after them.

Reference:
    Liang et al., "LagKV: Lag-Relative Information of the KV Cache Tells Which Tokens Are
    Important", 2025. https://arxiv.org/abs/2504.04704
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn.functional import pad

from ..heuristic import TokenHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView


@register("lag_kv")
@dataclass(frozen=True, slots=True)
class LagKV(TokenHeuristic):
    """Score a token by how unevenly its key and value fill the ranges of the next partition.

    Behind the first tokens the cache is cut into partitions. The channels of a partition are
    scaled by the smallest and largest numbers in the next one; a token whose scaled channels
    spread widely is kept. Tokens are ranked inside their partition, so every partition keeps the
    same share, as with Liang et al.; among tokens of equal rank the wider spread comes first.
    What has no next partition goes before all that has one, the newest first, and the first
    tokens go before that.

    Liang et al. compress a partition once, and nothing while there are fewer than two. Here the
    partitions are those of the tokens held at each eviction, so a token that stayed is compared
    again, with new neighbours; and a shorter cache is cut into two halves.

    Args:
        lag: Tokens of a partition. kvpress uses 128, the authors' code 1024.
        sinks: First held tokens that belong to no partition. kvpress uses 4, the authors' code 16.
    """

    reads_queries: ClassVar[bool] = False

    lag: int = 128
    sinks: int = 4

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.lag < 1:
            raise ValueError(f"`lag` must be at least 1, but got lag={self.lag}.")
        if self.sinks < 0:
            raise ValueError(f"`sinks` must be at least 0, but got sinks={self.sinks}.")

    def score(self, view: LayerView) -> Tensor:
        """Score by rank inside the partition, at most 1; tokens without a rank above 1."""
        order = view.packed_order()
        tokens = order.shape[-1]
        held = view.valid.sum(dim=-1)[..., None, None]
        lag = ((held - self.sinks) // 2).clamp(1, self.lag)  # [batch, kv_heads, 1, 1]
        offset = torch.arange(self.lag, device=order.device)
        part = torch.arange(max(2, -(-tokens // self.lag)), device=order.device).unsqueeze(-1)
        place = self.sinks + part * lag + offset  # among the held, [..., partitions, self.lag]
        inside = (offset < lag).expand_as(place)
        compared = inside & (self.sinks + (part + 2) * lag <= held)
        source = order.gather(-1, place.clamp_max(tokens - 1).flatten(2))
        keys, values = view.held_keys(), view.held_values()
        share = (_share(keys, source, inside) + _share(values, source, inside)) / 2
        rank = share.masked_fill(~inside, torch.inf).argsort(dim=-1, stable=True).argsort(dim=-1)
        # the share is at most 1, so it only decides between tokens of equal rank
        ranked = ((rank + share) / lag).flatten(2)
        packed = pad(self._by_age(view), (0, 1))  # with a place for what is not compared
        packed.scatter_(-1, torch.where(compared, place, tokens).flatten(2), ranked)
        return torch.empty_like(order, dtype=torch.float32).scatter_(-1, order, packed[..., :-1])

    def _by_age(self, view: LayerView) -> Tensor:
        """Score of packed tokens that have no rank: sinks, then the newest first."""
        place = torch.arange(view.valid.shape[-1], device=view.valid.device)
        above_all = 3 + self.sinks + view.valid.sum(dim=-1, keepdim=True)
        return torch.where(place < self.sinks, above_all - place, 2 + place).float()


def _share(vectors: Tensor, source: Tensor, inside: Tensor) -> Tensor:
    """Softmax, over each partition, of the spread of every token's scaled channels.

    Args:
        vectors: Keys or values, [batch, kv_heads, tokens, channels], float32.
        source: Where the tokens of all partitions are, [batch, kv_heads, partitions * lag].
        inside: Which of them belong there, bool, [batch, kv_heads, partitions, lag].

    Returns:
        As ``inside``; of no use where there is no next partition.
    """
    spread_over = source.unsqueeze(-1).expand(-1, -1, -1, vectors.shape[-1])
    parts = vectors.gather(2, spread_over).unflatten(2, inside.shape[2:])
    outside = ~inside.unsqueeze(-1)
    low = parts.masked_fill(outside, torch.inf).amin(dim=3, keepdim=True).roll(-1, dims=2)
    high = parts.masked_fill(outside, -torch.inf).amax(dim=3, keepdim=True).roll(-1, dims=2)
    # a channel that never changes has no range to compare with
    scaled = torch.where(high > low, (parts - low) / (high - low), 0.0)
    return scaled.std(dim=-1).masked_fill(~inside, -torch.inf).softmax(dim=-1)
