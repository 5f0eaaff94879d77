"""Whole caches for the heads that retrieve, equal small ones for the rest."""

from collections.abc import Sequence

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.problem import Problem

from .shares import divide
from .token_bytes import token_sizes


def whole_or_small(
    problem: Problem, importance: Floats, small_bytes: Sequence[int], most_whole: int
) -> Ints:
    """Keep the most important caches whole as long as all others can be small, int64 [units].

    The first cache that cannot be whole ends the list. What is left is spread over the small
    caches in equal parts. Ties in importance go to the lower unit.

    Args:
        problem: A problem whose lowest levels fit the budget.
        importance: How much each cache deserves, [units].
        small_bytes: Bytes of a small cache, [units], within its levels. If not all caches can
            have them, all caches are equal.
        most_whole: Most caches that are whole.
    """
    least, whole = list(small_bytes), problem.cost_bytes[:, -1].tolist()
    left = problem.budget_bytes - sum(least)
    for unit in np.argsort(-importance, kind="stable").tolist()[:most_whole]:
        left -= whole[unit] - least[unit]
        if left < 0:
            break
        least[unit] = whole[unit]
    return divide(problem, token_sizes(problem), least_bytes=least)
