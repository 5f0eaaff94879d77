"""Attention that a token has gathered so far, times the size of its value.

Reference:
    Guo et al., "Attention Score is not All You Need for Token Importance Indicator in KV Cache
    Reduction: Value Also Matters", EMNLP 2024. https://arxiv.org/abs/2406.12335
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


@register("value_mass")
@dataclass(frozen=True, slots=True)
class ValueMass(RunningHeuristic):
    """Score a token by accumulated attention times the norm of its value.

    A token matters to the output only if it is attended to and its value is not near zero. Guo et
    al. multiply either accumulated attention or counts as of Scissorhands; this is the former.
    They decide per query head; here the heads that share a cache are averaged.

    Args:
        order: Order of the norm. The authors use 1.
    """

    order: float = 1.0

    def __post_init__(self) -> None:
        """Check the settings."""
        if not self.order > 0:
            raise ValueError(f"`order` must be above 0, but got order={self.order}.")

    def observe(self, view: LayerView) -> Tensor:
        """Add the attention of the new queries, [batch, kv_heads, tokens, 1]."""
        return view.known_state(self.channels) + view.total_attention().unsqueeze(-1)

    def score(self, view: LayerView) -> Tensor:
        """Score by attention times norm, [batch, kv_heads, tokens]."""
        size: Tensor = torch.linalg.vector_norm(view.held_values(), self.order, dim=-1)
        return view.known_state(self.channels)[..., 0] * size
