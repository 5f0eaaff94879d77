"""When a token last got its share of attention.

Reference:
    Dai et al., "CORM: Cache Optimization with Recent Message for Large Language Model Inference",
    2024. https://arxiv.org/abs/2404.15949
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


@register("corm")
@dataclass(frozen=True, slots=True)
class Corm(RunningHeuristic):
    """Score a token by minus the queries since the last one that gave it at least 1/t.

    ``t`` is how many tokens the query sees, so 1/t is what even attention would give. A token
    that never got so much counts from before its own query.

    Dai et al. have no budget: they keep the tokens that got at least 1/t from any of the last w
    queries, which are those with a score above -w, and some of the newest; both numbers are
    reportedly 256, which was not checked. Here the plan says how many are kept, so the question
    becomes an order and w goes away. The heads that share a cache are averaged before they are
    compared with 1/t.
    """

    def observe(self, view: LayerView) -> Tensor:
        """Count queries since the last one that gave 1/t, [batch, kv_heads, tokens, 1]."""
        elapsed = view.known_state(self.channels)[..., 0]
        for rows, probabilities in view.attention_chunks():
            count = rows.stop - rows.start
            even = 1 / view.seen(rows).sum(dim=-1, keepdim=True).clamp_min(1)
            later = torch.arange(count - 1, -1, -1.0, device=elapsed.device).unsqueeze(-1)
            since = later.where(probabilities.mean(dim=2) >= even, torch.inf).amin(dim=2)
            elapsed = torch.minimum(since, elapsed + count)
        if view.new == 0:
            return elapsed.unsqueeze(-1)
        # a token that a block brought is not older than itself
        since_before = view.query_positions[-1] - view.positions + 1
        return torch.minimum(elapsed, since_before).unsqueeze(-1)

    def score(self, view: LayerView) -> Tensor:
        """Score by minus the number of queries, a whole number up to 0."""
        return -view.known_state(self.channels)[..., 0]
