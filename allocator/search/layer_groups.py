"""A budget for each group of layers, shared equally inside.

Reference:
    Yu and Chai, "EvolKV: Evolutionary KV Cache Compression for LLM Inference", 2025.
    https://arxiv.org/abs/2509.08315
"""

from dataclasses import dataclass

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.checks import check_count
from kvbudget.allocator.layers import layer_of_units
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.rounding import fill, shrink

from .dimension import Dimension, Real
from .parameters import Parameters
from .price_and_groups import check_factor
from .targets import highest_within, hull_levels, shared_bytes


@dataclass(frozen=True, slots=True)
class LayerGroups(Parameters):
    """Give each group of layers a budget, and all its caches the same level.

    A searched number multiplies what the plan of ``Hull`` gives a group; then the budgets are
    scaled to the total. Bytes that no common level uses are spent cache by cache where they
    remove most loss.

    Args:
        group_size: Neighbouring layers of a group.
        most_factor: Greatest factor; its inverse is the least.

    Raises:
        TypeError: If a field is not a number.
        ValueError: If a group would be empty or the greatest factor is not above 1.
    """

    group_size: int = 8
    most_factor: float = 8.0

    def __post_init__(self) -> None:
        """Check both fields."""
        check_count("group_size", self.group_size)
        check_factor("most_factor", self.most_factor)

    def dimensions(self, problem: Problem) -> tuple[Dimension, ...]:
        """One factor per group."""
        factor, groups = self.most_factor, self._groups(problem)
        return tuple(
            Real(f"factor {group}", 1 / factor, factor, log=True) for group in range(groups)
        )

    def starts(self, problem: Problem) -> tuple[tuple[float, ...], ...]:
        """All factors 1: the budgets of the groups in the plan of ``Hull``."""
        return ((1.0,) * self._groups(problem),)

    def levels(self, problem: Problem, values: Floats) -> Ints:
        """Scale the budgets of the groups and round."""
        group = layer_of_units(problem) // self.group_size  # [units]
        units, count = np.arange(len(group)), len(values)
        used = problem.cost_bytes[units, hull_levels(problem)]
        weight = np.bincount(group, used, count) * values
        cost = np.zeros((count, problem.cost_bytes.shape[1]), dtype=np.int64)
        np.add.at(cost, group, problem.cost_bytes)
        level = highest_within(cost, shared_bytes(problem.budget_bytes, weight))
        return fill(problem, shrink(problem, level[group]))

    def _groups(self, problem: Problem) -> int:
        """Number of groups; the last one may be smaller."""
        return -(-problem.shape[0] // self.group_size)
