"""Tokens that are attended to and that no later token repeats.

Reference:
    Cai et al., "R-KV: Redundancy-aware KV Cache Compression for Reasoning Models", NeurIPS 2025.
    https://arxiv.org/abs/2505.24133
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from kvbudget.kernels.attention import chunks, masked_softmax

from ..heuristic import TokenHeuristic
from ..neighbours import largest_nearby
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView

ROWS_PER_CHUNK = 256


@register("r_kv")
@dataclass(frozen=True, slots=True)
class RKV(TokenHeuristic):
    """Score a token by its attention from the last queries minus the redundancy of its key.

    Attention is softmax over the tokens before the window, of the largest logit among the query
    heads that share the cache, averaged over the queries and max-pooled over neighbours.
    Redundancy is the mean cosine to the keys of the other tokens, and a softmax of that over the
    tokens; but every token lets one other go free, the newest one that is similar to it, so that
    of many repetitions the last survives. The tokens of the window come first, the newest
    highest.

    Cai et al. compress while a chain of thought is decoded; here the prompt is compressed by the
    same rule. Their code keeps all tokens of the window. The time is quadratic in the tokens held,
    the memory linear.

    Args:
        window: How many of the last queries are observed. Cai et al. use 8.
        kernel: Width of the max-pooling over tokens, odd. Cai et al. use 7; 1 is none.
        attention: Weight of attention, 0 to 1; redundancy has the rest. Cai et al. use 0.1, and
            0.07 by default in their code.
        similar: Cosine above which two keys are similar. The authors' code uses 0.5.
    """

    window: int = 8
    kernel: int = 7
    attention: float = 0.1
    similar: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.window < 1:
            raise ValueError(f"`window` must be at least 1, but got window={self.window}.")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"`kernel` must be odd and at least 1, but got kernel={self.kernel}.")
        if not 0 <= self.attention <= 1:
            raise ValueError(
                f"`attention` must be between 0 and 1, but got attention={self.attention}."
            )

    def score(self, view: LayerView) -> Tensor:
        """Score by attention minus redundancy, at most 1; tokens of the window above 1."""
        age = view.age()
        observed = view.valid & (age >= self.window)
        worth = self.attention * largest_nearby(
            self._importance(view, observed), observed, self.kernel
        )
        worth -= (1 - self.attention) * self._redundancy(view)
        return torch.where(observed, worth, 2 - age / self.window)

    def _importance(self, view: LayerView, observed: Tensor) -> Tensor:
        """Attention from the last queries to the observed tokens, [batch, kv_heads, tokens]."""
        rows = slice(view.new - min(self.window, view.new), view.new)
        highest = view.logits(rows).amax(dim=2)
        seen = view.seen(rows) & observed.unsqueeze(2)
        mass = masked_softmax(highest, seen, None).sum(dim=2)
        return mass / seen.any(dim=-1).sum(dim=-1, keepdim=True).clamp_min(1)

    def _redundancy(self, view: LayerView) -> Tensor:
        """Softmax of the mean cosine to the other keys, [batch, kv_heads, tokens]."""
        directions = normalize(view.held_keys(), dim=-1)
        others = directions.sum(dim=2, keepdim=True) - directions
        total = (directions * others).sum(dim=-1)
        place = torch.arange(total.shape[-1], device=total.device)
        for rows in chunks(len(place), ROWS_PER_CHUNK):
            cosine = directions[:, :, rows] @ directions.mT
            alike = (cosine > self.similar) & (place[rows, None] != place)
            newest = torch.where(alike, place, -1).amax(dim=-1)
            freed = cosine.gather(-1, newest.clamp_min(0).unsqueeze(-1)).squeeze(-1)
            total.scatter_add_(-1, newest.clamp_min(0), -freed.masked_fill(newest < 0, 0.0))
        mean = total / view.valid.sum(dim=-1, keepdim=True).clamp_min(1)
        return mean.masked_fill(~view.valid, -torch.inf).softmax(dim=-1)
