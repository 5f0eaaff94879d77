"""How often a token got less than its share of attention.

Reference:
    Liu et al., "Scissorhands: Exploiting the Persistence of Importance Hypothesis for LLM KV
    Cache Compression at Test Time", NeurIPS 2023. https://arxiv.org/abs/2305.17118
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from kvbudget.kernels.attention import chunks

from ..heuristic import RunningHeuristic
from ..layer_view import QUERIES_PER_CHUNK
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView

BITS_PER_CHANNEL = 24
"""Whole numbers of so many bits are exact in float32."""


@register("scissorhands")
@dataclass(frozen=True, slots=True)
class Scissorhands(RunningHeuristic):
    """Score a token by minus the number of the last queries that gave it less than 1/t.

    ``t`` is how many tokens the query sees, so 1/t is what even attention would give. Queries
    that do not see the token do not count, which favours young tokens. Liu et al. decide per
    query head; here the heads that share a cache are averaged before they are compared with 1/t.
    What each of the last queries gave is remembered as one bit: 68 bytes per token and KV head.

    Args:
        history: How many of the last queries count, at most 408. The authors' setting, as others
            report it, is 400.
    """

    channels: ClassVar[int] = 17

    history: int = 400

    def __post_init__(self) -> None:
        """Check the settings."""
        most = self.channels * BITS_PER_CHANNEL
        if not 1 <= self.history <= most:
            raise ValueError(f"`history` must be from 1 to {most}, but got history={self.history}.")

    def observe(self, view: LayerView) -> Tensor:
        """Append one bit per query, 1 for less than 1/t, [batch, kv_heads, tokens, channels]."""
        low = _unpacked(view.known_state(self.channels))
        bits = low.shape[-1]
        skipped = max(0, view.new - bits)
        for part in chunks(view.new - skipped, QUERIES_PER_CHUNK):
            rows = slice(skipped + part.start, skipped + part.stop)
            low = torch.cat([low, _below_even(view, rows).mT], dim=-1)[..., -bits:]
        return _packed(low)

    def score(self, view: LayerView) -> Tensor:
        """Score by minus the count, a whole number from -history to 0."""
        low = _unpacked(view.known_state(self.channels))[..., -self.history :]
        return -low.sum(dim=-1).float()


def _below_even(view: LayerView, rows: slice) -> Tensor:
    """Whether a query gave a token it sees less than 1/t, [batch, kv_heads, rows, tokens]."""
    seen = view.seen(rows)
    even = 1 / seen.sum(dim=-1, keepdim=True)
    return seen & (view.probabilities(rows).mean(dim=2) < even)


def _packed(bits: Tensor) -> Tensor:
    """Write bits as numbers, bool [..., bits] to float32 [..., channels]."""
    exponents = torch.arange(BITS_PER_CHANNEL, dtype=torch.float32, device=bits.device)
    by_channel = bits.view(*bits.shape[:-1], -1, BITS_PER_CHANNEL)
    # no matrix product: autocast would round it
    return (by_channel * exponents.exp2()).sum(dim=-1)


def _unpacked(numbers: Tensor) -> Tensor:
    """Undo ``_packed``."""
    shifts = torch.arange(BITS_PER_CHANNEL, dtype=torch.int32, device=numbers.device)
    return ((numbers.to(torch.int32).unsqueeze(-1) >> shifts) & 1).bool().flatten(-2)
