"""What is attended to: one layer of a model with eight KV heads of size 128, cut to a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

KV_HEADS, HEAD_DIM, TAIL_TOKENS, SEED = 8, 128, 32, 0


@dataclass(frozen=True, slots=True)
class Case:
    """One decoded token of every sequence.

    Args:
        context_tokens: Tokens read before, per sequence.
        batch: Sequences.
        group: Query heads of each KV head.
        kept: Share of the context that is kept.
        is_even: Whether all KV heads keep equally many; otherwise a few keep nearly all of theirs
            and most keep little.
        dtype: Of keys and values.
    """

    context_tokens: int
    batch: int
    group: int
    kept: float
    is_even: bool
    dtype: torch.dtype = torch.bfloat16

    def __str__(self) -> str:
        shares = "even" if self.is_even else "uneven"
        sizes = f"context {self.context_tokens}, batch {self.batch}, group {self.group}"
        return f"{sizes}, kept {self.kept:.0%} {shares}"

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's key and value in one KV head."""
        return 2 * HEAD_DIM * self.dtype.itemsize

    def lengths(self) -> Tensor:
        """Tokens that each cache keeps, int64 [batch * kv_heads], on the CPU."""
        pairs = self.batch * KV_HEADS
        total = int(self.kept * self.context_tokens * pairs)
        if self.is_even or self.kept == 1:
            return torch.full((pairs,), total // pairs)
        drawn = torch.rand(pairs, generator=torch.Generator().manual_seed(SEED)) ** 4 + 0.01
        return shared_out(drawn, total, self.context_tokens)


def shared_out(weights: Tensor, total: int, most: int) -> Tensor:
    """Divide a total by weights, nobody getting more than `most`; int64, like the weights."""
    shares = torch.zeros(len(weights), dtype=torch.float64)
    left = torch.ones(len(weights), dtype=torch.bool)
    while left.any():
        rest = total - float(shares[~left].sum())
        shares[left] = weights[left].double() / weights[left].double().sum() * rest
        over = left & (shares > most)
        if not over.any():
            break
        shares[over], left = float(most), left & ~over
    return shares.long().clamp(min=1)


def cases(is_small: bool) -> Iterator[Case]:
    """All cases, those of the longest contexts last.

    Args:
        is_small: Tiny ones, to try the program itself.
    """
    if is_small:
        for even in (True, False):
            yield Case(96, 2, 2, 0.25, even, torch.float32)
        return
    for context in (8192, 32768, 131072):
        for batch in (1, 8, 32):
            for group in (4, 1, 8):
                yield Case(context, batch, group, 0.25, is_even=False)
            yield Case(context, batch, 4, 0.25, is_even=True)
            yield Case(context, batch, 4, 1.0, is_even=True)
