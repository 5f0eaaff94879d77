"""Tokens that attention comes back to, judged by how long it stays away.

Reference:
    Zhang et al., "LazyEviction: Lagged KV Eviction with Attention Pattern Observation for
    Efficient Long Reasoning", ACL 2026. https://arxiv.org/abs/2506.15969
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ..heuristic import RunningHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView

QUERIES_PER_CHUNK = 64
LEAST_INTERVAL = 1e-6


@register("lazy_eviction")
@dataclass(frozen=True, slots=True)
class LazyEviction(RunningHeuristic):
    """Score a token by whether its longest absence so far leaves hope that it is needed again.

    A token is active when a query gives it at least ``threshold``, and counts as active when it
    enters. With ``absence`` the queries since it last was and ``interval`` the longest time
    between two activities, the score is 2 sigmoid(-absence / interval) + 2 sigmoid(-1 / interval):
    near 2 for a token that is active after long absences, 0 for one that never came back.

    The two terms follow a public summary of the paper; that they are added is not confirmed by
    it. Its words contradict its second term: by them a token of short intervals ranks higher, by
    the formula lower, and the formula is followed here. Zhang et al. also wait some queries between
    evictions and keep the newest tokens, which the runtime does. The heads that share a cache are
    averaged.

    Args:
        threshold: Attention that makes a token active. Others report 0.0001.
    """

    channels: ClassVar[int] = 2

    threshold: float = 1e-4

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 < self.threshold <= 1:
            raise ValueError(
                f"`threshold` must be above 0 and at most 1, but got threshold={self.threshold}."
            )

    def observe(self, view: LayerView) -> Tensor:
        """Update absence and longest interval, in queries, [batch, kv_heads, tokens, 2]."""
        absence, interval = view.known_state(self.channels).unbind(dim=-1)
        for rows, probabilities in view.attention_chunks(QUERIES_PER_CHUNK):
            active = probabilities.mean(dim=2) >= self.threshold
            entered = (view.positions - view.query_positions[rows.start]).float()
            last = torch.maximum(-1 - absence, entered)  # row of the last activity
            row = torch.arange(active.shape[2], device=last.device).unsqueeze(-1)
            marks = torch.where(active, row, last.unsqueeze(2))
            before = torch.cat([last.unsqueeze(2), marks], dim=2).cummax(dim=2).values
            gaps = (row - before[:, :, :-1]).where(active, 0.0)
            interval = torch.maximum(interval, gaps.amax(dim=2))
            absence = len(row) - 1 - before[:, :, -1]
        return torch.stack([absence, interval], dim=-1)

    def score(self, view: LayerView) -> Tensor:
        """Score by hope of return, from 0 to 2."""
        absence, interval = view.known_state(self.channels).unbind(dim=-1)
        interval = interval.clamp_min(LEAST_INTERVAL)
        return 2 * (-absence / interval).sigmoid() + 2 * (-1 / interval).sigmoid()
