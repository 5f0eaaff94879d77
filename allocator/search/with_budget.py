"""The budget as one more searched number."""

from dataclasses import dataclass, replace

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints
from kvbudget.allocator.problem import Problem

from .dimension import Dimension, Real
from .parameters import Parameters

START_SHARES = (1.0, 0.5, 0.25, 0.75, 0.0)
"""Shares of the way from the lowest levels to the budget that are tried first."""


@dataclass(frozen=True, slots=True)
class WithBudget(Parameters):
    """Choices of another kind at every budget up to the problem's own.

    Args:
        inner: What the other numbers mean.
    """

    inner: Parameters

    def dimensions(self, problem: Problem) -> tuple[Dimension, ...]:
        """The inner numbers, then the share of the way from the lowest levels to the budget."""
        return *self.inner.dimensions(problem), Real("budget share", 0.0, 1.0)

    def starts(self, problem: Problem) -> tuple[tuple[float, ...], ...]:
        """The first inner start at budgets from the largest to the smallest."""
        return tuple(
            (*self.inner.starts(at_share(problem, share))[0], share) for share in START_SHARES
        )

    def levels(self, problem: Problem, values: Floats) -> Ints:
        """The inner levels at the searched budget."""
        return self.inner.levels(at_share(problem, float(values[-1])), values[:-1])


def at_share(problem: Problem, share: float) -> Problem:
    """The problem at a budget between its lowest levels, 0, and its own, 1."""
    spare = int(np.floor(share * (problem.budget_bytes - problem.floor_bytes)))
    return replace(problem, budget_bytes=min(problem.floor_bytes + spare, problem.budget_bytes))
