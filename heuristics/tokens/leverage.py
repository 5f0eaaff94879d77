"""Tokens whose key points where few others do.

Reference:
    Chari and Van Durme, "Compactor: Calibrated Query-Agnostic KV Cache Compression with
    Approximate Leverage Scores", 2025. https://arxiv.org/abs/2507.08143
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


@register("leverage")
@dataclass(frozen=True, slots=True)
class Leverage(TokenHeuristic):
    """Score a token by the leverage of its unrotated key among all keys of the cache.

    With X the keys minus their mean, projected to fewer random directions, the leverage of row x
    is x (X'X + ridge I)^-1 x': how much of x no combination of the other rows explains, between 0
    and 1. Together with `NonCausalAttention` this is Compactor; its authors standardise both over
    the tokens of a layer and add them.

    All caches share one projection. If keys have no more numbers than it has directions, they are
    not projected, and the leverage is exact. Rotations are undone up to the newest token, so that
    padding changes nothing.

    Args:
        sketch: Random directions. kvpress, with the first author's code, uses 48.
        ridge: Added to the diagonal. kvpress uses 0.01, the authors' other code 0.005.
        seed: Seed of the directions.
    """

    reads_queries: ClassVar[bool] = False

    sketch: int = 48
    ridge: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.sketch < 1:
            raise ValueError(f"`sketch` must be at least 1, but got sketch={self.sketch}.")
        if not self.ridge > 0:
            raise ValueError(f"`ridge` must be above 0, but got ridge={self.ridge}.")

    def score(self, view: LayerView) -> Tensor:
        """Score by leverage, between 0 and 1, [batch, kv_heads, tokens]."""
        rows = self._rows(view)
        directions = rows.shape[-1]
        ridge = self.ridge**0.5 * torch.eye(directions, device=rows.device)
        stacked = torch.cat([rows, ridge.expand(*rows.shape[:2], -1, -1)], dim=2)
        # the rows of an orthonormal basis have the leverages as squared lengths; going through
        # X'X instead would square the condition number
        basis: Tensor = torch.linalg.qr(stacked).Q[:, :, : rows.shape[2]]
        return basis.square().sum(dim=-1)

    def _rows(self, view: LayerView) -> Tensor:
        """Centred and projected keys, 0 at empty places, [batch, kv_heads, tokens, directions]."""
        keys = view.held_keys()
        if view.rotation is not None:
            newest = view.positions.masked_fill(~view.valid, 0).amax()
            keys = view.rotation.undo(keys, view.positions - newest)
        if self.sketch < keys.shape[-1]:
            draw = torch.Generator().manual_seed(self.seed)
            drawn = torch.randn(keys.shape[-1], self.sketch, generator=draw) * self.sketch**-0.5
            keys = keys @ drawn.to(keys.device)
        held = view.valid.unsqueeze(-1)
        mean = keys.sum(dim=2, keepdim=True) / held.sum(dim=2, keepdim=True).clamp_min(1)
        return (keys - mean).masked_fill(~held, 0.0)
