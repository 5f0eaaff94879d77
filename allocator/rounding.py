"""From almost a plan to a plan: give back what does not fit, spend what is left.

Reference:
    Original.
"""

import heapq

import numpy as np

from .arrays import Ints
from .problem import Problem
from .relaxation import used_bytes

NEVER = 2**63 - 1
"""More bytes than any budget leaves."""
LEAST_MISSES, UNITS_PER_MISS = 64, 16
"""After how many offers that do not fit a look at all units is the cheaper way."""
Offer = tuple[float, int, int]
"""Minus the loss removed per byte, the unit, the level: the smallest offer is the best."""


def fill(problem: Problem, levels: Ints) -> Ints:
    """Spend what the budget has left, always on the step that removes most loss per byte.

    A step leads from a unit's level to any higher one that still fits, on its hull or not. Ties
    go to the lower unit, then to the lower level.

    Args:
        problem: The knapsack.
        levels: Levels that fit the budget, int64 [units].

    Returns:
        Levels that fit the budget, int64 [units]; no unit could lose less by a step that fits,
        and none could lose the same with less memory.
    """
    levels = trim(problem, levels)
    left = min(problem.budget_bytes, problem.ceiling_bytes) - used_bytes(problem, levels)
    cheapest = cheapest_steps(problem, levels)
    offers = best_offers(problem, levels, np.flatnonzero(cheapest <= left), left)
    heapq.heapify(offers)
    misses, patience = 0, LEAST_MISSES + len(levels) // UNITS_PER_MISS
    while offers:
        _, unit, level = heapq.heappop(offers)
        price = int(problem.cost_bytes[unit, level] - problem.cost_bytes[unit, levels[unit]])
        if price <= left:
            left -= price
            levels[unit] = level
            cheapest[unit] = 0  # not known any more
        else:
            misses += 1
        if misses > patience:
            # many old offers do not fit any more: look at all units together
            offers = best_offers(problem, levels, np.flatnonzero(cheapest <= left), left)
            heapq.heapify(offers)
            misses = 0
        # spares most units a look when little is left
        elif cheapest[unit] <= left:
            for offer in best_offers(problem, levels, np.array([unit]), left):
                heapq.heappush(offers, offer)
    return levels


def best_offers(problem: Problem, levels: Ints, units: Ints, left: int) -> list[Offer]:
    """Best step of each unit that costs at most ``left`` bytes, for those that have one.

    Args:
        problem: The knapsack.
        levels: Current level of every unit, int64 [units].
        units: Units to look at, int64.
        left: Bytes to spend.
    """
    at = levels[units]
    price = problem.cost_bytes[units] - problem.cost_bytes[units, at, None]
    gain = problem.loss[units, at, None] - problem.loss[units]
    possible = (gain > 0) & (price <= left)
    # a step without a price is worth more than any other
    free = np.where(possible, np.inf, -1.0)
    worth = np.divide(gain, price, out=free, where=possible & (price > 0))
    level = worth.argmax(axis=1)
    best = worth[np.arange(len(units)), level]
    offers = zip(best.tolist(), units.tolist(), level.tolist(), strict=True)
    return [(-value, unit, to) for value, unit, to in offers if value > 0]


def cheapest_steps(problem: Problem, levels: Ints) -> Ints:
    """Bytes from each unit's level to the next one that loses less, [units]; or ``NEVER``."""
    units = np.arange(len(levels))
    better = problem.loss < problem.loss[units, levels, None]
    price = problem.cost_bytes[units, better.argmax(axis=1)] - problem.cost_bytes[units, levels]
    return np.where(better.any(axis=1), price, NEVER)


def trim(problem: Problem, levels: Ints) -> Ints:
    """Lower each unit to its lowest level that loses no more, int64 [units]."""
    loss = np.take_along_axis(problem.loss, levels[:, None], axis=1)
    lowest: Ints = (problem.loss <= loss).argmax(axis=1)
    return lowest


def shrink(problem: Problem, levels: Ints) -> Ints:
    """Lower units until the budget holds, always where least loss is added per byte.

    Args:
        problem: A problem whose lowest levels fit the budget.
        levels: Levels that may need too much, int64 [units].

    Returns:
        Levels that fit the budget, int64 [units].
    """
    levels = levels.copy()
    units = np.arange(len(levels))
    while used_bytes(problem, levels) > problem.budget_bytes:
        cost, loss = problem.cost_bytes[units, levels], problem.loss[units, levels]
        # the highest level that is cheaper; the argmax of an all-false row is not used
        cheaper = problem.cost_bytes < cost[:, None]
        lower = cheaper.sum(axis=1) - 1
        saved = cost - problem.cost_bytes[units, lower]
        harm = (problem.loss[units, lower] - loss) / np.maximum(saved, 1)
        unit = int(np.where(lower >= 0, harm, np.inf).argmin())
        levels[unit] = lower[unit]
    return levels
