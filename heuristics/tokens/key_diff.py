"""Tokens whose key differs from the others.

Reference:
    Park et al., "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference
    in Resource-Constrained Environments", NeurIPS 2025. https://arxiv.org/abs/2504.15364
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch.nn.functional import normalize

from ..heuristic import TokenHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView


@register("key_diff")
@dataclass(frozen=True, slots=True)
class KeyDiff(TokenHeuristic):
    """Score a token by minus the cosine between its key and the mean direction of all keys.

    Park et al. evict block by block while they read the prompt, and so the mean is over the keys
    that survived so far. Here too it is over the keys held, at whatever moments the runtime asks.
    """

    reads_queries: ClassVar[bool] = False

    def score(self, view: LayerView) -> Tensor:
        """Score by minus the cosine, between -1 and 1, [batch, kv_heads, tokens]."""
        directions = normalize(view.held_keys(), dim=-1)
        # the length of the sum does not matter, so it need not be divided by the tokens
        anchor = normalize(directions.sum(dim=2, keepdim=True), dim=-1)
        return -(directions * anchor).sum(dim=-1)
