"""Layers by how much attention turns the residual stream: the layer score of SqueezeAttention.

Reference:
    Wang et al., "SqueezeAttention: 2D Management of KV-Cache in LLM Inference via Layer-wise
    Optimal Budget", 2024. https://arxiv.org/abs/2404.04793
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn.functional import cosine_similarity

from ..cache_view import mean_over
from ..heuristic import CacheHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..cache_view import CacheView


@register("residual_change")
@dataclass(frozen=True, slots=True)
class ResidualChange(CacheHeuristic):
    """Weigh a layer by how much its attention turns the residual stream.

        importance = mean_t 1 - cos(residual[t], residual[t] + attention[t])

    All caches of a layer weigh the same. The authors measure each prompt anew and cluster the
    layers; to divide as they do, pass the numbers on:

        importance = kvbudget.measure_importance(model, prompts, ResidualChange())
        solver = kvbudget.solvers.SqueezeAttention(importance=importance)
    """

    def importance(self, view: CacheView) -> Tensor:
        """Weigh the layer, the same for each of its caches, [kv_heads], in 0..2."""
        before = view.residual.float()
        after = before + view.project(view.outputs())
        turned = 1.0 - cosine_similarity(before, after, dim=-1)
        score = mean_over(turned.clamp_min(0.0), view.real_tokens())
        return score.expand(view.layer.keys.shape[1])
