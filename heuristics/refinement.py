"""Mend estimated loss curves with a few exact values, put where they change most.

An estimate that looks only at the neighbourhood of the full cache orders caches well and knows the
shape of their curves, but not how far a large change goes: where the model is sure of what it
retrieves, the slope at the full cache says next to nothing. A few exact values correct the size,
and the estimate fills in between them.

Reference:
    Original.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Exact = Callable[[int, int], float]
Known = dict[int, dict[int, float]]


def refined(estimate: Floats, exact: Exact, runs: int) -> Floats:
    """Replace some points of estimated curves by exact ones and bend the rest to fit.

    Half of the runs find the exact loss at the lowest level of the caches with the largest
    estimates there. The others halve, again and again, the interval between two exact points over
    which a curve falls most. Between exact points the curve falls as the estimate does.

    Args:
        estimate: Loss of each cache at each level, [caches, levels], 0 at the last level, which
            keeps everything.
        exact: Gives the exact loss of a cache at a level, both by index.
        runs: Most calls of ``exact``.

    Returns:
        Mended losses, [caches, levels], float64, at least 0; caches without an exact point are
        left as they are.
    """
    known = _at_lowest(estimate, exact, (runs + 1) // 2)
    _halve(known, exact, runs - len(known), estimate.shape[1] - 1)
    mended = estimate.astype(np.float64)
    for cache, points in known.items():
        levels = sorted(points)
        for low, high in pairwise(levels):
            span = slice(low, high + 1)
            mended[cache, span] = _bent(estimate[cache, span], points[low], points[high])
    return mended


def _at_lowest(estimate: Floats, exact: Exact, runs: int) -> Known:
    """Exact losses at both ends of the curves that start highest."""
    last = estimate.shape[1] - 1
    if last == 0:
        return {}
    largest = np.argsort(-estimate[:, 0], kind="stable")[:runs]
    return {int(cache): {0: exact(int(cache), 0), last: 0.0} for cache in largest}


def _halve(known: Known, exact: Exact, runs: int, last: int) -> None:
    """Add exact points inside the steepest intervals."""
    intervals: list[tuple[float, int, int, int]] = []

    def offer(cache: int, low: int, high: int) -> None:
        drop = known[cache][low] - known[cache][high]
        if high - low > 1 and drop > 0:
            heapq.heappush(intervals, (-drop, cache, low, high))

    for cache in known:
        offer(cache, 0, last)
    for _ in range(runs):
        if not intervals:
            return
        _, cache, low, high = heapq.heappop(intervals)
        middle = (low + high) // 2
        known[cache][middle] = exact(cache, middle)
        offer(cache, low, middle)
        offer(cache, middle, high)


def _bent(estimate: Floats, first: float, last: float) -> Floats:
    """From ``first`` to ``last`` as the estimate falls between its own ends; straight if flat."""
    fallen = estimate[0] - estimate
    if fallen[-1] > 0:
        share = (fallen / fallen[-1]).clip(0.0, 1.0)
    else:
        share = np.linspace(0.0, 1.0, len(estimate))
    return np.asarray(first + (last - first) * share, dtype=np.float64)
