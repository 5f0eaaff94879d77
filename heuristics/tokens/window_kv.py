"""Whole windows of consecutive tokens, by the attention inside.

Reference:
    Zuo et al., "WindowKV: Task-Adaptive Group-Wise KV Cache Window Selection for Efficient LLM
    Inference", 2025. https://arxiv.org/abs/2503.17922
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


@register("window_kv")
@dataclass(frozen=True, slots=True)
class WindowKV(TokenHeuristic):
    """Score a token by the mean of the largest attention inside its window.

    Windows are consecutive held tokens, counted from the oldest; all tokens of a window score
    alike. The tokens of the last ``queries`` queries come first, the newest highest.

    Zuo et al. choose the same windows for all heads, and for several layers at once; here every
    KV head chooses its own. A classifier of the task decides for them between the default, meant
    for tasks that look for a place, and ``queries=16, top=8``, meant for tasks that sum up.

    Args:
        queries: How many of the last queries are observed. The authors use 32.
        length: Tokens per window. The authors use 8.
        top: How many of the largest attentions in a window count. The authors use half of
            ``length``.
    """

    queries: int = 32
    length: int = 8
    top: int = 4

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("queries", "length"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, but got {name}={value}.")
        if not 1 <= self.top <= self.length:
            raise ValueError(
                f"`top` must be from 1 to length={self.length}, but got top={self.top}."
            )

    def score(self, view: LayerView) -> Tensor:
        """Score by the mean in the window, at most 1; tokens of the last queries above 1."""
        age = view.age()
        older = view.valid & (age >= self.queries)
        windows = runs(view.recent_attention(self.queries), older, self.length)
        largest = windows.topk(self.top, dim=-1).values
        there = largest.isfinite()
        mean = largest.where(there, 0.0).sum(dim=-1) / there.sum(dim=-1).clamp_min(1)
        return torch.where(older, spread(mean, older, self.length), 2 - age / self.queries)
