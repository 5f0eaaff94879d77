"""Curves of loss over bytes: repair, and the lower convex hull.

A level on the lower convex hull of a unit's curve is the best one at some price of a byte; the
others are never best at any price.
"""

import numpy as np

from .arrays import Floats, Ints
from .terms import Bools

FEW = 8
"""One bump in so many points is not worth another look at all of them."""


def running_minimum(loss: Floats) -> Floats:
    """Least loss up to each level: the repair of curves that a measurement made rise.

    Args:
        loss: Loss at each level, [..., levels].

    Returns:
        The same shape, never rising along the levels.
    """
    return np.minimum.accumulate(loss, axis=-1)


def useful_levels(cost_bytes: Ints, loss: Floats) -> Bools:
    """Which levels lose less than every cheaper one and no more than any of equal cost.

    Of equal levels the first is kept, so that along the kept levels cost strictly rises and loss
    strictly falls.

    Args:
        cost_bytes: Memory of each unit at each level, [units, levels], never falling.
        loss: Loss of each unit at each level, [units, levels], never rising.

    Returns:
        Mask, [units, levels].
    """
    units, levels = loss.shape
    ends = np.ones((units, levels), dtype=bool)  # last level of its cost
    ends[:, :-1] = cost_bytes[:, 1:] != cost_bytes[:, :-1]
    last = np.where(ends, np.arange(levels), levels)
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    better = np.ones((units, levels), dtype=bool)
    better[:, 1:] = loss[:, 1:] < loss[:, :-1]
    useful: Bools = better & (loss == np.take_along_axis(loss, last, axis=1))
    return useful


def lower_hull(cost_bytes: Ints, loss: Floats) -> Bools:
    """Which levels are corners of the lower convex hull of their unit's curve.

    First go the levels that a look at their neighbours rules out. On what is left the monotone
    chain of Andrew runs for all units side by side: each step adds one level to the chain of a
    unit or takes one off it, so there are at most two steps per level.

    Args:
        cost_bytes: Memory of each unit at each level, [units, levels], never falling.
        loss: Loss of each unit at each level, [units, levels], never rising.

    Returns:
        Mask, [units, levels]. The first corner is the best of the cheapest levels, the last one
        the cheapest of the best; from corner to corner the loss removed per byte strictly falls.

    Reference:
        Andrew, "Another efficient algorithm for convex hulls in two dimensions", Information
        Processing Letters, 1979. https://doi.org/10.1016/0020-0190(79)90072-3
    """
    useful = useful_levels(cost_bytes, loss)
    points = np.flatnonzero(useful)
    corners = build_chains(cost_bytes.ravel()[points], loss.ravel()[points], useful.sum(axis=1))
    mask = np.zeros(loss.shape, dtype=bool)
    mask.ravel()[points[corners]] = True
    return mask


def build_chains(x: Ints | Floats, y: Floats, count: Ints) -> Bools:
    """Corners of the lower convex hulls of many point sequences that lie one after another.

    Args:
        x: First coordinate, [points], strictly rising within a sequence.
        y: Second coordinate, [points].
        count: Points of each sequence, [units], at least 1; their sum is ``points``.

    Returns:
        Mask, [points].
    """
    sequence = np.repeat(np.arange(len(count)), count)
    points, bent = drop_bumps(x, y, sequence)
    mask = np.zeros(len(x), dtype=bool)
    mask[points] = True
    rest = points[np.isin(sequence[points], bent)]
    left = np.bincount(sequence[rest], minlength=len(count))[bent]
    mask[rest] = chain_corners(x[rest], y[rest], left)
    return mask


def drop_bumps(x: Ints | Floats, y: Floats, sequence: Ints) -> tuple[Ints, Ints]:
    """Take out the points on or above a line between their neighbours, again while it pays.

    Args:
        x: First coordinate, [points], strictly rising within a sequence.
        y: Second coordinate, [points].
        sequence: Sequence of each point, int64 [points].

    Returns:
        The points that are left, and the sequences of which they may not all be corners.
    """
    points = np.arange(len(x))
    while True:
        here = sequence[points]
        slope = np.full(max(len(points) - 1, 0), np.nan)
        within = here[1:] == here[:-1]
        np.divide(np.diff(y[points]), np.diff(x[points]), out=slope, where=within)
        # not so beside a NaN, which is where a sequence ends
        bump = np.flatnonzero(slope[:-1] >= slope[1:]) + 1
        points = np.delete(points, bump)
        if len(bump) * FEW <= len(points):
            return points, np.unique(here[bump])


def chain_corners(x: Ints | Floats, y: Floats, count: Ints) -> Bools:
    """The same as :func:`build_chains`, quick if most points are corners.

    Args:
        x: First coordinate, [points], strictly rising within a sequence.
        y: Second coordinate, [points].
        count: Points of each sequence, [units], at least 1; their sum is ``points``.

    Returns:
        Mask, [points].
    """
    end = np.cumsum(count)
    base = end - count
    chain = np.zeros(len(x), dtype=np.int64)  # corners so far, a stack per sequence
    chain[base] = base
    slope = np.full(len(x), -np.inf)  # of the segment that ends at each corner
    height = np.zeros(len(count), dtype=np.int64)
    active = np.flatnonzero(count > 1)
    top, point = base[active], base[active] + 1
    while active.size:
        corner = chain.take(top)
        new = (y.take(point) - y.take(corner)) / (x.take(point) - x.take(corner))
        push = new > slope.take(top)
        top = top + np.where(push, 1, -1)
        chain[top[push]] = point[push]
        slope[top[push]] = new[push]
        point = point + push
        going = point < end[active]
        height[active[~going]] = (top - base[active])[~going]
        active, top, point = active[going], top[going], point[going]
    place = np.arange(len(x)) - np.repeat(base, count)
    mask = np.zeros(len(x), dtype=bool)
    mask[chain[place <= np.repeat(height, count)]] = True
    return mask
