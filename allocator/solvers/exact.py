"""The best plan, with proof.

The relaxed optimum gives a price of a byte and nearly all levels; what it leaves open is a small
core. Its units are decided one by one, least slack first, keeping every partial choice that
could still lead to a better plan than the best one known.

Reference:
    Pisinger, "A minimal algorithm for the multiple-choice knapsack problem", European Journal of
    Operational Research, 1995. https://doi.org/10.1016/0377-2217(95)00015-I
    Dyer, Kayal and Walker, "A branch and bound algorithm for solving the multiple-choice
    knapsack problem", Journal of Computational and Applied Mathematics, 1984.
    https://doi.org/10.1016/0377-0427(84)90023-2
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.checks import check_count, check_number
from kvbudget.allocator.knapsack.core import reduce_to_core
from kvbudget.allocator.knapsack.frontier import NEVER
from kvbudget.allocator.knapsack.search import search
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.relaxation import Relaxation, relax
from kvbudget.allocator.rounding import fill
from kvbudget.allocator.solver import CLOSED, Choice, Solver
from kvbudget.allocator.status import Status

WIDTHS = (2**10, 2**14, 2**18)
"""Choices per side in each pass: the first ones find a good plan, which spares later ones work."""


class Known(NamedTuple):
    """What is known of the optimum.

    Args:
        levels: The best plan so far, int64 [units].
        loss: What it loses.
        bound: What no plan loses less than.
    """

    levels: Ints
    loss: float
    bound: float

    def within(self, tolerance: float) -> bool:
        """Whether the relative gap is at most that wide, or only rounding."""
        scale = max(abs(self.loss), abs(self.bound))
        return self.loss - self.bound <= max(tolerance, CLOSED) * scale


@dataclass(frozen=True, slots=True)
class Exact(Solver):
    """Search until the plan is proved to be the best one.

    Problems of hundreds of caches take milliseconds. Some made to be hard do not end soon: where
    loss is nearly proportional to bytes, or hundreds of units are equal. Then the answer has the
    status ``LIMIT_REACHED``, the best plan found, and a proven bound.

    Args:
        tolerance: Relative gap at which to stop; 0 searches for the optimum.
        most_states: Partial plans to look at before the search stops trying to be complete. A
            count and not a time, so that equal problems get equal answers; a million takes some
            200 ms.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If it is out of range.
    """

    bounds_relaxation: ClassVar[bool] = True

    tolerance: float = 0.0
    most_states: int = 30_000_000

    def __post_init__(self) -> None:
        """Check the settings."""
        tolerance = check_number("tolerance", self.tolerance)
        if not 0 <= tolerance < 1:
            raise ValueError(
                f"`tolerance` must be at least 0 and below 1, but got tolerance={tolerance}."
            )
        check_count("most_states", self.most_states)
        object.__setattr__(self, "tolerance", tolerance)

    def choose(self, problem: Problem) -> Choice:
        """Search in passes, each wider than the one before, until the gap is closed."""
        relaxed = relax(problem)
        levels = fill(problem, relaxed.levels)
        known = Known(levels, math.fsum(losses(problem, levels)), relaxed.bound)
        states, done = self.most_states, known.within(self.tolerance)
        for width in WIDTHS:
            if done or states <= 0:
                break
            known, examined, done = self._search(problem, relaxed, known, width, states)
            states -= examined
        return Choice(known.levels, Status.FEASIBLE if done else Status.LIMIT_REACHED, known.bound)

    def _search(
        self, problem: Problem, relaxed: Relaxation, known: Known, width: int, most_states: int
    ) -> tuple[Known, int, bool]:
        """Return what one pass found, how many states it looked at, and whether that is all."""
        core = reduce_to_core(problem, relaxed, known.loss)
        base = losses(problem, relaxed.levels)
        extra = math.fsum([*losses(problem, known.levels), *(-loss for loss in base)])
        best = math.ceil(extra / core.quantum + core.error)
        tolerance = int(min(self.tolerance * abs(known.loss) / core.quantum, NEVER))
        patient = width == WIDTHS[-1]
        found = search(core, best, tolerance, width, most_states, patient=patient)
        levels, loss = known.levels, known.loss
        other = core.levels(relaxed.levels, found.rows)
        other_loss = math.fsum(losses(problem, other))
        if len(found.rows) and other_loss < loss:
            levels, loss = other, other_loss
        proven = math.fsum([*base, (found.proven - core.error) * core.quantum])
        known = Known(levels, loss, min(loss, max(known.bound, proven)))
        return known, found.examined, found.complete or known.within(self.tolerance)


def losses(problem: Problem, levels: Ints) -> list[float]:
    """Loss of each unit at its level."""
    at: Floats = np.take_along_axis(problem.loss, levels[:, None], axis=1)
    values: list[float] = at.ravel().tolist()
    return values
