"""Division of a budget by shares: exact, and within the bounds of every unit.

Shares say how the units stand to each other; only their ratios count. The arithmetic is that of
whole numbers and fractions, so no byte is lost or spent twice, however large the costs are.
Units with equal shares and equal menus come out equal up to one level of the menu, which the
largest remainder adds, and but for units that a smaller level serves as well.

Reference:
    Bitran and Hax, "Disaggregation and Resource Allocation Using Convex Knapsack Problems with
    Bounded Variables", Management Science, 1981. https://doi.org/10.1287/mnsc.27.4.431
"""

import math
from collections.abc import Sequence
from fractions import Fraction

from kvbudget.allocator.arrays import Ints
from kvbudget.allocator.problem import Problem

from .level_targets import round_to_levels

Shares = Sequence[float] | Sequence[Fraction]
"""Finite numbers of at least 0, [units]."""


def divide(
    problem: Problem,
    shares: Shares,
    *,
    then: Shares | None = None,
    least_bytes: Sequence[int] | None = None,
    most_bytes: Sequence[int] | None = None,
    group: Sequence[int] | None = None,
) -> Ints:
    """Levels whose bytes stand to each other as the shares, as nearly as the menus allow.

    Args:
        problem: A problem whose lowest levels fit the budget.
        shares: What each unit should get in relation to the others, [units]. Units with a share
            of 0 get more than they must only when the others are full.
        then: Shares that the units with a share of 0 get it by, [units]; equal if not given.
        least_bytes: Bytes that each unit should get at least, before rounding, [units]. Ignored
            unless the budget suffices for all of them.
        most_bytes: Bytes that each unit should get at most, before rounding, [units]. Ignored
            unless the whole budget can be spent within them.
        group: Group of each unit, [units], whose total is held as nearly as can be.

    Returns:
        Levels that fit the budget, int64 [units]; none could be lower without losing more.
    """
    lowest, highest = problem.cost_bytes[:, 0].tolist(), problem.cost_bytes[:, -1].tolist()
    budget = problem.budget_bytes
    if least_bytes is not None:
        wanted = clip(least_bytes, lowest, highest)
        lowest = wanted if sum(wanted) <= budget else lowest
    if most_bytes is not None:
        wanted = clip(most_bytes, lowest, highest)
        highest = wanted if sum(wanted) >= budget else highest
    return round_to_levels(problem, spread(budget, shares, lowest, highest, then), group)


def clip(values: Sequence[int], lowest: list[int], highest: list[int]) -> list[int]:
    """The values, but none outside its bounds."""
    return [min(max(v, a), b) for v, a, b in zip(values, lowest, highest, strict=True)]


def spread(
    total_bytes: int,
    shares: Shares,
    lowest: list[int],
    highest: list[int],
    then: Shares | None = None,
) -> list[Fraction]:
    """Divide bytes in proportion to shares where no bound is in the way.

    What a unit cannot take, or must take beyond its share, is divided among the others in
    proportion: unit ``u`` gets ``clip(t * shares[u], lowest[u], highest[u])`` with one ``t`` for
    all. Units with a share of 0 get what is left in the same way, by other shares.

    Args:
        total_bytes: What to divide; no more is given out than ``highest`` allows.
        shares: Shares, [units].
        lowest: Least bytes of each unit, [units]; together at most the total.
        highest: Most bytes of each unit, [units], at least ``lowest``.
        then: Shares of the units with a share of 0, [units]; equal if not given.

    Returns:
        Bytes of each unit, [units]; their sum is exactly ``min(total_bytes, sum(highest))``.
    """
    weights = whole_numbers(shares)
    second = [1] * len(weights) if then is None else whole_numbers(then)
    given = [Fraction(0)] * len(weights)
    left = min(total_bytes, sum(highest))
    wanting = [u for u, weight in enumerate(weights) if weight]
    idle = [u for u, weight in enumerate(weights) if not weight]
    for units, others, by in ((wanting, idle, weights), (idle, [], second)):
        room = left - sum(lowest[u] for u in others)
        part = min(room, sum(highest[u] for u in units))
        scale = [by[u] or 1 for u in units]
        filled = scale_within(part, scale, [lowest[u] for u in units], [highest[u] for u in units])
        for unit, value in zip(units, filled, strict=True):
            given[unit] = value
        left -= part
    return given


def scale_within(
    total: int, weights: list[int], lowest: list[int], highest: list[int]
) -> list[Fraction]:
    """Divide a total in proportion to weights above 0, pinning units whose bounds are crossed.

    Of the units below their lower bounds and those above their upper ones, the side that is off
    by more in all is pinned: it stays at its bounds in the final answer.

    Args:
        total: What to divide, between the sums of the bounds.
        weights: Whole numbers above 0, [units].
        lowest: Lower bounds, [units].
        highest: Upper bounds, [units].
    """
    pinned: dict[int, int] = {}
    while len(pinned) < len(weights):
        free = [u for u in range(len(weights)) if u not in pinned]
        left, whole = total - sum(pinned.values()), sum(weights[u] for u in free)
        # times `whole`, so that nothing is rounded
        missing = {u: lowest[u] * whole - weights[u] * left for u in free}
        excess = {u: weights[u] * left - highest[u] * whole for u in free}
        below = sum(max(each, 0) for each in missing.values())
        above = sum(max(each, 0) for each in excess.values())
        if below == above == 0:
            scale = Fraction(left, whole)
            return [
                Fraction(pinned[u]) if u in pinned else w * scale for u, w in enumerate(weights)
            ]
        crossed, bounds = (missing, lowest) if below > above else (excess, highest)
        pinned |= {u: bounds[u] for u in free if crossed[u] > 0}
    return [Fraction(pinned[u]) for u in range(len(weights))]


def whole_numbers(shares: Shares) -> list[int]:
    """Whole numbers that stand to each other exactly as the shares."""
    fractions = [Fraction(share) for share in shares]
    denominator = math.lcm(*(each.denominator for each in fractions))
    return [each.numerator * (denominator // each.denominator) for each in fractions]


def beyond(least_bytes: Sequence[int], total_bytes: int, shares: Shares) -> list[Fraction]:
    """What is left of a total after every unit's least, divided by shares, plus that least.

    Args:
        least_bytes: Bytes that every unit gets beforehand, [units].
        total_bytes: Bytes of all units together. If they are too few, nothing is left.
        shares: Shares of what is left, [units]; equal parts if all are 0.
    """
    weights = whole_numbers(shares)
    weights = weights if any(weights) else [1] * len(weights)
    scale = Fraction(max(total_bytes - sum(least_bytes), 0), sum(weights))
    return [least + w * scale for least, w in zip(least_bytes, weights, strict=True)]
