"""Attention that a token has gathered, per query that could see it.

Reference:
    He et al., "ZipCache: Accurate and Efficient KV Cache Quantization with Salient Token
    Identification", NeurIPS 2024. https://arxiv.org/abs/2405.14256
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ..heuristic import RunningHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView


@register("zip_cache")
@dataclass(frozen=True, slots=True)
class ZipCache(RunningHeuristic):
    """Score a token by the mean attention over the queries that could see it.

    A plain sum favours old tokens, which more queries have seen. He et al. use the score to give
    tokens more or fewer bits; here it says which to keep. They estimate it from 5 % of the newest
    and 5 % of randomly chosen queries; here every query counts. The heads that share a cache are
    averaged.
    """

    channels: ClassVar[int] = 2

    def observe(self, view: LayerView) -> Tensor:
        """Add attention, and count who could give it, [batch, kv_heads, tokens, 2]."""
        gained, counted = view.known_state(self.channels).unbind(dim=-1)
        for rows, probabilities in view.attention_chunks():
            gained = gained + probabilities.mean(dim=2).sum(dim=2)
            counted = counted + view.seen(rows).sum(dim=2)
        return torch.stack([gained, counted], dim=-1)

    def score(self, view: LayerView) -> Tensor:
        """Score by the mean, at most 1; 0 for a token that no query has seen."""
        gained, counted = view.known_state(self.channels).unbind(dim=-1)
        return gained / counted.clamp_min(1)
