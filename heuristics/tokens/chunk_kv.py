"""Whole chunks of consecutive tokens, by the attention they receive together.

Reference:
    Liu et al., "ChunkKV: Semantic-Preserving KV Cache Compression for Efficient Long-Context LLM
    Inference", NeurIPS 2025. https://arxiv.org/abs/2502.00299
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..heuristic import TokenHeuristic
from ..neighbours import runs, spread
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView


@register("chunk_kv")
@dataclass(frozen=True, slots=True)
class ChunkKV(TokenHeuristic):
    """Score a token by the mean attention that its chunk receives from the last queries.

    Chunks are consecutive held tokens, counted from the oldest; all tokens of a chunk score
    alike. The tokens of the last ``window`` queries come first, the newest highest. Liu et al.
    sum over a chunk, which is the same order but for a shorter chunk at the end. They also let
    several layers share the chosen chunks, which is not done here. The heads that share a cache
    are averaged.

    Args:
        window: How many of the last queries are observed. That the authors use 32 is not
            confirmed.
        length: Tokens per chunk. The authors use 10.
    """

    window: int = 32
    length: int = 10

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("window", "length"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, but got {name}={value}.")

    def score(self, view: LayerView) -> Tensor:
        """Score by the mean in the chunk, at most 1; tokens of the last queries above 1."""
        age = view.age()
        older = view.valid & (age >= self.window)
        by_chunk = runs(view.recent_attention(self.window), older, self.length)
        there = by_chunk.isfinite()
        mean = by_chunk.where(there, 0.0).sum(dim=-1) / there.sum(dim=-1).clamp_min(1)
        return torch.where(older, spread(mean, older, self.length), 2 - age / self.window)
