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
    whole = int(np.searchsorted(spent, left, side="right"))
    # later steps of a unit lead to higher levels
    np.maximum.at(levels, segments.unit[:whole], segments.level[:whole])
    price = float(segments.worth[whole]) if whole < len(spent) else 0.0
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
    at = levels[:, None]
    base = np.take_along_axis(problem.loss, at, axis=1)
    extra_bytes = problem.cost_bytes - np.take_along_axis(problem.cost_bytes, at, axis=1)
    used = used_bytes(problem, levels)
    saved = np.minimum(problem.loss - base + price * extra_bytes, 0.0).min(axis=1)
    terms = [*base.ravel().tolist(), *saved.tolist()]
    bound = math.fsum([*terms, -price * (problem.budget_bytes - used)])
    bound -= SAFETY * math.fsum(abs(term) for term in terms)
    return max(bound, least_loss(problem))


def least_loss(problem: Problem) -> float:
    """Loss of every unit at its highest level, which needs no budget to be a bound."""
    best = problem.loss[:, -1].tolist()
    return math.fsum(best) - SAFETY * math.fsum(abs(loss) for loss in best)


def used_bytes(problem: Problem, levels: Ints) -> int:
    """Bytes of a choice of levels, int64 [units]."""
    return sum(np.take_along_axis(problem.cost_bytes, levels[:, None], axis=1).ravel().tolist())
