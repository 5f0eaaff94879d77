"""Layers by what a small cache changes in their output: the layer error of CompressKV.

Reference:
    Lin et al., "CompressKV: Semantic Retrieval Heads Know What Tokens are Not Important Before
    Generation", 2025. https://arxiv.org/abs/2508.02401
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..cache_view import check_small_cache
from ..heuristic import CacheHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..cache_view import CacheView


@register("compress_kv")
@dataclass(frozen=True, slots=True)
class CompressKV(CacheHeuristic):
    """Weigh a layer by the relative error of its output when all its caches are small.

        importance = ||attention with small caches - attention||_F / ||attention||_F

    where a matrix holds what the layer adds to the residual stream at every token. All caches of
    a layer weigh the same. The authors let their own token selection fill the small caches; here
    they hold first and latest tokens, which no other choice can change, and as many in all as the
    authors grant every cache. Pass the numbers on to ``solvers.CompressKV(importance=...)``.

    Args:
        sink_tokens: First tokens that a small cache holds.
        recent_tokens: Latest tokens that a small cache holds.
    """

    sink_tokens: int = 4
    recent_tokens: int = 28

    def __post_init__(self) -> None:
        """Check the settings."""
        check_small_cache(self.sink_tokens, self.recent_tokens)

    def importance(self, view: CacheView) -> Tensor:
        """Weigh the layer, the same for each of its caches, [kv_heads]."""
        outputs = view.outputs()
        lost = view.streaming_outputs(self.sink_tokens, self.recent_tokens) - outputs
        # a query that is padding sees nothing, so its output is 0 and does not count
        sizes = [torch.linalg.vector_norm(view.project(each)) for each in (lost, outputs)]
        error: Tensor = sizes[0] / sizes[1].clamp_min(torch.finfo(torch.float32).tiny)
        return error.expand(view.layer.keys.shape[1])
