"""Attention that a token has gathered so far, or receives from the last queries.

Reference:
    Li et al., "EMS: Adaptive Evict-then-Merge Strategy for Head-wise KV Cache Compression Based
    on Global-Local Importance", 2024. https://arxiv.org/abs/2412.08521
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..heuristic import RunningHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView


@register("global_local")
@dataclass(frozen=True, slots=True)
class GlobalLocal(RunningHeuristic):
    """Score a token by the larger of its accumulated and its recent attention.

    The accumulated attention is first scaled so that both add up to the same in each cache. That
    Li et al. take the larger of two aligned scores is what a public review says; how they align
    them is not confirmed, so the weight is a setting. They also merge tokens and decide per query
    head; here tokens are evicted and the heads that share a cache are averaged.

    Args:
        window: How many of the last queries count as recent. While decoding the runtime may
            remember no more than 32.
        global_weight: Factor on the accumulated attention; 0 leaves the recent attention alone.
    """

    window: int = 32
    global_weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.window < 1:
            raise ValueError(f"`window` must be at least 1, but got window={self.window}.")
        if not 0 <= self.global_weight < float("inf"):
            raise ValueError(
                f"`global_weight` must be at least 0, but got global_weight={self.global_weight}."
            )

    def observe(self, view: LayerView) -> Tensor:
        """Add the attention of the new queries, [batch, kv_heads, tokens, 1]."""
        return view.known_state(self.channels) + view.total_attention().unsqueeze(-1)

    def score(self, view: LayerView) -> Tensor:
        """Score by the larger attention, in the unit of the recent one."""
        gathered = view.known_state(self.channels)[..., 0].masked_fill(~view.valid, 0.0)
        recent = view.recent_attention(self.window)
        least = torch.finfo(torch.float32).tiny
        shares = gathered / gathered.sum(dim=-1, keepdim=True).clamp_min(least)
        aligned = shares * recent.sum(dim=-1, keepdim=True)
        return torch.maximum(self.global_weight * aligned, recent)
