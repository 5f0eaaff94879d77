"""From wished bytes to levels: the method of the largest remainder, on menus of any kind.

Whole numbers and fractions keep the arithmetic exact, so no byte is lost or spent twice.

Reference:
    Balinski and Young, "Fair Representation: Meeting the Ideal of One Man, One Vote", 1982, on
    Hamilton's method of 1791. The step to menus is original.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from kvbudget.allocator.arrays import Ints
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.rounding import trim


class Step(NamedTuple):
    """The way of a unit from one level to the next costlier one.

    Args:
        lacking: Part of the step that is above the unit's target, in 0..1.
        unit: Whose step it is.
        end_bytes: Bytes of the unit after it.
    """

    lacking: Fraction
    unit: int
    end_bytes: int


def round_to_levels(
    problem: Problem, target_bytes: Sequence[Fraction], group: Sequence[int] | None = None
) -> Ints:
    """Levels near to targets that fit the budget.

    Every unit takes its largest level within its target, or the lowest that loses no more. What
    is left buys the next costlier level for the units whose targets were nearest to it, measured
    in steps of their menus, if they lose less there; ties go to the lower unit. A group first
    spends what its own targets leave.

    Args:
        problem: The knapsack.
        target_bytes: Wished bytes, [units], each at least those of the lowest level; together
            at most the budget.
        group: Group of each unit, [units]; every unit for itself if not given.

    Returns:
        Levels, int64 [units].
    """
    cost, units = problem.cost_bytes, np.arange(len(target_bytes))
    within = highest_within(cost, [math.floor(target) for target in target_bytes])
    held = cost[units, trim(problem, within)].tolist()
    steps = nearest_first(problem, within, target_bytes)
    payer = range(len(held)) if group is None else group
    money = dict.fromkeys(payer, Fraction(0))
    for unit, target in enumerate(target_bytes):
        money[payer[unit]] += target - held[unit]
    waiting, held = buy(steps, held, payer, money)
    left = Fraction(problem.budget_bytes - sum(held))
    _, held = buy(waiting, held, [0] * len(held), {0: left})
    return trim(problem, highest_within(cost, held))


def nearest_first(problem: Problem, within: Ints, target_bytes: Sequence[Fraction]) -> list[Step]:
    """Steps to the next costlier level that lose less, the nearest targets first.

    Args:
        problem: The knapsack.
        within: Highest level of each unit within its target, int64 [units].
        target_bytes: Wished bytes, [units].
    """
    cost, units = problem.cost_bytes, np.arange(len(within))
    start = cost[units, within].tolist()
    end = cost[units, np.minimum(within + 1, cost.shape[1] - 1)].tolist()
    useful = problem.loss[units, highest_within(cost, end)] < problem.loss[units, within]
    steps = []
    for unit in np.flatnonzero(useful).tolist():
        lacking = (end[unit] - target_bytes[unit]) / (end[unit] - start[unit])
        steps.append(Step(lacking, unit, end[unit]))
    return sorted(steps)


def buy(
    steps: list[Step], held: list[int], payer: Sequence[int], money: dict[int, Fraction]
) -> tuple[list[Step], list[int]]:
    """Take every step in turn that can be paid for.

    Args:
        steps: Steps, at most one per unit.
        held: Bytes of each unit before, [units].
        payer: Who pays for each unit, [units].
        money: Bytes that each payer has; what is spent is taken off.

    Returns:
        The steps that were not taken, and the bytes of each unit then, [units].
    """
    held, waiting = held.copy(), []
    for step in steps:
        price = step.end_bytes - held[step.unit]
        if price <= money[payer[step.unit]]:
            money[payer[step.unit]] -= price
            held[step.unit] = step.end_bytes
        else:
            waiting.append(step)
    return waiting, held


def highest_within(cost_bytes: Ints, most_bytes: list[int]) -> Ints:
    """Highest level of each unit that costs no more than its limit, int64 [units]."""
    rows = zip(cost_bytes, most_bytes, strict=True)
    return np.array([np.searchsorted(row, most, side="right") - 1 for row, most in rows])
