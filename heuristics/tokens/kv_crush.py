"""Important tokens, and a spread of those that the heads treat differently.

Reference:
    Jha et al., "KVCrush: Key Value Cache Size-Reduction Using Similarity in Head-Behaviour",
    ACML 2025. https://arxiv.org/abs/2503.00022
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import torch

from ..columns import sum_by_column
from ..heuristic import TokenHeuristic
from ..registry import register
from ..two_stages import two_stage_score
from .observation_window import ObservationWindow

if TYPE_CHECKING:
    from torch import Tensor

    from ..layer_view import LayerView

SPREAD_BITS = 24
GOLDEN = 10_368_889  # 2 ** 24 divided by the golden ratio, odd
ABSENT = torch.iinfo(torch.int64).max


class Anchor(Enum):
    """The bits that a token's bits are compared with; the value says which."""

    ZEROS = "No head keeps the token."
    ALTERNATING = "Every second query head keeps the token."


@register("kv_crush")
@dataclass(frozen=True, slots=True)
class KVCrush(TokenHeuristic):
    """Order tokens by a selection in two stages: the important ones, then a spread of the others.

    A token has one bit per query head of the layer: whether it is in the half of the tokens that
    this head attends to most, seen from the last queries. Tokens are sorted by the Hamming
    distance of their bits to an anchor. Most of a cache goes to the tokens with the highest window
    attention, as `ObservationWindow` scores them; the rest of it goes to representatives, taken
    at even distances from the sorted tokens. The score is minus the smallest capacity at which
    the two stages select the token.

    Jha et al. sort what the first stage leaves and take every n-th, anew at each capacity. For
    one order at all capacities, here all tokens are sorted and taken in the order of multiples of
    the golden ratio, whose beginnings are all nearly even; those the first stage has are skipped.
    They choose one set of tokens for all heads of a layer; here each KV head has its own, and a
    token that another head has dropped counts there as not kept. Of their anchors only `ZEROS`
    does not depend on how heads are numbered.

    Args:
        window: How many of the last queries are observed.
        kernel: Width of the max-pooling of their attention, odd; 1 is none.
        share: Part of a cache that goes to representatives. NNCF uses 64 of 512 tokens.
        anchor: What bits are compared with.
    """

    window: int = 32
    kernel: int = 7
    share: float = 0.125
    anchor: Anchor = Anchor.ZEROS

    def __post_init__(self) -> None:
        """Check the settings."""
        ObservationWindow(self.window, self.kernel)
        if not 0 <= self.share <= 1:
            raise ValueError(f"`share` must be between 0 and 1, but got share={self.share}.")

    def score(self, view: LayerView) -> Tensor:
        """Score by minus the smallest sufficient capacity, [batch, kv_heads, tokens]."""
        attention = ObservationWindow(self.window, self.kernel).score(view)
        spread = _spread(self._distance(view), view.valid)
        return two_stage_score(attention, spread, view.valid, 1 - self.share)

    def _distance(self, view: LayerView) -> Tensor:
        """Bits of a token that differ from the anchor, int64, [batch, kv_heads, tokens]."""
        heads = torch.arange(view.queries.shape[1], device=view.keys.device)
        wanted = heads.view(-1, view.group) % 2  # [kv_heads, group]
        if self.anchor is Anchor.ZEROS:
            wanted = torch.zeros_like(wanted)
        differ = (self._bits(view) != wanted[..., None]).sum(dim=2)
        # a head that does not hold the token has only bits that are 0
        without = wanted.sum(dim=-1)
        return without.sum() + sum_by_column(view, differ - without[:, None])

    def _bits(self, view: LayerView) -> Tensor:
        """Whether each query head would keep a token, [batch, kv_heads, group, tokens], 0 or 1."""
        rows = slice(view.new - min(self.window, view.new), view.new)
        mass = view.probabilities(rows).sum(dim=3).masked_fill(~view.valid.unsqueeze(2), -1.0)
        order = mass.argsort(dim=-1, descending=True, stable=True)
        place = torch.arange(order.shape[-1], device=order.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(-1, order, place)
        return (2 * rank < view.valid.sum(dim=-1)[..., None, None]).long()


def _spread(distance: Tensor, valid: Tensor) -> Tensor:
    """Number whose highest ``m`` are nearly evenly spread over the sorted tokens, for every m."""
    order = distance.masked_fill(~valid, ABSENT).argsort(dim=-1, stable=True)
    place = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    turn = place * GOLDEN % 2**SPREAD_BITS
    return torch.empty_like(order).scatter_(-1, order, -turn).float()
