"""The relaxed problem, in which units may mix levels, solved exactly.

Sort the segments of all units' lower convex hulls by the loss they remove per byte and buy them
in that order until the budget ends inside a segment. Buying that one in part gives the optimum
of the linear relaxation, and no plan can lose less.

Reference:
    Sinha and Zoltners, "The Multiple-Choice Knapsack Problem", Operations Research, 1979.
    https://doi.org/10.1287/opre.27.3.503
"""

import math
from dataclasses import dataclass

import numpy as np

from .arrays import Floats, Ints
from .curves import lower_hull
from .problem import Problem

# far above the rounding of a sum, far below any gap worth knowing
SAFETY = 1e-14
# all bytes at this price stay below the largest float; a lower price proves less, but no less truly
MOST_PRICE = 1e280
# of a difference, a product and their sum
ROUNDING = 2.0**-51


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Steps from corner to corner of all units' hulls, best first, ties to the lower unit.

    Args:
        unit: Whose step it is, [segments].
        level: Level that the step leads to, [segments].
        cost_bytes: Memory the step adds, int64 [segments], above 0.
        worth: Loss removed per byte, [segments], falling; within a unit strictly.
    """

    unit: Ints
    level: Ints
    cost_bytes: Ints
    worth: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Relaxation:
    """Optimum of the relaxed problem.

    Args:
        levels: Level of each unit after all whole segments, int64 [units]; fits the budget.
        price: Loss that one more byte would remove; 0 if every unit is at its best level.
        bound: Loss that no plan within the budget can beat.
    """

    levels: Ints
    price: float
    bound: float


def hull_segments(problem: Problem) -> tuple[Ints, Segments]:
    """Return the first corner of each unit's hull, [units], and all steps from there."""
    corners = lower_hull(problem.cost_bytes, problem.loss)
    unit, level = np.nonzero(corners)
    cost, loss = problem.cost_bytes[unit, level], problem.loss[unit, level]
    steps = np.flatnonzero(unit[1:] == unit[:-1])
    cost_bytes = cost[steps + 1] - cost[steps]
    worth = (loss[steps] - loss[steps + 1]) / cost_bytes
    # stable, so that equal worth keeps the order of units
    order = np.argsort(-worth, kind="stable")
    best = steps[order] + 1
    first = corners.argmax(axis=1)
    return first, Segments(unit[best], level[best], cost_bytes[order], worth[order])


def relax(problem: Problem) -> Relaxation:
    """Solve the relaxed problem.

    Args:
        problem: A problem whose lowest levels fit the budget.

    Raises:
        ValueError: If they do not.
    """
    left = problem.budget_bytes - problem.floor_bytes
    if left < 0:
        raise ValueError(
            f"`problem` must have a budget of at least its lowest levels, {problem.floor_bytes}"
            f" bytes, but got {problem.budget_bytes}."
        )
    levels, segments = hull_segments(problem)
    spent = np.cumsum(segments.cost_bytes)
    left = min(left, problem.ceiling_bytes - problem.floor_bytes)
    whole = int(np.searchsorted(spent, left, side="right"))
    # later steps of a unit lead to higher levels
    np.maximum.at(levels, segments.unit[:whole], segments.level[:whole])
    price = min(float(segments.worth[whole]), MOST_PRICE) if whole < len(spent) else 0.0
    return Relaxation(levels, price, lagrangian_bound(problem, price, levels))


def hull_bound(problem: Problem) -> float:
    """Loss that no plan within the budget can beat; infinite if no plan fits.

    It is the optimum of the linear relaxation, the best bound that prices alone can give.
    """
    if problem.floor_bytes > problem.budget_bytes:
        return math.inf
    return relax(problem).bound


def lagrangian_bound(problem: Problem, price: float, levels: Ints) -> float:
    """Loss that no plan can beat, proved by a price of a byte.

    Whoever pays ``price`` for each byte can do no better than the sum of every unit's cheapest
    level; a plan within the budget pays no more than for the whole budget. This holds for every
    price, so it does not matter how the price was found.

    Args:
        problem: The knapsack.
        price: Loss per byte, at least 0.
        levels: Levels near the best ones at this price, int64 [units]; they only keep the
            arithmetic exact.
    """
    price = min(price, MOST_PRICE)
    base = np.take_along_axis(problem.loss, levels[:, None], axis=1)
    saved = np.minimum(reduced_losses(problem, price, levels).min(axis=1), 0.0)
    unspent = -price * (problem.budget_bytes - used_bytes(problem, levels))
    terms = [*base.ravel().tolist(), *saved.tolist(), unspent]
    bound = math.fsum(terms) - SAFETY * math.fsum(abs(term) for term in terms)
    return max(bound, least_loss(problem))


def reduced_losses(problem: Problem, price: float, levels: Ints) -> Floats:
    """What each level loses over the given ones, its extra bytes paid for, [units, levels].

    Args:
        problem: The knapsack.
        price: Loss per byte, at least 0.
        levels: Levels to count from, int64 [units].

    Returns:
        Values that rounding has made too small, never too large.
    """
    at = levels[:, None]
    extra_loss = problem.loss - np.take_along_axis(problem.loss, at, axis=1)
    paid = price * (problem.cost_bytes - np.take_along_axis(problem.cost_bytes, at, axis=1))
    reduced: Floats = extra_loss + paid
    reduced -= ROUNDING * (np.abs(extra_loss) + np.abs(paid))
    return reduced


def least_loss(problem: Problem) -> float:
    """Loss of every unit at its highest level, which needs no budget to be a bound."""
    best = problem.loss[:, -1].tolist()
    return math.fsum(best) - SAFETY * math.fsum(abs(loss) for loss in best)


def used_bytes(problem: Problem, levels: Ints) -> int:
    """Bytes of a choice of levels, int64 [units]."""
    return sum(np.take_along_axis(problem.cost_bytes, levels[:, None], axis=1).ravel().tolist())
