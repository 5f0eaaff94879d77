"""Layers by how widely and how changeably they attend: the preference of CAKE.

Reference:
    Qin et al., "CAKE: Cascading and Adaptive KV Cache Eviction with Layer Preferences", ICLR
    2025. https://arxiv.org/abs/2503.12491
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..heuristic import CacheHeuristic
from ..registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ..cache_view import CacheView

LEAST_TAU = 1e-3


@register("cake")
@dataclass(frozen=True, slots=True)
class Cake(CacheHeuristic):
    """Weigh a layer by entropy and variance of its latest queries' attention.

        entropy    = -sum_{h, q, j} a[h, q, j] log a[h, q, j]
        variance   = sum_{h, j} var_q a[h, q, j]
        importance = entropy ** (1 / tau1) * variance ** (1 / tau2)

    over all query heads ``h``, the queries ``q`` of the window and the tokens ``j`` before it. All
    caches of a layer weigh the same. The formula is the published one; the authors search both
    exponents per model and budget, and 1 is the neutral choice. In a sequence shorter than two
    windows the window is half of it. Pass the numbers on to ``solvers.CAKE(importance=...)``,
    whose own exponents are then best left at 1.

    Args:
        tau1: The larger, the less entropy counts; at least 0.001.
        tau2: The larger, the less variance counts; at least 0.001.
        window: Latest queries that are looked at, at least 2.
    """

    tau1: float = 1.0
    tau2: float = 1.0
    window: int = 32

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("tau1", "tau2"):
            value = getattr(self, name)
            if not LEAST_TAU <= value < float("inf"):
                raise ValueError(
                    f"`{name}` must be a number of at least {LEAST_TAU}, but got {name}={value}."
                )
        if self.window < 2:
            raise ValueError(f"`window` must be at least 2, but got window={self.window}.")

    def importance(self, view: CacheView) -> Tensor:
        """Weigh the layer, the same for each of its caches, [kv_heads]."""
        layer = view.layer
        rows = slice(max(layer.new - self.window, 0), layer.new)
        age = layer.age()
        window = (layer.valid.sum(dim=-1, keepdim=True) // 2).clamp(1, self.window)
        asking = (age[:, :, rows] < window)[:, :, None, :, None]
        outside = (layer.valid & (age >= window))[:, :, None, None, :]
        mass = layer.probabilities(rows) * (asking & outside)  # rows keep what was cut off
        entropy = torch.special.entr(mass).sum(dim=(1, 2, 3, 4))
        num_asking = window[..., None, None]
        mean = mass.sum(dim=3, keepdim=True) / num_asking
        spread = (mass - mean).square() * asking / num_asking
        variance = spread.sum(dim=(1, 2, 3, 4))
        preference: Tensor = entropy.pow(1 / self.tau1) * variance.pow(1 / self.tau2)
        return preference.mean().expand(layer.keys.shape[1])
