"""What is left to decide once prices have decided all they can, in whole numbers.

At the price of the relaxed optimum every level has a slack: what it loses over its unit's best
level, its bytes paid for. A plan loses the relaxed optimum plus its slacks plus the price of
what it leaves unspent. A level with more slack than a known plan is above the bound is in no
better plan, and two levels with more than half of that are never in one together.

Losses are counted in quanta, a power of two fine enough for their rounding not to matter, so
that sums are exact, ties are ties, and the order of addition changes nothing.

Reference:
    Dyer, Kayal and Walker, "A branch and bound algorithm for solving the multiple-choice
    knapsack problem", Journal of Computational and Applied Mathematics, 1984.
    https://doi.org/10.1016/0377-0427(84)90023-2
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.curves import build_chains, useful_levels
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.relaxation import Relaxation, reduced_losses, used_bytes
from kvbudget.allocator.terms import Bools

QUANTA_BITS = 60
WHOLE_BITS = 52
LEAST_EXPONENT, MOST_EXPONENT = -1074, 1023
ROUNDING = 2.0**-48
"""Far above the rounding of a few sums and products, far below any slack that counts."""
SHARES = 64
"""Into so many classes slacks are sorted; within one, steps up and down take turns."""


class Rows(NamedTuple):
    """Choices, group by group: in row r, unit ``unit[r]`` takes level ``level[r]``.

    Args:
        group: Which group a row belongs to, int64 [rows], rising from 0.
        unit: Unit of the problem, int64 [rows].
        level: Level of that unit, int64 [rows].
    """

    group: Ints
    unit: Ints
    level: Ints


class Segments(NamedTuple):
    """Lower hulls of all groups: where each starts, and its steps from corner to corner.

    Args:
        low_bytes: Bytes of the first corner, [groups].
        low_loss: Loss of the first corner, [groups].
        group: Whose step it is, [segments]; best step first.
        cost_bytes: Memory a step adds, [segments].
        gain: Loss it removes, [segments].
        worth: Loss removed per byte, rounded up, [segments].
    """

    low_bytes: Ints
    low_loss: Ints
    group: Ints
    cost_bytes: Ints
    gain: Ints
    worth: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Core:
    """Groups of rows, of which each gives exactly one to a plan.

    Bytes are counted from those of the relaxed optimum, in steps of their greatest common
    divisor; losses from its loss, in quanta. Both are 0 in the row that moves no unit. A plan is
    within the budget if its bytes sum to at most ``left``.

    Args:
        rows: What each row stands for.
        first: Where each group's rows begin, and the end, int64 [groups + 1].
        cost_bytes: Extra bytes, int64 [rows], rising within a group.
        loss: Extra loss, int64 [rows], falling within a group.
        slack: ``loss`` plus ``cost_bytes`` at ``price``, [rows].
        left: Bytes left to spend.
        price: Loss that a byte is worth.
        bound: Loss that no choice of rows goes below, by price alone.
        hulls: Lower hulls of the groups.
        quantum: Loss of one quantum.
        error: Quanta by which rounding may have moved the loss of a plan.
    """

    rows: Rows
    first: Ints
    cost_bytes: Ints
    loss: Ints
    slack: Floats
    left: int
    price: float
    bound: float
    hulls: Segments
    quantum: float
    error: float

    @property
    def num_groups(self) -> int:
        """How many groups there are."""
        return len(self.first) - 1

    def least_slack(self) -> Floats:
        """Slack of the best row of each group that moves a unit, [groups]."""
        slack = np.where((self.cost_bytes == 0) & (self.loss == 0), np.inf, self.slack)
        return np.minimum.reduceat(slack, self.first[:-1])

    def levels(self, base: Ints, rows: Ints) -> Ints:
        """Levels of a choice of rows, int64 [units]; other units keep those of ``base``."""
        levels = base.copy()
        levels[self.rows.unit[rows]] = self.rows.level[rows]
        return levels


def reduce_to_core(problem: Problem, relaxed: Relaxation, best_loss: float) -> Core:
    """Keep only what a plan that loses less than ``best_loss`` may use.

    Args:
        problem: The knapsack.
        relaxed: Its relaxed optimum.
        best_loss: Loss of a plan that is known.
    """
    room = best_loss - relaxed.bound
    slack = reduced_losses(problem, relaxed.price, relaxed.levels)
    spare = problem.budget_bytes - problem.floor_bytes
    affordable = problem.cost_bytes - problem.cost_bytes[:, :1] <= spare
    keep = useful_levels(problem.cost_bytes, problem.loss) & affordable & (slack <= room)
    base = relaxed.levels[:, None]
    np.put_along_axis(keep, base, True, axis=1)
    slack[~keep] = np.inf
    np.put_along_axis(slack, base, np.inf, axis=1)
    order = order_units(relaxed.levels, slack, room)
    rows = group_rows(problem, relaxed.levels, keep, order, slack.min(axis=1) > room / 2)
    return count_rows(problem, relaxed, rows)


def order_units(base: Ints, slack: Floats, room: float) -> Ints:
    """Units with a choice, least slack first; of about equal slack, up and down take turns.

    Args:
        base: Levels of the relaxed optimum, int64 [units].
        slack: Slack of each other level that is left, else infinite, [units, levels].
        room: Slack that no level exceeds.
    """
    level = slack.argmin(axis=1)
    least = np.take_along_axis(slack, level[:, None], axis=1).ravel()
    order = np.argsort(least, kind="stable")
    order = order[: np.isfinite(least).sum()]
    up = (level > base)[order]
    turn = np.where(up, np.cumsum(up), np.cumsum(~up))
    share = np.floor(np.maximum(least[order], 0.0) * (SHARES / max(room, 1e-300)))
    return order[np.lexsort((turn, share))]


def group_rows(problem: Problem, base: Ints, keep: Bools, order: Ints, lonely: Bools) -> Rows:
    """Rows of every unit's levels; those of which a plan moves at most one share a group.

    Args:
        problem: The knapsack.
        base: Levels of the relaxed optimum, int64 [units].
        keep: Levels that are left, [units, levels].
        order: Units with a choice, best first.
        lonely: Units whose other levels all have more than half the slack there is, [units].
    """
    own, shared = order[~lonely[order]], order[lonely[order]]
    group, level = np.nonzero(keep[own])
    unit = own[group]
    if len(shared):
        moved, to = np.nonzero(keep[shared])
        moves = to != base[shared][moved]
        # the first row stands for all of them: no unit of the group moves
        other = np.concatenate((shared[:1], shared[moved[moves]]))
        to = np.concatenate((base[shared[:1]], to[moves]))
        best = pareto_rows(problem, base, other, to)
        unit, level = np.concatenate((unit, other[best])), np.concatenate((level, to[best]))
        group = np.concatenate((group, np.full(len(best), len(own))))
    return Rows(group, unit, level)


def pareto_rows(problem: Problem, base: Ints, unit: Ints, level: Ints) -> Ints:
    """Moves that no other one beats in both bytes and loss, cheapest first, int64."""
    cost = problem.cost_bytes[unit, level] - problem.cost_bytes[unit, base[unit]]
    loss = problem.loss[unit, level] - problem.loss[unit, base[unit]]
    order = np.lexsort((loss, cost))
    better = np.ones(len(order), dtype=bool)
    better[1:] = loss[order][1:] < np.minimum.accumulate(loss[order])[:-1]
    return order[better]


def count_rows(problem: Problem, relaxed: Relaxation, rows: Rows) -> Core:
    """Count the bytes and losses of rows in whole numbers."""
    group, unit, level = rows
    base = relaxed.levels[unit]
    cost = problem.cost_bytes[unit, level] - problem.cost_bytes[unit, base]
    step = max(int(np.gcd.reduce(cost)), 1)
    cost //= step
    budget = min(problem.budget_bytes, problem.ceiling_bytes)
    left = (budget - used_bytes(problem, relaxed.levels)) // step
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    loss, quantum, error = count_losses(problem.loss[unit, level], problem.loss[unit, base], starts)
    price = relaxed.price * step / quantum
    slack = loss + price * cost
    least = np.minimum.reduceat(slack, starts)
    scale = np.abs(loss).sum() + price * (float(np.abs(cost).astype(float).sum()) + left)
    bound = math.fsum([*least.tolist(), -price * left]) - ROUNDING * float(scale)
    first = np.append(starts, len(group))
    hulls = hull_steps(group, cost, loss, np.diff(first))
    return Core(rows, first, cost, loss, slack, left, price, bound, hulls, quantum, error)


def count_losses(loss: Floats, base: Floats, starts: Ints) -> tuple[Ints, float, float]:
    """Count ``loss - base`` in quanta.

    Args:
        loss: Loss of each row, [rows].
        base: Loss that it is counted from, [rows].
        starts: Where each group's rows begin.

    Returns:
        The quanta, int64 [rows], the loss of one, and by how many of them rounding may have
        moved the sum over groups: 0 if all losses are whole multiples of one power of two.
    """
    extra = loss - base
    total = float(np.maximum.reduceat(np.abs(extra), starts).sum())
    finest = math.frexp(total)[1] - QUANTA_BITS
    lowest = min(lowest_bit(loss), lowest_bit(base))
    largest = max(np.abs(loss).max(initial=0.0), np.abs(base).max(initial=0.0))
    whole = lowest >= finest and math.frexp(largest)[1] <= lowest + WHOLE_BITS
    exponent = lowest if whole else max(finest, LEAST_EXPONENT)
    quanta = np.rint(np.ldexp(extra, -exponent)).astype(np.int64)
    error = 0.0 if whole else len(starts) + math.ldexp(total, -exponent - 52)
    return quanta, math.ldexp(1.0, exponent), error


def lowest_bit(values: Floats) -> int:
    """Largest exponent of a power of two of which all values are whole multiples."""
    mantissa, exponent = np.frexp(values[values != 0])
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    bit = np.frexp((whole & -whole).astype(np.float64))[1]
    return int((bit - 54 + exponent).min(initial=MOST_EXPONENT))


def hull_steps(group: Ints, cost_bytes: Ints, loss: Ints, count: Ints) -> Segments:
    """Lower hulls of all groups.

    Args:
        group: Group of each row, int64 [rows].
        cost_bytes: Bytes, int64 [rows], rising within a group.
        loss: Loss, int64 [rows], falling within a group.
        count: Rows of each group, [groups].
    """
    corner = np.flatnonzero(build_chains(cost_bytes, loss.astype(np.float64), count))
    begins = np.diff(group[corner], prepend=-1) > 0
    low, high = corner[begins], np.flatnonzero(~begins)
    step_bytes = cost_bytes[corner[high]] - cost_bytes[corner[high - 1]]
    gain = loss[corner[high - 1]] - loss[corner[high]]
    worth = gain / step_bytes
    order = np.argsort(-worth, kind="stable")
    # rounded up, so that what is bought of a step is never taken for less than it is
    worth = worth[order] * (1 + ROUNDING)
    steps = group[corner[high]][order], step_bytes[order], gain[order], worth
    return Segments(cost_bytes[low], loss[low], *steps)
