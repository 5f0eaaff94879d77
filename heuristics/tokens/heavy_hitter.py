"""Attention that a token has gathered so far.

Reference:
    Zhang et al., "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language
    Models", NeurIPS 2023. https://arxiv.org/abs/2306.14048
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..heuristic import RunningHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView


@register("heavy_hitter")
@dataclass(frozen=True, slots=True)
class HeavyHitter(RunningHeuristic):
    """Score a token by the attention it received from all queries so far, summed.

    Zhang et al. decide per query head; here the heads that share a cache are averaged. A sum
    favours old tokens, which more queries have seen. Each sequence of a batch has its own scores.
    """

    def observe(self, view: LayerView) -> Tensor:
        """Add the attention of the new queries, [batch, kv_heads, tokens, 1]."""
        return view.known_state(self.channels) + view.total_attention().unsqueeze(-1)

    def score(self, view: LayerView) -> Tensor:
        """Score by accumulated attention, [batch, kv_heads, tokens]."""
        return view.known_state(self.channels)[..., 0]
