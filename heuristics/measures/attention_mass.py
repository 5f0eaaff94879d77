"""Attention that future queries would have paid to dropped tokens.

Reference:
    Feng et al., "Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation for
    Efficient LLM Inference", NeurIPS 2025, bound the output error by this mass.
    https://arxiv.org/abs/2407.11550
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .measure import Measure, register

if TYPE_CHECKING:
    from torch import Tensor

    from ..cut_view import CutView


@register("attention_mass")
@dataclass(frozen=True, slots=True)
class AttentionMass(Measure):
    """Dropped share of the attention, mean over future queries and the group; in [0, 1]."""

    def loss(self, view: CutView) -> Tensor:
        """Mean dropped mass, [kv_heads, levels]."""
        kv_heads = view.keys.shape[0]
        total = torch.zeros(kv_heads, view.levels, dtype=torch.float64, device=view.queries.device)
        for cut in view.cuts():
            dropped = 1.0 - cut.kept_mass.double()
            total += dropped.view(kv_heads, -1, view.levels).sum(dim=1)
        return total / (view.group * view.future)
