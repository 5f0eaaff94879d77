"""Layers by the memory they need to keep most of their attention mass.

Reference: Zhong et al., COLING 2025. https://aclanthology.org/2025.coling-main.596
"""

from dataclasses import dataclass, field

import numpy as np

from kvbudget.allocator.arrays import Floats
from kvbudget.allocator.layers import mean_in_layers
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.sharing.importance import (
    Importance,
    check_importance,
    layer_importance,
    of_units,
)
from kvbudget.allocator.sharing.ranges import check_range
from kvbudget.allocator.sharing.shares import beyond, divide
from kvbudget.allocator.sharing.token_bytes import in_tokens, token_sizes
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class ZigZagKV(Solver):
    """Divide the budget over layers in proportion to what keeps most of their mass.

    The need of a layer is the least memory at which ``kept_mass`` of its mass is kept. Every cache
    gets ``least_share`` of an equal division, and the rest is divided in proportion to need:

        least + need[l] / sum(need) * (budget - sum(least)),    both sums over all caches

    All caches of a layer are equal, up to one level of the menu, and but for caches that a smaller
    level serves as well.

    This is a reconstruction: the formula was not verified, and what every cache gets beforehand is
    not known.

    Args:
        kept_mass: Share of the mass that has to be kept, in 0..1.
        least_share: Bytes that every cache gets beforehand over those of an equal division, in
            0..1.
        importance: Memory that each layer needs to keep the mass, [layers], or each cache,
            [layers, kv_heads], of which each layer takes the mean, in any unit. By default the
            bytes of the cheapest level whose loss is at most ``1 - kept_mass`` of the loss that
            memory can remove; where the loss is lost attention mass and the lowest level keeps
            nothing, that is the published quantity.

    Reference:
        Zhong et al., "ZigZagKV: Dynamic KV Cache Compression for Long-context Modeling based on
        Layer Uncertainty", COLING 2025. https://aclanthology.org/2025.coling-main.596
    """

    kept_mass: float = 0.9
    least_share: float = 0.25
    importance: Importance | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("kept_mass", self.kept_mass, 0.0, 1.0)
        check_range("least_share", self.least_share, 0.0, 1.0)
        object.__setattr__(self, "importance", check_importance(self.importance))

    def choose(self, problem: Problem) -> Choice:
        """Round the shares to levels."""
        if self.importance is None:
            need = needed_bytes(problem, self.kept_mass)
        else:
            need = layer_importance(problem, self.importance)
        units = len(problem.loss)
        equal = self.least_share * (problem.budget_bytes / units)
        least = [int(equal * size) for size in token_sizes(problem)]
        shares = in_tokens(problem, of_units(problem, need))
        return Choice(divide(problem, beyond(least, problem.budget_bytes, shares)))


def needed_bytes(problem: Problem, kept_mass: float) -> Floats:
    """Mean over each layer's caches of the bytes that keep so much of the mass, [layers].

    They are counted as if a token took as much in every layer, so that layers compare by tokens.
    """
    removable = problem.loss - problem.loss[:, -1:]
    enough = removable <= (1 - kept_mass) * removable[:, :1]
    cheapest = np.take_along_axis(problem.cost_bytes, enough.argmax(axis=1)[:, None], axis=1)
    sizes = np.array(token_sizes(problem), dtype=np.float64)
    return mean_in_layers(problem, cheapest[:, 0] / sizes)
