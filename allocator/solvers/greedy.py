"""Greedy allocation by loss removed per byte.

When every loss curve is convex in bytes, the plan loses at most one upgrade more than the best
plan.

Reference:
    Fox, "Discrete Optimization via Marginal Analysis", Management Science, 1966.
    https://doi.org/10.1287/mnsc.13.3.210
"""

import heapq
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.constraints import ByteLimit
from kvbudget.allocator.coupled.stacked import stack
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.risk import Risk
from kvbudget.allocator.rounding import trim
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class Greedy(Solver):
    """Start every unit at its lowest level, then buy the best next level that still fits.

    It looks one level ahead on the curves as measured. Where a curve is not convex it may stall:
    a step that removes little hides a later one that removes much. A unit whose next level does
    not fit is skipped from then on. ``Hull`` has neither fault. It judges a step by the bytes of
    the total budget; the other limits only stop it.
    """

    honours: ClassVar[frozenset[type[Constraint] | type[Risk]]] = frozenset({ByteLimit})

    def choose(self, problem: Problem) -> Choice:
        """Buy one level at a time, most loss removed per byte first, ties to the lower unit."""
        stacked = stack(problem)
        extra_bytes = np.diff(stacked.cost_bytes)  # [limits, units, levels - 1]
        price = extra_bytes[0]  # [units, levels - 1]
        gain = -np.diff(problem.loss)  # [units, levels - 1]
        free = np.full(gain.shape, np.inf)
        worth = np.divide(gain, price, out=free, where=price > 0)
        levels = np.zeros(len(problem.loss), dtype=np.int64)
        spare = stacked.spare_bytes(levels)  # [limits]
        upgrades = [(-first, unit) for unit, first in enumerate(worth[:, :1].ravel().tolist())]
        heapq.heapify(upgrades)
        while upgrades:
            _, unit = heapq.heappop(upgrades)
            extra = extra_bytes[:, unit, levels[unit]]
            if (extra > spare).any():
                continue
            spare -= extra
            levels[unit] += 1
            if levels[unit] < price.shape[1]:
                heapq.heappush(upgrades, (-float(worth[unit, levels[unit]]), unit))
        return Choice(trim(problem, levels))
