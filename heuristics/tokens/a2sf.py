"""Attention that a token has gathered so far, the older the attention the less it counts.

Reference:
    Jo and Shin, "A2SF: Accumulative Attention Scoring with Forgetting Factor for Token Pruning in
    Transformer Decoder", 2024. https://arxiv.org/abs/2407.20485
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


@register("a2sf")
@dataclass(frozen=True, slots=True)
class A2SF(RunningHeuristic):
    """Score a token by accumulated attention that shrinks by a factor with every query.

    This takes away the advantage of old tokens, which more queries have seen. Jo and Shin decide
    per query head; here the heads that share a cache are averaged.

    Args:
        forgetting: What is left of earlier attention after each query: 1 forgets nothing, 0
            leaves the newest query's attention. The authors choose it for each task, from 0.1 to
            0.5 as far as others report; the default is the middle.
    """

    forgetting: float = 0.3

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 <= self.forgetting <= 1:
            raise ValueError(
                f"`forgetting` must be from 0 to 1, but got forgetting={self.forgetting}."
            )

    def observe(self, view: LayerView) -> Tensor:
        """Forget and add, query by query, [batch, kv_heads, tokens, 1]."""
        total = view.known_state(self.channels)[..., 0]
        for rows, probabilities in view.attention_chunks():
            count = rows.stop - rows.start
            later = torch.arange(count - 1, -1, -1.0, device=total.device)
            weights = (self.forgetting**later).unsqueeze(-1)
            gained = (probabilities.mean(dim=2) * weights).sum(dim=2)
            total = total * self.forgetting**count + gained
        return total.unsqueeze(-1)

    def score(self, view: LayerView) -> Tensor:
        """Score by what is left, [batch, kv_heads, tokens]."""
        return view.known_state(self.channels)[..., 0]
