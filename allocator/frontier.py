"""The least loss at every budget: all breakpoints of the convex frontier, in one pass.

The relaxed optimum buys the segments of all units' lower convex hulls in the order of their
worth, whatever the budget is. So one sorted list of segments holds the optimum of every budget,
and after each whole segment stands a choice that is exactly optimal for what it costs.

Reference:
    Sinha and Zoltners, "The Multiple-Choice Knapsack Problem", Operations Research, 1979.
    https://doi.org/10.1287/opre.27.3.503
"""

import math
from dataclasses import dataclass

import numpy as np

from .arrays import Floats, Ints, same_values
from .reduction import Reduction, first_members
from .relaxation import SAFETY, Segments, hull_segments

EPSILON = float(np.finfo(np.longdouble).eps)
"""Rounding of one addition in the sums of losses."""

LEAST_STRIDE = 64
"""Steps between two checkpoints where there are few units."""


@dataclass(frozen=True, slots=True, eq=False)
class Frontier:
    """Breakpoints of the frontier and the levels at each; later points never lower a level.

    Units that must take the same level form a group; elsewhere each unit is a group of its own.

    Args:
        budget_bytes: Bytes at each point, int64 [points], strictly rising.
        loss: Least loss within so many bytes, [points], falling and convex.
        first: Level of each group at the first point, int64 [groups].
        unit: Group that the step to the next point raises, int64 [steps], one less than points.
        level: Level that the step leads to, int64 [steps].
        group: Group of each unit, int64 [units].
        checkpoints: Levels of the groups after every ``stride`` steps, from the first point on,
            int64 [checkpoints, groups].
        least_size: Sum of the magnitudes of the least losses of all groups.
    """

    budget_bytes: Ints
    loss: Floats
    first: Ints
    unit: Ints
    level: Ints
    group: Ints
    checkpoints: Ints
    least_size: float

    @property
    def stride(self) -> int:
        """Steps from one checkpoint to the next."""
        return stride_for(len(self.first))

    def point(self, num_bytes: int) -> int:
        """Last point that needs no more than so many bytes; -1 if none does."""
        within = min(num_bytes, int(self.budget_bytes[-1]))
        return int(np.searchsorted(self.budget_bytes, within, side="right")) - 1

    def levels(self, point: int) -> Ints:
        """Level of each unit at a point, int64 [units].

        Only the steps after the last checkpoint are repeated.
        """
        block = point // self.stride
        levels = self.checkpoints[block].copy()
        again = slice(block * self.stride, point)
        np.maximum.at(levels, self.unit[again], self.level[again])
        expanded: Ints = levels[self.group]
        return expanded

    def loss_at(self, num_bytes: int) -> float:
        """Optimum of the relaxed problem for a budget; infinite below the first point."""
        point = self.point(num_bytes)
        if point < 0:
            return math.inf
        if point == len(self.loss) - 1:
            return float(self.loss[point])
        start, end = map(int, self.budget_bytes[point : point + 2])
        above, below = map(float, self.loss[point : point + 2])
        # from below, where a small loss is not lost in a large one
        return below + (above - below) * ((end - num_bytes) / (end - start))

    def bound_at(self, num_bytes: int) -> float:
        """Loss that no choice within a budget can beat, with rounding counted against it."""
        loss, least = self.loss_at(num_bytes), float(self.loss[-1])
        if loss == math.inf:
            return math.inf
        size = loss - least + self.least_size
        return loss - (SAFETY + len(self.loss) * EPSILON) * size

    def __eq__(self, other: object) -> bool:
        """Whether every field is equal, arrays element by element."""
        return same_values(self, other)


def trace(reduction: Reduction) -> Frontier:
    """The frontier of a reduced problem, with the levels of the original one.

    Args:
        reduction: A problem without coupling constraints; its budget does not matter.
    """
    problem = reduction.problem
    first, segments = hull_segments(problem)
    least = problem.loss[:, -1].tolist()
    menu = reduction.stand_in[first_members(reduction.group)]  # [groups, levels]
    start = menu[np.arange(len(first)), first]
    level = menu[segments.unit, segments.level]
    spent = np.cumsum(np.concatenate(([0], segments.cost_bytes)))
    frontier = Frontier(
        budget_bytes=problem.floor_bytes + spent,
        loss=add_from_the_end(loss_removed(problem.loss, first, segments), math.fsum(least)),
        first=start,
        unit=segments.unit,
        level=level,
        group=reduction.group,
        checkpoints=replay(start, segments.unit, level),
        least_size=math.fsum(map(abs, least)),
    )
    for array in (frontier.budget_bytes, frontier.loss, start, level, frontier.unit):
        array.flags.writeable = False
    return frontier


def loss_removed(loss: Floats, first: Ints, segments: Segments) -> Floats:
    """Loss that each step removes, [steps].

    Args:
        loss: Loss of each unit at each level, [units, levels].
        first: Level of each unit before its first step, int64 [units].
        segments: The steps.
    """
    order = np.lexsort((segments.level, segments.unit))
    unit, level = segments.unit[order], segments.level[order]
    before = np.concatenate(([0], level[:-1]))
    starts = np.concatenate(([True], unit[1:] != unit[:-1]))[: len(unit)]
    before = np.where(starts, first[unit], before[: len(unit)])
    removed = np.empty(len(unit))
    removed[order] = loss[unit, before] - loss[unit, level]
    return removed


def add_from_the_end(removed: Floats, least: float) -> Floats:
    """Loss at each point, [points], from what each step removes and the least loss.

    Summed from the last point, where the terms are small, so that small losses stay exact.
    """
    backwards = np.concatenate(([least], removed[::-1])).astype(np.longdouble)
    return np.cumsum(backwards)[::-1].astype(np.float64)


def stride_for(groups: int) -> int:
    """Steps between checkpoints, so that all of them need no more memory than the steps."""
    return max(groups, LEAST_STRIDE)


def replay(first: Ints, unit: Ints, level: Ints) -> Ints:
    """Levels of the groups after every stride of steps, int64 [checkpoints, groups]."""
    stride = stride_for(len(first))
    levels = first.copy()
    checkpoints = [levels.copy()]
    for end in range(stride, len(unit) + 1, stride):
        np.maximum.at(levels, unit[end - stride : end], level[end - stride : end])
        checkpoints.append(levels.copy())
    return np.stack(checkpoints)
