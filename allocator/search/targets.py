"""From a number of bytes for each unit to levels that fit, and the plan of the hulls."""

import math

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.relaxation import relax
from kvbudget.allocator.rounding import fill, shrink
from kvbudget.allocator.sharing import level_targets


def hull_levels(problem: Problem) -> Ints:
    """Levels that ``Hull`` chooses, int64 [units]."""
    return fill(problem, relax(problem).levels)


def levels_near(problem: Problem, target_bytes: Floats) -> Ints:
    """Highest level of each unit within its target, then repaired and filled, int64 [units].

    Args:
        problem: A problem whose lowest levels fit the budget.
        target_bytes: Bytes wanted for each unit, [units].
    """
    levels = highest_within(problem.cost_bytes, target_bytes)
    return fill(problem, shrink(problem, levels))


def highest_within(cost_bytes: Ints, target_bytes: Floats) -> Ints:
    """Highest level of each row that costs no more than its target, else the lowest.

    Args:
        cost_bytes: Cost of each level, [rows, levels], never falling.
        target_bytes: Bytes wanted, [rows].
    """
    whole_bytes = [math.floor(target) for target in target_bytes.tolist()]
    return np.maximum(level_targets.highest_within(cost_bytes, whole_bytes), 0)


def shared_bytes(total_bytes: int, weight: Floats) -> Floats:
    """Divide bytes in proportion to weights; equally if all weights are 0."""
    if not weight.any():
        weight = np.ones(len(weight))
    # divided by the largest first, so that the sum cannot overflow
    shares = weight / weight.max()
    parts: Floats = shares / shares.sum() * total_bytes
    return parts
