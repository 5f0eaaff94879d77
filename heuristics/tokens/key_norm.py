"""Tokens whose key is short.

Reference:
    Devoto et al., "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression",
    EMNLP 2024. https://arxiv.org/abs/2406.11430
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


@register("key_norm")
@dataclass(frozen=True, slots=True)
class KeyNorm(TokenHeuristic):
    """Score a token by minus the Euclidean norm of its key.

    Devoto et al. observe that keys with a small norm tend to receive much attention, so no query
    is needed. They leave the first layers whole; here that is the allocation's decision.
    """

    reads_queries: ClassVar[bool] = False

    def score(self, view: LayerView) -> Tensor:
        """Score by minus the norm of the key, [batch, kv_heads, tokens]."""
        norm: Tensor = torch.linalg.vector_norm(view.keys, dim=-1, dtype=torch.float32)
        return -norm
