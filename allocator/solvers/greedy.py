"""Greedy allocation by loss removed per byte.

When every loss curve is convex in bytes, the plan loses at most one upgrade more than the best
plan.

Reference:
    Fox, "Discrete Optimization via Marginal Analysis", Management Science, 1966.
    https://doi.org/10.1287/mnsc.13.3.210
"""

import heapq
from dataclasses import dataclass

import numpy as np

from kvbudget.allocator.problem import Problem
from kvbudget.allocator.rounding import trim
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class Greedy(Solver):
    """Start every unit at its lowest level, then buy the best next level that still fits.

    It looks one level ahead on the curves as measured. Where a curve is not convex it may stall:
    a step that removes little hides a later one that removes much. A unit whose next level does
    not fit is skipped from then on. ``Hull`` has neither fault.
    """

    def choose(self, problem: Problem) -> Choice:
        """Buy one level at a time, most loss removed per byte first, ties to the lower unit."""
        price = np.diff(problem.cost_bytes)  # [units, levels - 1]
        gain = -np.diff(problem.loss)  # [units, levels - 1]
        free = np.full(gain.shape, np.inf)
        worth = np.divide(gain, price, out=free, where=price > 0)
        levels = np.zeros(len(problem.loss), dtype=np.int64)
        left = problem.budget_bytes - problem.floor_bytes
        upgrades = [(-first, unit) for unit, first in enumerate(worth[:, :1].ravel().tolist())]
        heapq.heapify(upgrades)
        while upgrades:
            _, unit = heapq.heappop(upgrades)
            cost = int(price[unit, levels[unit]])
            if cost > left:
                continue
            left -= cost
            levels[unit] += 1
            if levels[unit] < price.shape[1]:
                heapq.heappush(upgrades, (-float(worth[unit, levels[unit]]), unit))
        return Choice(trim(problem, levels))
