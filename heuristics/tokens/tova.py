"""Attention that a token receives from the newest query, over all heads of the layer.

Reference:
    Oren et al., "Transformers are Multi-State RNNs", EMNLP 2024. https://arxiv.org/abs/2401.06104
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..columns import sum_by_column
from ..heuristic import TokenHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView


@register("tova")
@dataclass(frozen=True, slots=True)
class Tova(TokenHeuristic):
    """Score a token by the newest query's attention, averaged over all heads of the layer.

    Every KV head gives a token the same score. Oren et al. drop the same tokens in all of them
    and decide after every query; here each keeps as many as the plan gives it, and a head that
    holds a token no longer counts as giving it no attention. The authors protect neither sinks
    nor recent tokens.
    """

    def score(self, view: LayerView) -> Tensor:
        """Score by attention at the same column, [batch, kv_heads, tokens]."""
        return sum_by_column(view, view.recent_attention(1)) / view.valid.shape[1]
