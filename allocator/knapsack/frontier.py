"""Partial choices of a core that nothing else beats, grown group by group.

A frontier holds, for some of the groups, every choice of rows that no other one beats in both
bytes and loss, and that could still belong to a plan below a limit. What the other groups must
lose at least with the bytes that remain is read off their hulls, merged into one.

Reference:
    Pisinger, "A minimal algorithm for the multiple-choice knapsack problem", European Journal of
    Operational Research, 1995. https://doi.org/10.1016/0377-2217(95)00015-I
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.terms import Bools

from .core import Core

NEVER = 2**62
"""More quanta than any plan loses."""
CHUNK = 2**21
"""Candidates that are looked at together."""


@dataclass(frozen=True, slots=True, eq=False)
class Trail:
    """How the choices of a frontier came about, to find their rows again.

    Args:
        before: The trail of the frontier before its last group.
        parent: Place there of the choice that was extended, int32 [choices].
        row: Row that it was extended by, int32 [choices].
    """

    before: "Trail | None"
    parent: np.ndarray[tuple[int], np.dtype[np.int32]]
    row: np.ndarray[tuple[int], np.dtype[np.int32]]

    def rows(self, place: int) -> list[int]:
        """Rows of the choice at a place."""
        rows, trail = [], self
        while trail.before is not None:
            rows.append(int(trail.row[place]))
            place, trail = int(trail.parent[place]), trail.before
        return rows


@dataclass(frozen=True, slots=True, eq=False)
class Frontier:
    """Choices of rows for some groups, the others at their base.

    Args:
        cost_bytes: Extra bytes, int64 [choices], strictly rising.
        loss: Extra loss in quanta, int64 [choices], strictly falling.
        inside: Groups that it has decided, [groups].
        trail: The rows behind each choice.
    """

    cost_bytes: Ints
    loss: Ints
    inside: Bools
    trail: Trail

    @classmethod
    def empty(cls, core: Core) -> "Frontier":
        """The one choice for no group at all."""
        nothing = np.zeros(1, dtype=np.int64)
        none = np.zeros(1, dtype=np.int32)
        return cls(nothing, nothing, np.zeros(core.num_groups, dtype=bool), Trail(None, none, none))

    def __len__(self) -> int:
        """How many choices it holds."""
        return len(self.loss)


class Candidates(NamedTuple):
    """Choices that may enter a frontier.

    Args:
        cost_bytes: Extra bytes, int64 [choices].
        loss: Extra loss, int64 [choices].
        floor: Loss that no plan with this choice goes below, int64 [choices].
        parent: Place of the choice that was extended, int64 [choices].
        row: Row that extended it, int64 [choices].
    """

    cost_bytes: Ints
    loss: Ints
    floor: Ints
    parent: Ints
    row: Ints

    def take(self, places: Ints | Bools) -> "Candidates":
        """Those at some places."""
        return Candidates(*(field[places] for field in self))


class Completion(NamedTuple):
    """Least loss of some groups by the bytes they get, between their merged hulls' corners.

    Args:
        cost_bytes: Bytes of each corner, int64 [corners], rising.
        loss: Loss of each corner, int64 [corners], falling.
        worth: Loss removed per byte from each corner on, [corners]; 0 from the last.
    """

    cost_bytes: Ints
    loss: Ints
    worth: Floats

    def floor(self, left: Ints) -> Ints:
        """Loss that the groups cannot go below with so many bytes, ``NEVER`` if too few."""
        corner = np.searchsorted(self.cost_bytes, left, side="right") - 1
        bought = (left - self.cost_bytes[corner]) * self.worth[corner]
        loss = self.loss[corner] - bought.astype(np.int64)
        return np.where(corner >= 0, loss, NEVER)


def complete(core: Core, inside: Bools) -> Completion:
    """What the groups that are not ``inside`` lose at least, by the bytes they get."""
    outside = ~inside
    hulls = core.hulls
    step = outside[hulls.group]
    cost = np.append(hulls.low_bytes[outside].sum(), hulls.cost_bytes[step])
    loss = np.append(hulls.low_loss[outside].sum(), -hulls.gain[step])
    return Completion(cost.cumsum(), loss.cumsum(), np.append(hulls.worth[step], 0.0))


class Extension(NamedTuple):
    """A frontier with one group more.

    Args:
        frontier: The new frontier.
        dropped: Loss that no plan goes below whose choice was dropped for want of room.
        examined: How many candidates were looked at.
    """

    frontier: Frontier
    dropped: int
    examined: int


def extend(core: Core, frontier: Frontier, group: int, limit: int, width: int) -> Extension:
    """Decide one more group.

    Args:
        core: The core.
        frontier: Choices for other groups.
        group: The group to decide.
        limit: Loss that plans of interest are below.
        width: Choices to keep at most; those of the lowest floor are kept.
    """
    inside = frontier.inside.copy()
    inside[group] = True
    completion = complete(core, inside)
    found, dropped, examined = [], NEVER, 0
    for chunk in candidate_chunks(core, frontier, group, limit):
        examined += len(chunk[0])
        kept, lost = trim(core, pareto(below(core, frontier, completion, limit, *chunk)), width)
        found.append(kept)
        dropped = min(dropped, lost)
    if len(found) > 1:
        kept, lost = trim(core, pareto(join_candidates(found)), width)
        dropped = min(dropped, lost)
    parent, row = kept.parent.astype(np.int32), kept.row.astype(np.int32)
    trail = Trail(frontier.trail, parent, row)
    return Extension(Frontier(kept.cost_bytes, kept.loss, inside, trail), dropped, examined)


def candidate_chunks(
    core: Core, frontier: Frontier, group: int, limit: int
) -> Iterator[tuple[Ints, Ints]]:
    """Pairs of a choice and a row of the group whose slacks leave room, a chunk at a time.

    Args:
        core: The core.
        frontier: Choices for other groups.
        group: The group to decide.
        limit: Loss that plans of interest are below.

    Yields:
        Places in the frontier and rows, int64 [pairs].
    """
    room = limit - core.bound - (frontier.loss + core.price * frontier.cost_bytes)
    begin, end = core.first[group], core.first[group + 1]
    rows = begin + np.flatnonzero(core.slack[begin:end] < room.max())
    size = max(CHUNK // len(frontier), 1)
    for start in range(0, max(len(rows), 1), size):
        some = rows[start : start + size]
        which, parent = np.nonzero(core.slack[some, None] < room)
        yield parent, some[which]


def below(
    core: Core, frontier: Frontier, completion: Completion, limit: int, parent: Ints, row: Ints
) -> Candidates:
    """Extended choices that may belong to a plan that loses less than a limit.

    Args:
        core: The core.
        frontier: Choices for other groups.
        completion: Least loss of the groups that are then still open.
        limit: Loss that plans of interest are below.
        parent: Places in the frontier, int64 [pairs].
        row: Rows of the group to decide, int64 [pairs].
    """
    cost = frontier.cost_bytes[parent] + core.cost_bytes[row]
    loss = frontier.loss[parent] + core.loss[row]
    floor = loss + completion.floor(core.left - cost)
    return Candidates(cost, loss, floor, parent, row).take(floor < limit)


def pareto(candidates: Candidates) -> Candidates:
    """Those that no other one beats in both bytes and loss, cheapest first."""
    sort = np.argsort(candidates.cost_bytes, kind="stable")
    cost, loss = candidates.cost_bytes[sort], candidates.loss[sort]
    better = np.ones(len(sort), dtype=bool)
    better[1:] = loss[1:] < np.minimum.accumulate(loss)[:-1]
    best = np.flatnonzero(better)
    # of equal bytes the last one left loses least
    last = np.ones(len(best), dtype=bool)
    last[:-1] = cost[best[1:]] != cost[best[:-1]]
    return candidates.take(sort[best[last]])


def trim(core: Core, candidates: Candidates, width: int) -> tuple[Candidates, int]:
    """Keep those of the lowest floor, of equal ones those nearest to the budget.

    Returns:
        What is kept, cheapest first, and the lowest floor of what is not, or ``NEVER``.
    """
    if len(candidates.floor) <= width:
        return candidates, NEVER
    distance = np.abs(core.left - candidates.cost_bytes)
    order = np.lexsort((distance, candidates.floor))
    return candidates.take(np.sort(order[:width])), int(candidates.floor[order[width]])


def join_candidates(parts: list[Candidates]) -> Candidates:
    """All candidates of several chunks."""
    return Candidates(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
