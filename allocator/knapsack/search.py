"""Search of a core for the best choice of rows, with proof.

Two frontiers share the groups: each group goes to the smaller one, and after each step the best
pair of choices, one of either side, is a plan. So a plan is tried for every pair, though only
the choices of each side are ever listed.

Reference:
    Horowitz and Sahni, "Computing partitions with applications to the knapsack problem", Journal
    of the ACM, 1974. https://doi.org/10.1145/321812.321823
"""

from typing import NamedTuple

import numpy as np

from kvbudget.allocator.arrays import Ints

from .core import ROUNDING, Core
from .frontier import NEVER, Frontier, extend

NARROW = 2**10
"""Choices per side once the states that may be examined are used up."""
PATIENCE = 64
"""Groups without a better plan after which a search that can prove nothing more gives up."""


class Outcome(NamedTuple):
    """What a search found.

    Args:
        rows: Rows of the best choice that loses less than what was known, int64; empty if none.
        best: Its extra loss in quanta, or what was known before.
        proven: Extra loss in quanta that no choice within the budget goes below.
        examined: How many candidates were looked at.
        complete: Whether nothing was left out, so that no better choice exists.
    """

    rows: Ints
    best: int
    proven: int
    examined: int
    complete: bool


class Pair(NamedTuple):
    """A choice of each side that together fit the budget.

    Args:
        loss: Extra loss of both together, ``NEVER`` or more if no two fit.
        one: Place of the choice in the first side.
        other: Place of the choice in the second side.
    """

    loss: int
    one: int
    other: int


def search(
    core: Core, best: int, tolerance: int, width: int, most_states: int, *, patient: bool
) -> Outcome:
    """Decide all groups of a core.

    Args:
        core: What to search.
        best: Extra loss of a plan that is known, in quanta.
        tolerance: Quanta that are not worth searching for.
        width: Choices per side at most.
        most_states: Candidates to look at before the sides become narrow.
        patient: Whether to go on for the sake of a bound when no better plan is in sight.
    """
    tolerance = max(tolerance, int(2 * ROUNDING * core.hulls.gain.max(initial=0)))
    sides = [Frontier.empty(core), Frontier.empty(core)]
    rows, proven, examined, last = [], NEVER, 0, 0
    least = core.least_slack()
    for group in range(core.num_groups):
        if least[group] >= best - tolerance - core.bound:
            continue
        sides.sort(key=len)
        room = width if examined < most_states else min(width, NARROW)
        extension = extend(core, sides[0], group, best - tolerance, room)
        sides[0] = extension.frontier
        proven, examined = min(proven, extension.dropped), examined + extension.examined
        if not len(sides[0]):
            break
        pair = best_pair(core, *sides)
        if pair.loss < best:
            rows = sides[0].trail.rows(pair.one) + sides[1].trail.rows(pair.other)
            best, last = pair.loss, group
        if group - last > PATIENCE and proven < best - tolerance and not patient:
            proven = -NEVER
            break
    found = np.array(rows, dtype=np.int64)
    complete = proven >= best - tolerance
    return Outcome(found, best, min(proven, best - tolerance), examined, complete)


def best_pair(core: Core, one: Frontier, other: Frontier) -> Pair:
    """The two choices that lose least together; the first such pair."""
    place = np.searchsorted(other.cost_bytes, core.left - one.cost_bytes, side="right") - 1
    loss = np.where(place >= 0, one.loss + other.loss[place], NEVER)
    least = int(loss.argmin())
    return Pair(int(loss[least]), least, int(place[least]))
