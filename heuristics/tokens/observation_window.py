"""Attention that a token receives from the last queries, spread to its neighbours.

Reference:
    Li et al., "SnapKV: LLM Knows What You are Looking for Before Generation", NeurIPS 2024.
    https://arxiv.org/abs/2404.14469
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..heuristic import TokenHeuristic
from ..neighbours import largest_nearby, mean_nearby
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView


@register("observation_window")
@dataclass(frozen=True, slots=True)
class ObservationWindow(TokenHeuristic):
    """Score a token by the most attention that it or a neighbour gets from the last queries.

    The last ``window`` tokens themselves come first, the newest highest; they neither are pooled
    nor lend their attention to others. Neighbours are tokens next to each other among those held.
    Li et al. decide per query head; here the heads that share a cache are averaged.

    Args:
        window: How many of the last queries are observed. Li et al. use 32 on LongBench.
        kernel: Width of the pooling over tokens, odd. Li et al. use 7 on LongBench; 1 is none.
        mean_pooling: Whether neighbours are averaged instead. Their code can do both; kvpress
            averages, with a window of 64 and a kernel of 5.
    """

    window: int = 32
    kernel: int = 7
    mean_pooling: bool = False

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.window < 1:
            raise ValueError(f"`window` must be at least 1, but got window={self.window}.")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"`kernel` must be odd and at least 1, but got kernel={self.kernel}.")

    def score(self, view: LayerView) -> Tensor:
        """Score by pooled attention, at most 1; tokens of the window above 1."""
        age = view.age()
        observed = view.valid & (age >= self.window)
        mass = view.recent_attention(self.window)
        pool = mean_nearby if self.mean_pooling else largest_nearby
        recency = 2 - age / self.window  # above 1 inside the window
        return torch.where(observed, pool(mass, observed, self.kernel), recency)
