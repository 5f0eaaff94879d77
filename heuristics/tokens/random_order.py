"""Tokens in random order.

Original: what a heuristic must beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ..draws import columns_before, uniform
from ..heuristic import TokenHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView


@register("random_order")
@dataclass(frozen=True, slots=True)
class RandomOrder(TokenHeuristic):
    """Score a token by a number drawn for it once, so that what is kept is a fair sample.

    Every layer and KV head draws for itself. The number of a token stays the same for as long as
    the first token of its sequence is held, which the runtime protects by default; were it drawn
    anew at every eviction, old tokens would have to be lucky more often than young ones.

    Args:
        seed: Another seed gives another order.
    """

    reads_queries: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = False
    draws: ClassVar[bool] = True

    seed: int = 0

    def score(self, view: LayerView) -> Tensor:
        """Score by a random number between 0 and 1, [batch, kv_heads, tokens]."""
        heads = torch.arange(view.valid.shape[1], device=view.positions.device)
        return uniform(self.seed, view.layer, heads.unsqueeze(-1), columns_before(view))
