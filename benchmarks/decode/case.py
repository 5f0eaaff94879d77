"""What is decoded: a model of eight layers with eight KV heads of size 64 each, and a context."""

from dataclasses import dataclass

import numpy as np
import torch

LAYERS, KV_HEADS, HEAD_DIM, KEPT, SEED = 8, 8, 64, 0.25, 0


@dataclass(frozen=True, slots=True)
class Case:
    """One sequence of so many tokens, of which a quarter is kept, by heads of unequal length.

    Args:
        context_tokens: Tokens read before the first is decoded.
        group: Query heads of each KV head.
        dtype: Of keys and values.
    """

    context_tokens: int
    group: int
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        queries = f"{self.group} queries per KV head"
        return f"context {self.context_tokens}, {queries}, {kind}, kept {KEPT:.0%}"

    def capacities(self) -> np.ndarray:
        """Tokens each cache keeps, spread widely around a quarter, int64 [layers, kv_heads]."""
        drawn = np.random.default_rng(SEED).random((LAYERS, KV_HEADS)) ** 2 + 0.05
        share = np.minimum(drawn / drawn.mean() * KEPT, 1.0)
        return np.maximum(64, (share * self.context_tokens).astype(np.int64))
