"""The same level for every unit: what systems without per-cache budgets do.

Reference:
    Original. The baseline that every allocation has to beat.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.constraints import ByteLimit
from kvbudget.allocator.coupled.stacked import stack
from kvbudget.allocator.problem import Problem
from kvbudget.allocator.risk import CVaR, Risk, WorstSample
from kvbudget.allocator.solver import Choice, Solver


@dataclass(frozen=True, slots=True)
class Uniform(Solver):
    """Give every unit the largest level that all of them can afford together.

    What is left after that stays unused. To compare at equal memory, the menu should hold the
    share of the budget itself: for a budget of 25 % a level that keeps 0.25.
    """

    honours: ClassVar[frozenset[type[Constraint] | type[Risk]]] = frozenset(
        {ByteLimit, WorstSample, CVaR}
    )

    def choose(self, problem: Problem) -> Choice:
        """Choose the largest common level that fits every limit."""
        stacked = stack(problem)
        used = stacked.cost_bytes.sum(axis=1)  # [limits, levels]
        fits = (used <= stacked.most_bytes[:, None]).all(axis=0)  # [levels]
        level = np.flatnonzero(fits)[-1]
        return Choice(np.full(len(problem.loss), level, dtype=np.int64))
