"""First and most recent tokens, whatever they say.

Reference:
    Xiao et al., "Efficient Streaming Language Models with Attention Sinks", ICLR 2024.
    https://arxiv.org/abs/2309.17453
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ..heuristic import TokenHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView


@register("sink_recent")
@dataclass(frozen=True, slots=True)
class SinkRecent(TokenHeuristic):
    """Score the first tokens of a sequence highest, and the others by how recent they are.

    Xiao et al. also rotate the kept keys anew by their slot in the cache. Here, as everywhere in
    this package, keys keep the positions at which the model rotated them.

    Args:
        sinks: How many of the first held tokens go before all others. Xiao et al. use 4.
    """

    reads_queries: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = False

    sinks: int = 4

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.sinks < 0:
            raise ValueError(f"`sinks` must be at least 0, but got sinks={self.sinks}.")

    def score(self, view: LayerView) -> Tensor:
        """Score by order alone, [batch, kv_heads, tokens]."""
        rank, age = view.rank(), view.age()
        is_sink = view.valid & (rank <= self.sinks)
        return torch.where(is_sink, 1 + self.sinks - rank, -age).float()
